"""Workspaces of any size with real shards and manifests, for `benchmarks.scale`.

Each has as many pictures in `images` (nine tenths for training, a tenth for judging) as in
`synthetic_dataset`: 32x32 pixels, no two alike but for planted copies, with the facts, masks and
label maps that belong to them. Made a shard at a time, and kept: a second run finds them finished.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image

from ml.images.facts import picture_facts
from ml.images.png import encode_png
from ml.images.run_lengths import encode_rle
from ml.pipeline.recipe import recipe_of
from ml.pipeline.runner import run_stage
from ml.pipeline.table import STAGE
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.settings.profile import load_params
from ml.store.files import write_json
from ml.store.making import write_shards
from ml.store.manifest import Manifest, describe_files, write_manifest
from ml.store.schemas import IMAGES, MASKS, SYNTHETIC
from ml.store.sidecars import shard_files
from ml.words.vocabulary import load_vocabulary

SIDE = 32
EXACT, NEAR = 100, 101
"""Every so manieth picture is an exact, or a noisy, copy of an earlier one."""


def params_of(count: int) -> Params:
    """The ci profile's, for so many pictures of each set."""
    params = load_params("ci")
    half, fifth = 9 * count // 20, count // 50
    return replace(
        params,
        shards=replace(params.shards, size=100),
        prompts=replace(
            params.prompts,
            train_one=half,
            train_two=half,
            sim_per_cell=fifth,
            synthetic_one=count // 2,
            synthetic_two=count // 2,
        ),
    )


def make(root: Path, count: int) -> tuple[Params, Workspace]:
    """The settings and the finished workspace, made where it is not there yet."""
    params = params_of(count)
    workspace = Workspace(root, params.profile)
    model = Path(root) / "data" / "foundation" / "micro"
    for file, content in {
        "diffusion/unet/config.json": {"sample_size": SIDE // 4},
        "diffusion/vae/config.json": {"block_out_channels": [8, 8, 16]},
        "detector/config.json": {},
    }.items():
        write_json(model / file, content)
    for name in ("prompts", "benchmark"):
        run_stage(name, params, root)
    prompts = shard_files(workspace.folder("prompts"))
    purposes = {path: pd.read_parquet(path, columns=["purpose"]).purpose[0] for path in prompts}
    own = [path for path in prompts if purposes[path] != "synthetic"]
    _write("images", own, _images, IMAGES, params, workspace)
    _write("masks", shard_files(workspace.folder("images")), _masks, MASKS, params, workspace)
    run_stage("triplets", params, root)
    write_json(workspace.folder("grounding_model") / "metrics.json", {})
    _finish("grounding_model", {}, params, workspace)
    drawn = [path for path in prompts if purposes[path] == "synthetic"]
    _write("synthetic_dataset", drawn, _synthetic, SYNTHETIC, params, workspace)
    return params, workspace


def _write(
    name: str, sources: Sequence[Path], rows: Any, schema: pa.Schema, params: Params, workspace: Any
) -> None:
    """A stage's folder, a shard for each shard of its source."""
    folder = workspace.folder(name)
    if (folder / "manifest.json").is_file():
        return
    plan = [[path] for path in sources]
    written = write_shards(
        folder, "benchmark", plan, lambda group: pd.DataFrame(rows(group[0])), schema
    )
    _finish(name, written, params, workspace)


def _finish(name: str, written: dict[str, int], params: Params, workspace: Workspace) -> None:
    folder = workspace.folder(name)
    recipe = recipe_of(STAGE[name], params, workspace)
    write_manifest(folder, Manifest(**recipe, files=describe_files(folder, written), facts={}))


def picture(seed: int) -> np.ndarray:
    """uint8 (32,32,3): a few blobs of colour, another for each seed, or a planted copy."""
    if seed > EXACT and seed % EXACT == 0:
        return picture(seed - 1)
    rng = np.random.default_rng(seed)
    if seed > NEAR and seed % NEAR == 0:
        copy = picture(seed - 1) + rng.integers(-2, 3, (SIDE, SIDE, 3))
        return np.clip(copy, 0, 255).astype(np.uint8)
    blobs = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    return np.asarray(blobs.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def mask_of(seed: int, place: int) -> np.ndarray:
    """bool (32,32): a rectangle in the left or the right half."""
    rng = np.random.default_rng([seed, place])
    top, left = rng.integers(0, 8), 16 * place + rng.integers(0, 3)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top : top + rng.integers(10, 20), left : left + rng.integers(6, 12)] = True
    return mask


def _number(key: str) -> int:
    purpose, _, number = key.partition("-")
    return int(number) + {"train": 0, "sim": 10**7, "synthetic": 2 * 10**7}[purpose]


def _images(source: Path) -> list[dict[str, Any]]:
    rows = []
    for row in pd.read_parquet(source).to_dict("records"):
        image, rng = picture(_number(row["key"])), np.random.default_rng(row["seed"])
        heat = np.stack(
            [mask_of(_number(row["key"]), p)[::4, ::4] for p in range(len(row["words"]))]
        )
        heat = heat + rng.random(heat.shape) / 2
        rows.append(
            row
            | picture_facts(image)
            | {
                "image": encode_png(image),
                "latent": rng.standard_normal((4, 4, 4), np.float32).tobytes(),
                "latent_shape": [4, 4, 4],
                "timestep": 20,
                "daam": heat.astype("<f2").tobytes(),
                "daam_shape": list(heat.shape),
            }
        )
    return rows


def _masks(source: Path) -> list[dict[str, Any]]:
    rows = []
    columns = ["key", "entities", "words", "purpose", "cell"]
    for row in pd.read_parquet(source, columns=columns).itertuples():
        for place, (entity, word) in enumerate(zip(row.entities, row.words, strict=True)):
            number = _number(row.key)
            mask, found = mask_of(number, place), number % 20 != 7
            y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            rows.append(
                {name: getattr(row, name) for name in ("key", "purpose", "cell")}
                | {"entity": entity, "word": word, "found": found, "instances": int(found)}
                | {"role": "labeller" if row.purpose == "train" else "oracle"}
                | {"score": 0.9 * found, "area": float(mask.mean()) * found}
                | {"x0": float(x[0]), "y0": float(y[0]), "x1": x[-1] + 1.0, "y1": y[-1] + 1.0}
                | {"rle": encode_rle(mask) if found else ""}
            )
    return rows


def _synthetic(source: Path) -> list[dict[str, Any]]:
    vocabulary, rows = load_vocabulary("voc-1"), []
    for row in pd.read_parquet(source).to_dict("records"):
        number = _number(row["key"])
        image, label = picture(number), np.zeros((SIDE, SIDE), np.uint8)
        masks = [mask_of(number, place) for place in range(len(row["entities"]))]
        for entity, mask in zip(row["entities"], masks, strict=True):
            label[mask] = vocabulary.label(entity)
        accepted = number % 20 != 7
        rows.append(
            row
            | picture_facts(image)
            | {
                "image": encode_png(image),
                "label": encode_png(label),
                "rles": [encode_rle(mask) for mask in masks],
                "areas": [float(mask.mean()) for mask in masks],
                "ignored": 0.0,
                "accepted": accepted,
                "reason": "" if accepted else "too uncertain",
                "benchmark_overlap": False,
            }
        )
    return rows
