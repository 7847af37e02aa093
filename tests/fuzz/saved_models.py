"""Detectors, backbones, and pipelines that were saved with their grounding module."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from ml.settings.profile import ROOT
from tests.fuzz import workspaces
from tests.fuzz.edits import (
    DROP,
    copy_of,
    tiny_models,
    with_bytes,
    with_json,
    with_weights,
    without,
)
from tests.fuzz.harness import Case

MICRO = ROOT / "data/foundation/micro"


def cases(rng: random.Random) -> Iterator[Case]:
    yield from _others(rng)
    yield from _saved(rng)


def _others(rng) -> Iterator[Case]:
    """Detectors and backbones, in a workspace that has all that is before them."""
    for name, section, key, made, weights in (
        ("detector", "detector", "model", "masks", "model"),
        ("backbone", "segmenter", "backbone", "segmenter", "model"),
    ):
        edits = {
            "cut": with_bytes(f"{weights}.safetensors", lambda data: data[: len(data) // 2]),
            "empty": with_bytes(f"{weights}.safetensors", lambda data: b""),
            "NaN": with_weights(
                weights,
                lambda tensors: (
                    next(
                        value
                        for value in tensors.values()
                        if value.is_floating_point() and value.ndim
                    )
                    .view(-1)
                    .__setitem__(0, float("nan"))
                ),
            ),
            "a weight less": with_weights(
                weights,
                lambda tensors: tensors.pop(
                    sorted(name for name in tensors if "num_batches" not in name)[rng.randrange(9)]
                ),
            ),
            "no weights": without(f"{weights}.safetensors"),
            "no config": without("config.json"),
        } | {
            f"config {text[:5]!r}": with_bytes("config.json", lambda _, text=text: text.encode())
            for text in ("", "{}", "[]", "null", "7", "[" * 100_000)
        }
        for what, edit in edits.items():

            def prepare(
                folder: Path, edit=edit, name=name, section=section, key=key, made=made
            ) -> list[str]:
                edit(copy_of(MICRO / name, folder / name))
                workspaces.lay(folder, f"{section}: {{{key}: {folder / name}}}\n")
                return workspaces.command(folder, made)

            yield Case(
                "checkpoints",
                f"{name}: {what} ({rng.randrange(1000)})",
                False,
                prepare,
                names=(name,),
                codes=(2,),
                ours=("root/data/yard/.locks/*",),
            )


def _load(arguments) -> int:
    from ml.grounding.pipeline import GroundedDiffusionPipeline

    GroundedDiffusionPipeline.from_pretrained(arguments[0])
    return 0


def _saved(rng) -> Iterator[Case]:
    """A pipeline that was saved with its grounding module, loaded by a program."""
    edits: dict[str, Callable] = {}
    for file in ("pipeline.json", "grounding/config.json"):
        for text in ("", "{}", "[]", "null", '{"a": 1}', "[" * 100_000):
            edits[f"{file}: {text[:9]!r}"] = with_bytes(file, lambda _, text=text: text.encode())
        edits[f"{file}: gone"] = without(file)
    for value in (None, 7, [], "nowhere", "../model2", "/"):
        edits[f"pipeline.json: diffusion = {value!r}"] = with_json("pipeline.json", diffusion=value)
    for field, value in (
        ("width", 0),
        ("width", "64"),
        ("heads", 3),
        ("layers", -1),
        ("variant", "ours"),
        ("feature_channels", {}),
        ("feature_channels", {"x": 1}),
        ("evidence_timesteps", []),
        ("evidence_timesteps", 7),
        ("invented", 3),
        ("text_width", 99),
        ("width", DROP),
        ("upsampling", 0),
    ):
        edits[f"grounding/config.json: {field} = {'nothing' if value is DROP else value!r}"] = (
            with_json("grounding/config.json", **{field: value})
        )
    edits["grounding: cut"] = with_bytes("grounding/model.safetensors", lambda data: data[:500])
    edits["grounding: a weight less"] = with_weights(
        "grounding/model", lambda tensors: tensors.pop(sorted(tensors)[rng.randrange(20)])
    )
    edits["batch_size 0"] = with_json("pipeline.json", batch_size=0)
    edits["batch_size as text"] = with_json("pipeline.json", batch_size="many")
    edits["dtype"] = with_json("pipeline.json", variant=7)
    for what, edit in edits.items():

        def prepare(folder: Path, edit=edit) -> list[str]:
            edit(copy_of(Path(tiny_models().name, "saved"), folder / "saved"))
            return [str(folder / "saved")]

        yield Case("checkpoints", f"saved, {what}", False, prepare, _load, names=("",))
