"""Models people bring: configurations with other fields, weights that are missing, of another model
or damaged, tokenizers without their files. All are copies of tiny ones."""

import contextlib
import io
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from ml.__main__ import main
from ml.params import ROOT
from tests.fuzz import workspaces
from tests.fuzz.harness import Case
from tests.fuzz.parts import rows, stage, write_profile, write_vocabulary

UNET, VAE, TEXT = ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model",
                   "text_encoder/model")
MICRO = ROOT / "data/foundation/micro"


def cases(rng: random.Random) -> Iterator[Case]:
    while True:
        every = [*_diffusion(rng), *_others(rng), *_saved(rng)]
        yield from rng.sample(every, len(every))


@cache
def _base() -> tempfile.TemporaryDirectory:
    """A tiny pipeline, alone and with a grounding module, and prompts to draw with it."""
    import torch

    from ml.diffusion.features import feature_channels
    from ml.grounding.config import make_config
    from ml.grounding.module import GroundingModule
    from ml.grounding.pipeline import GroundedDiffusionPipeline
    from ml.params import load_params
    from tests.tiny import save_tiny_pipeline, tiny_pipeline

    place = tempfile.TemporaryDirectory()
    folder = Path(place.name)
    save_tiny_pipeline(folder / "model")
    pipe = tiny_pipeline()
    params = load_params().grounding
    config = make_config(params, feature_channels(pipe.unet),
                         pipe.text_encoder.config.hidden_size, 64, 60, "seeded")
    torch.manual_seed(0)
    GroundedDiffusionPipeline(pipe, GroundingModule(config)).save_pretrained(folder / "saved")
    (folder / "root").mkdir()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert main(stage(folder, "prompts", _profile(folder))) == 0
    return place


def _profile(folder: Path, **sections) -> Path:
    return write_profile(folder, vocabulary=write_vocabulary(folder), **sections)


def _copy(source: Path, target: Path) -> Path:
    """Of files that nobody writes in place, so that links do."""
    shutil.copytree(source, target, copy_function=os.link)
    return target


def _case(name: str, edit: Callable[[Path], object], sound: bool, *names, **settings) -> Case:
    """The stage `images` with the model as it was edited."""
    def prepare(folder: Path) -> list[str]:
        model = _copy(Path(_base().name, "model"), folder / "model")
        edit(model)
        shutil.copytree(Path(_base().name, "root"), folder / "root", dirs_exist_ok=True)
        (folder / "root/data/yard/.state/profile.json").unlink()
        diffusion = {"model": str(model), "steps": 2, "batch_size": 8} | settings
        return stage(folder, "images", _profile(folder, diffusion=diffusion))

    def check(folder: Path, _) -> str | None:
        made = rows(folder, "images")
        return None if len(made) and made["std"].gt(0).all() else "no pictures, or blank ones"

    return Case("checkpoints", name, sound, prepare, names=names, check=check,
                ours=("root/data/yard/.locks/*",))


def _json(file: str, **values) -> Callable[[Path], object]:
    """Fields of a configuration; None of DROP leaves it out."""
    def edit(model: Path) -> None:
        content = json.loads((model / file).read_text()) | values
        (model / file).unlink()
        (model / file).write_text(json.dumps({k: v for k, v in content.items() if v is not DROP}))
    return edit


DROP = object()


def _bytes(file: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    def edit(model: Path) -> None:
        data = (model / file).read_bytes()
        (model / file).unlink()
        (model / file).write_bytes(change(data))
    return edit


def _weights(file: str, change: Callable[[dict], object]) -> Callable[[Path], object]:
    def edit(model: Path) -> None:
        from safetensors.torch import load_file, save_file

        path = model / f"{file}.safetensors"
        tensors = load_file(path)
        path.unlink()
        change(tensors)
        save_file({name: value.contiguous() for name, value in tensors.items()}, path,
                  {"format": "pt"})
    return edit


def _gone(file: str) -> Callable[[Path], object]:
    def edit(model: Path) -> None:
        shutil.rmtree(model / file) if (model / file).is_dir() else (model / file).unlink()
    return edit


def _weights_cases(rng) -> Iterator[tuple[str, Callable, str]]:
    """(what, edit, the part)"""
    for file in (UNET, VAE, TEXT):
        part, _, _ = file.partition("/")

        number = rng.randrange(10**6)

        def pick(tensors: dict, number=number) -> str:
            names = sorted(name for name in tensors if tensors[name].ndim)
            return names[number % len(names)]

        def nan(tensors, pick=pick) -> None:
            tensors[pick(tensors)].view(-1)[0] = float(rng.choice(("nan", "inf")))

        def renamed(tensors, pick=pick) -> None:
            name = pick(tensors)
            base, _, last = name.rpartition(".")
            tensors[f"{base}.base_layer.{last}"] = tensors.pop(name)

        def longer(tensors, pick=pick) -> None:
            name = pick(tensors)
            tensors[name] = tensors[name].repeat(2, *[1] * (tensors[name].ndim - 1))

        def more(tensors, pick=pick) -> None:
            tensors["an.adapter.weight"] = tensors[pick(tensors)].clone()

        yield f"{part}: a weight less", _weights(file, lambda t, pick=pick: t.pop(pick(t))), part
        yield f"{part}: NaN", _weights(file, nan), part
        yield f"{part}: a LoRA's names", _weights(file, renamed), part
        yield f"{part}: another shape", _weights(file, longer), part
        yield f"{part}: one more", _weights(file, more), part
        for what, change in (("cut", lambda data: data[: len(data) // 2]),
                             ("empty", lambda data: b""), ("HTML", lambda data: b"<html>" * 99),
                             ("a head of garbage",
                              lambda data: data[:8] + b"\xff" * 40 + data[48:]),
                             ("an endless head", lambda data: b"\xff" * 8 + data[8:]),
                             ("a Git LFS pointer", lambda data: b"version https://git-lfs.github."
                                                                b"com/spec/v1\noid sha256:0\n")):
            yield f"{part}: weights {what}", _bytes(f"{file}.safetensors", change), part
        yield f"{part}: no weights", _gone(f"{file}.safetensors"), part


CONFIGS = {
    "unet/config.json": {
        "time_cond_proj_dim": 16, "in_channels": 9, "out_channels": 12,
        "class_embed_type": "timestep",
        "num_class_embeds": 10, "encoder_hid_dim": 8, "addition_embed_type": "text",
        "cross_attention_dim": 32, "sample_size": [16, 24], "attention_type": "gated",
        "dual_cross_attention": True, "only_cross_attention": True, "invented_field": 3,
        "cross_attention_norm": "layer_norm", "block_out_channels": [8, 16], "layers_per_block": 2,
        "down_block_types": ["DownBlock2D"] * 3, "norm_num_groups": 7, "attention_head_dim": 3,
        "act_fn": "nothing", "conv_in_kernel": 5, "resnet_time_scale_shift": "scale_shift",
        "time_embedding_type": "fourier", "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "sample_size ": None, "dropout": "many", "center_input_sample": "perhaps"},
    "vae/config.json": {
        "scaling_factor": 0, "latents_mean": [0.1] * 6, "shift_factor": 0.1, "in_channels": 4,
        "latent_channels": 4, "block_out_channels": [8, 16], "norm_num_groups": 5,
        "out_channels": 1, "up_block_types": ["UpDecoderBlock2D"], "invented": "x"},
    "text_encoder/config.json": {
        "hidden_size": 32, "vocab_size": 10, "max_position_embeddings": 8, "num_hidden_layers": 1,
        "num_attention_heads": 3, "intermediate_size": 8, "model_type": "bert",
        "hidden_act": "nothing"},
    "scheduler/scheduler_config.json": {
        "num_train_timesteps": 50, "prediction_type": "flow", "beta_schedule": "unknown",
        "trained_betas": [0.1, 0.2], "beta_start": "x", "beta_end": float("nan"),
        "thresholding": True},
    "model_index.json": {
        "_class_name": "FluxPipeline", "unet": ["diffusers", "UNet2DModel"],
        "vae": ["diffusers", "AutoencoderTiny"], "text_encoder": ["transformers", "T5EncoderModel"],
        "scheduler": ["diffusers", "EDMEulerScheduler"], "tokenizer": [None, None]},
}
"""Of which each alone makes another model of it, or none."""
HONOURED = {
    "unet/config.json": {"_name_or_path": "elsewhere", "_diffusers_version": "0.1"},
    "vae/config.json": {"scaling_factor": 0.5, "force_upcast": False, "sample_size": 512},
    "scheduler/scheduler_config.json": {"steps_offset": 1, "timestep_spacing": "trailing",
                                        "clip_sample": True, "prediction_type": "epsilon"},
    "model_index.json": {"safety_checker": [None, None], "_name_or_path": "elsewhere"},
    "tokenizer/tokenizer_config.json": {"model_max_length": 10**30},
}


def _diffusion(rng) -> Iterator[Case]:
    for what, edit, part in _weights_cases(rng):
        yield _case(f"{what} ({rng.randrange(1000)})", edit, False, part)
    for file, fields in CONFIGS.items():
        for field, value in fields.items():
            if value is None:
                continue
            says = {"max_position_embeddings": "tokens", "hidden_size": "text encoders"}.get(
                field, file.split("/")[0])
            yield _case(f"{file}: {field} = {value!r}", _json(file, **{field: value}), False,
                        (says, field))
        for text in ("", "{}", "[]", "null", "{", "\xff", "7", "[" * 100_000):
            yield _case(f"{file}: {text[:9]!r}", _bytes(file, lambda _, text=text: text.encode(
                "latin-1")), False, (file.split("/")[0], "model"))
        yield _case(f"{file}: gone", _gone(file), False, (file.split("/")[0], "model"))
    for file, fields in HONOURED.items():
        for field, value in fields.items():
            yield _case(f"{file}: {field} = {value!r}, honoured", _json(file, **{field: value}),
                        True)
    yield _case("plain", lambda model: None, True)
    for file in ("tokenizer", "text_encoder", "unet", "vae", "scheduler"):
        yield _case(f"no {file}", _gone(file), False, (file, "model"))
    for name in os.listdir(Path(_base().name, "model/tokenizer")):
        for what, change in (("empty", lambda data: b""), ("half", lambda data: data[
                : len(data) // 2]), ("[]", lambda data: b"[]")):
            if name in ("tokenizer.json", "vocab.json"):
                yield _case(f"tokenizer/{name} {what}", _bytes(f"tokenizer/{name}", change), False,
                            ("tokenizer", "model"))
    yield _case("pickled", lambda model: (model / f"{UNET}.safetensors").rename(
        model / f"{UNET}.bin"), False, "unet")
    for settings, says in (({"variant": "fp16"}, "fp16"), ({"scheduler": "Nothing"}, "Nothing"),
                           ({"scheduler": "EDMEulerScheduler"}, "EDMEuler"),
                           ({"scheduler": "FlowMatchEulerDiscreteScheduler"}, "FlowMatch"),
                           ({"scheduler": "AutoencoderKL"}, "AutoencoderKL"),
                           ({"device": "cuda:77"}, "cuda:77"), ({"device": "mps"}, "mps")):
        yield _case(f"settings {settings}", lambda model: None, False, says, **settings)


def _others(rng) -> Iterator[Case]:
    """Detectors and backbones, in a workspace that has all that is before them."""
    for name, section, key, made, weights in (
            ("detector", "detector", "model", "masks", "model"),
            ("backbone", "segmenter", "backbone", "segmenter", "model")):
        edits = {
            "cut": _bytes(f"{weights}.safetensors", lambda data: data[: len(data) // 2]),
            "empty": _bytes(f"{weights}.safetensors", lambda data: b""),
            "NaN": _weights(weights, lambda tensors: next(
                value for value in tensors.values() if value.is_floating_point() and value.ndim
            ).view(-1).__setitem__(0, float("nan"))),
            "a weight less": _weights(weights, lambda tensors: tensors.pop(sorted(
                name for name in tensors if "num_batches" not in name)[rng.randrange(9)])),
            "no weights": _gone(f"{weights}.safetensors"), "no config": _gone("config.json"),
        } | {f"config {text[:5]!r}": _bytes("config.json", lambda _, text=text: text.encode())
             for text in ("", "{}", "[]", "null", "7", "[" * 100_000)}
        for what, edit in edits.items():
            def prepare(folder: Path, edit=edit, name=name, section=section, key=key,
                        made=made) -> list[str]:
                edit(_copy(MICRO / name, folder / name))
                workspaces.lay(folder, f"{section}: {{{key}: {folder / name}}}\n")
                return workspaces.command(folder, made)

            yield Case("checkpoints", f"{name}: {what} ({rng.randrange(1000)})", False, prepare,
                       names=(name,), codes=(2,), ours=("root/data/yard/.locks/*",))


def _load(arguments) -> int:
    from ml.grounding.pipeline import GroundedDiffusionPipeline

    GroundedDiffusionPipeline.from_pretrained(arguments[0])
    return 0


def _saved(rng) -> Iterator[Case]:
    """A pipeline that was saved with its grounding module, loaded by a program."""
    edits: dict[str, Callable] = {}
    for file in ("pipeline.json", "grounding/config.json"):
        for text in ("", "{}", "[]", "null", '{"a": 1}', "[" * 100_000):
            edits[f"{file}: {text[:9]!r}"] = _bytes(file, lambda _, text=text: text.encode())
        edits[f"{file}: gone"] = _gone(file)
    for value in (None, 7, [], "nowhere", "../model2", "/"):
        edits[f"pipeline.json: diffusion = {value!r}"] = _json("pipeline.json", diffusion=value)
    for field, value in (("width", 0), ("width", "64"), ("heads", 3), ("layers", -1),
                         ("variant", "ours"), ("feature_channels", {}),
                         ("feature_channels", {"x": 1}),
                         ("evidence_timesteps", []), ("evidence_timesteps", 7), ("invented", 3),
                         ("text_width", 99), ("width", DROP), ("upsampling", 0)):
        edits[f"grounding/config.json: {field} = {'nothing' if value is DROP else value!r}"] = \
            _json("grounding/config.json", **{field: value})
    edits["grounding: cut"] = _bytes("grounding/model.safetensors", lambda data: data[:500])
    edits["grounding: a weight less"] = _weights(
        "grounding/model", lambda tensors: tensors.pop(sorted(tensors)[rng.randrange(20)]))
    edits["batch_size 0"] = _json("pipeline.json", batch_size=0)
    edits["batch_size as text"] = _json("pipeline.json", batch_size="many")
    edits["dtype"] = _json("pipeline.json", variant=7)
    for what, edit in edits.items():
        def prepare(folder: Path, edit=edit) -> list[str]:
            edit(_copy(Path(_base().name, "saved"), folder / "saved"))
            return [str(folder / "saved")]

        yield Case("checkpoints", f"saved, {what}", False, prepare, _load, names=("",))
