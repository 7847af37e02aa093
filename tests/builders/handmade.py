"""Stage folders made by hand from drawn scenes, with real shards and real manifests.

They stand in for what the diffusion model and the trainings write, so that checks, graph, registry
and DVC are tested in seconds. `write_stage` gives a folder the manifest that `run_stage` would, so
the stage counts as done. A test poisons a set by passing `change`, a function on its rows.
"""

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ml.drawn_world.world import CLASSES, Scene, draw_scene
from ml.images.contact_sheet import contact_sheet
from ml.images.facts import picture_facts
from ml.images.png import decode_png, encode_png
from ml.images.run_lengths import encode_rle
from ml.pipeline.recipe import recipe_of
from ml.pipeline.runner import run_stage
from ml.pipeline.table import STAGE
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.settings.profile import load_params
from ml.store.files import sha256_json, write_json
from ml.store.folder_digest import sha256_folder
from ml.store.making import write_shards
from ml.store.manifest import Manifest, describe_files, read_manifest, write_manifest
from ml.store.schemas import IMAGES, MASKS, PROMPTS, SYNTHETIC, TRIPLETS
from ml.store.shards import read_shards, split
from ml.words.vocabulary import load_vocabulary

Change = Callable[[pd.DataFrame], pd.DataFrame]


def same(rows: pd.DataFrame) -> pd.DataFrame:
    return rows


def params_of(workspace: Workspace) -> Params:
    """The ci profile's settings under the workspace's own profile name."""
    return dataclasses.replace(load_params("ci"), profile=workspace.profile)


def write_stage(
    name: str, workspace: Workspace, facts: dict, frame: pd.DataFrame | None = None, schema=None
) -> None:
    """Finishes a stage's folder: shards of 32 rows if there are rows, metrics, manifest."""
    folder, rows = workspace.folder(name), {}
    for path in folder.glob("*shard-*"):
        path.unlink()
    for path in folder.glob(".shard-*"):
        path.unlink()
    if frame is not None:
        plan = split(range(len(frame)), 32)
        rows = write_shards(folder, "by hand", plan, lambda part: frame.iloc[list(part)], schema)
    folder.mkdir(parents=True, exist_ok=True)
    if name in ("benchmark_scores", "grounding_scores"):
        write_scores(name, folder)
    write_json(folder / "metrics.json", facts)
    recipe = recipe_of(STAGE[name], params_of(workspace), workspace)
    write_manifest(folder, Manifest(**recipe, files=describe_files(folder, rows), facts=facts))
    write_json(workspace.state(name) / "timing.json", {"seconds": 1.0, "peak_rss_mb": 100.0})


def write_scores(stage: str, folder: Path, right: int = 995) -> None:
    """Rows that a gate can read, of ten pictures, good enough for any floor. right: pixels of a
    class that the segmenter found, of a thousand."""
    keys = [f"picture-{i}" for i in range(10)]
    if stage == "grounding_scores":
        frame = pd.DataFrame({"key": keys, "cell": "one_seen", "entity": "dog", "iou_ours": 0.8})
    else:
        counts = np.full((21, 21), 5, np.int64) + right * np.eye(21, dtype=np.int64)
        frame = pd.DataFrame(
            {"key": keys, "model": "synthetic", "confusion": [counts.ravel()] * 10}
        )
    frame.to_parquet(folder / "scores.parquet", index=False)


def foundation(root: Path) -> None:
    """Foundation models in name only; a test that loads one writes it before."""
    micro = root / "data" / "foundation" / "micro"
    for file, content in {
        "diffusion/unet/config.json": {"sample_size": 16},
        "diffusion/vae/config.json": {"block_out_channels": [8, 8, 16]},
        "detector/config.json": {},
        "backbone/config.json": {},
    }.items():
        if not (micro / file).is_file():
            write_json(micro / file, content)


def write_bare(workspace: Workspace, stage: str) -> None:
    """A finished folder without rows, for tests that only need the manifest of an input."""
    write_stage(stage, workspace, {"rows": 0})


def light_stages(root: Path, profile: str = "ci") -> Workspace:
    """The stages that need no model, run for real."""
    foundation(root)
    workspace = Workspace(root, profile)
    for name in ("prompts", "benchmark"):
        run_stage(name, params_of(workspace), root)
    return workspace


def poison_prompts(workspace: Workspace, change: Change) -> None:
    rows = read_shards(workspace.folder("prompts"), PROMPTS.names)
    write_stage("prompts", workspace, {"prompts": len(rows)}, change(rows), PROMPTS)


def heat_of(scene: Scene, entities: Sequence[str]) -> np.ndarray:
    """float16 (n,16,16): the share of each thing's mask in each cell, as an exact heat map."""
    masks = [scene.masks[scene.classes.index(entity)] for entity in entities]
    return np.array([m.reshape(16, 4, 16, 4).mean((1, 3)) for m in masks], "<f2")


def write_images(workspace: Workspace, change: Change = same) -> None:
    """A drawn scene for every train and sim prompt."""
    prompts = read_shards(workspace.folder("prompts"), PROMPTS.names)
    prompts = prompts[prompts["purpose"] != "synthetic"]
    rows = []
    for row in prompts.to_dict("records"):
        scene = draw_scene(row["seed"], classes=list(row["entities"]))
        image, heat = scene.image, heat_of(scene, row["entities"])
        rows.append(
            row
            | picture_facts(image)
            | {
                "image": encode_png(image),
                "latent": np.linspace(-1, 1, 6 * 16 * 16, dtype="<f4").tobytes(),
                "latent_shape": [6, 16, 16],
                "timestep": 1,
                "daam": heat.tobytes(),
                "daam_shape": list(heat.shape),
            }
        )
    frame = change(pd.DataFrame(rows)).reset_index(drop=True)
    shown = [decode_png(data) for data in frame["image"][:8]]
    workspace.folder("images").mkdir(parents=True, exist_ok=True)
    contact_sheet(
        shown,
        [None] * len(shown),
        list(frame["text"][:8]),
        workspace.folder("images") / "contact_sheet.jpg",
    )
    write_stage("images", workspace, {"pictures": len(frame)}, frame, IMAGES)


def write_masks(workspace: Workspace, change: Change = same) -> None:
    """The scenes' own masks as a perfect detector would give them."""
    columns = ["key", "entities", "words", "purpose", "cell", "seed"]
    rows = []
    for row in read_shards(workspace.folder("images"), columns).itertuples():
        scene = draw_scene(row.seed, classes=list(row.entities))
        for entity, word in zip(row.entities, row.words, strict=True):
            mask = scene.masks[scene.classes.index(entity)]
            rows.append(
                {
                    "key": row.key,
                    "entity": entity,
                    "word": word,
                    "purpose": row.purpose,
                    "cell": row.cell,
                    "role": "labeller" if row.purpose == "train" else "oracle",
                    "found": True,
                    "score": 0.95,
                    "instances": 1,
                    "area": float(mask.mean()),
                    "x0": 1.0,
                    "y0": 1.0,
                    "x1": 9.0,
                    "y1": 9.0,
                    "rle": encode_rle(mask),
                }
            )
    frame = change(pd.DataFrame(rows)).reset_index(drop=True)
    write_stage("masks", workspace, {"found": int(frame["found"].sum())}, frame, MASKS)


def write_triplets(workspace: Workspace, change: Change = same) -> None:
    """Every mask accepted; one training picture in eight is for validation."""
    images = read_shards(
        workspace.folder("images"), ["key", "text", "words", "phrases", "std", "dhash"]
    ).set_index("key")
    rows = []
    for row in read_shards(workspace.folder("masks")).itertuples():
        picture = images.loc[row.key]
        phrase = dict(zip(picture["words"], picture["phrases"], strict=True))[row.word]
        subset = (
            "sim"
            if row.purpose == "sim"
            else ("validation" if int(row.key[-6:]) % 8 == 0 else "train")
        )
        rows.append(
            {
                "key": row.key,
                "text": picture["text"],
                "entity": row.entity,
                "word": row.word,
                "phrase": phrase,
                "purpose": row.purpose,
                "cell": row.cell,
                "subset": subset,
                "accepted": True,
                "reason": "",
                "score": row.score,
                "area": row.area,
                "std": picture["std"],
                "dhash": picture["dhash"],
                "rle": row.rle,
            }
        )
    frame = change(pd.DataFrame(rows)).reset_index(drop=True)
    write_stage("triplets", workspace, {"accepted": int(frame["accepted"].sum())}, frame, TRIPLETS)


def write_synthetic(workspace: Workspace, change: Change = same) -> None:
    """A drawn scene with its true label map for every synthetic prompt."""
    vocabulary = load_vocabulary(params_of(workspace).vocabulary)
    table = np.array([0] + [vocabulary.label(name) for name in CLASSES], np.uint8)
    prompts = read_shards(workspace.folder("prompts"), PROMPTS.names)
    rows = []
    for row in prompts[prompts["purpose"] == "synthetic"].to_dict("records"):
        scene = draw_scene(row["seed"], classes=list(row["entities"]))
        label = table[scene.label_map()]
        areas = [float((label == vocabulary.label(e)).mean()) for e in row["entities"]]
        rows.append(
            row
            | picture_facts(scene.image)
            | {
                "image": encode_png(scene.image),
                "label": encode_png(label),
                "rles": [encode_rle(label == vocabulary.label(e)) for e in row["entities"]],
                "areas": areas,
                "ignored": 0.0,
                "accepted": True,
                "reason": "",
                "benchmark_overlap": False,
            }
        )
    frame = change(pd.DataFrame(rows)).reset_index(drop=True)
    write_stage("synthetic_dataset", workspace, {"accepted": len(frame)}, frame, SYNTHETIC)


def write_curve(workspace: Workspace, stage: str) -> None:
    folder = workspace.folder(stage)
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["step,loss,val_miou"] + [f"{i},{2 / (i + 1):.4f}," for i in range(20)]
    (folder / "curve.csv").write_text("\n".join(lines) + "\n")


def write_weights(workspace: Workspace, stage: str) -> None:
    """A file of the right name; tests that load a model write a real one."""
    path = workspace.folder(stage) / "model" / "model.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"no weights")


def write_model(workspace: Workspace, stage: str) -> None:
    write_curve(workspace, stage)
    if not list(workspace.folder(stage).rglob("*.safetensors")):
        write_weights(workspace, stage)
    write_stage(stage, workspace, {"steps": 20, "val_miou": 50.0})


def grounding_facts(score: float = 80.0) -> dict:
    cells = ("one_seen", "one_unseen", "two_seen", "two_mixed", "two_unseen")
    return {
        "ours": {cell: score - i for i, cell in enumerate(cells)},
        "daam": {cell: 40.0 - i for i, cell in enumerate(cells)},
        "daam_threshold": 0.4,
    }


def segmenter_facts(score: float = 60.0) -> dict:
    def one(value: float) -> dict:
        return {
            "seen": value,
            "unseen": value - 4,
            "harmonic": value - 2,
            "background": 90.0,
            "per_class": {name: value for name in CLASSES},
        }

    return {"synthetic": one(score), "real_upper_bound": one(85.0)}


def write_verdict(workspace: Workspace, promote: bool = True) -> None:
    """The verdict on both models, and the record of the champions, as the stage leaves them."""
    verdict = {}
    for name, stage in (("grounding", "grounding_model"), ("segmenter", "segmenter")):
        digest = read_manifest(workspace.folder(stage)).digest
        folder = workspace.data / "champion" / name
        before = folder / "record.json"
        beaten = json.loads(before.read_text()) if before.is_file() else None
        if promote:
            write_json(folder / "record.json", {"model": name, "digest": digest, "score": 60.0})
            (folder / "scores.parquet").write_bytes(digest.encode())
        record = folder / "record.json"
        holder = json.loads(record.read_text())["digest"] if record.is_file() else None
        verdict[name] = {
            "promote": promote,
            "champion": beaten,
            "digest_after": holder,
            "reason": "no champion yet" if promote else "too low",
        }
    workspace.folder("promotion").mkdir(parents=True, exist_ok=True)
    write_json(workspace.folder("promotion") / "verdict.json", verdict)
    write_stage("promotion", workspace, verdict)


def data_stages(root: Path, profile: str = "ci") -> Workspace:
    """Everything up to triplets."""
    return _copied(_data_stages, root, profile)


def all_stages(
    root: Path, profile: str = "ci", weights: Callable[[Workspace, str], None] = write_weights
) -> Workspace:
    """The whole graph as if it had run."""
    if weights is not write_weights:
        return _all_stages(root, profile, weights)
    workspace = _copied(_all_stages, root, profile)
    write_stage("report", workspace, {"bytes": 13})  # whose recipe has the profile's name
    return workspace


TEMPLATE = "template"
TEMPLATES: dict[str, tempfile.TemporaryDirectory] = {}
"""What this process made before, by builder and settings: nine seconds the whole graph."""


def _copied(build: Callable[[Path, str], Workspace], root: Path, profile: str) -> Workspace:
    """A copy of what `build` makes; built in the root itself where that has models of its own, or
    anything of the profile."""
    own = dataclasses.asdict(params_of(Workspace(root, TEMPLATE)))
    key = sha256_json([build.__name__, own])
    if key not in TEMPLATES:
        TEMPLATES[key] = tempfile.TemporaryDirectory()
        build(Path(TEMPLATES[key].name), TEMPLATE)
    made, data = Path(TEMPLATES[key].name) / "data", root / "data"
    models = data / "foundation"
    if (data / profile).exists() or (
        models.exists() and sha256_folder(models) != sha256_folder(made / "foundation")
    ):
        return build(root, profile)
    shutil.copytree(made / "foundation", models, dirs_exist_ok=True)
    shutil.copytree(made / TEMPLATE, data / profile)
    return Workspace(root, profile)


def _data_stages(root: Path, profile: str) -> Workspace:
    workspace = light_stages(root, profile)
    write_images(workspace)
    write_masks(workspace)
    write_triplets(workspace)
    return workspace


def _all_stages(
    root: Path, profile: str, weights: Callable[[Workspace, str], None] = write_weights
) -> Workspace:
    workspace = _data_stages(root, profile)
    weights(workspace, "grounding_model")
    write_model(workspace, "grounding_model")
    write_stage("grounding_scores", workspace, grounding_facts())
    write_synthetic(workspace)
    for name in ("segmenter", "real_bound"):
        weights(workspace, name)
        write_model(workspace, name)
    write_stage("benchmark_scores", workspace, segmenter_facts())
    write_verdict(workspace)
    workspace.folder("report").mkdir(parents=True, exist_ok=True)
    (workspace.folder("report") / "report.html").write_text("<p>report</p>")
    write_stage("report", workspace, {"bytes": 13})
    return workspace
