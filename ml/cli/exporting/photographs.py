"""A folder of photographs, labelled by a profile's grounding module or its segmenter."""

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ml.cli.exporting.knowledge import (
    BY_A_MODEL,
    detector_facts,
    detector_of,
    drawing_facts,
    licences,
    vocabulary_of,
)
from ml.cli.exporting.labellers import LABELLERS, Label
from ml.datasets.listing import PHOTO_SUFFIXES, list_files
from ml.exports.about import About, Licence
from ml.exports.pictures import LABELLED
from ml.images.facts import difference_hash, pixel_digest
from ml.images.photographs import load_photo
from ml.images.png import encode_png
from ml.pipeline.finished import manifest_of
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.files import sha256_json
from ml.store.folder_digest import sha256_folder
from ml.store.making import write_shards
from ml.store.manifest import Manifest, read_manifest
from ml.store.shards import split
from ml.words.vocabulary import Vocabulary

GROUP = 16
"""Photographs whose bytes are in memory at once."""


@dataclass(frozen=True)
class Photographs:
    """What is to be labelled, and by what."""

    files: dict[str, Path]  # by key
    about: About
    labeller: Callable[[], Label]  # loads the model

    def label(self, folder: Path) -> None:
        """Writes shards in `LABELLED`; those that are there already are kept."""
        labeller = functools.cache(self.labeller)  # loaded for the first that lacks a label map

        def rows(keys: Sequence[str]) -> pd.DataFrame:
            photos = [load_photo(self.files[key], self.files[key].name) for key in keys]
            maps = labeller()([pixels for _, pixels in photos])
            return pd.DataFrame(map(self._row, keys, photos, maps))

        plan = split(list(self.files), GROUP)
        write_shards(folder, self.about.digest, plan, rows, LABELLED)

    def _row(self, key: str, photo: tuple[bytes, np.ndarray], found: np.ndarray) -> dict[str, Any]:
        data, pixels = photo
        return {
            "key": key,
            "file": self.files[key].name,
            "image": data,
            "label": encode_png(found),
            "accepted": True,
            "width": pixels.shape[1],
            "height": pixels.shape[0],
            "dhash": difference_hash(pixels),
            "sha256": pixel_digest(pixels),
        }


def photographs(
    folder: Path, params: Params, workspace: Workspace, by: str, min_presence: float
) -> Photographs:
    """What there is to do. by: a key of LABELLERS. Raises ValueError for a folder without
    photographs, or with anything else in it; ManifestError where the model is not there."""
    if not folder.is_dir():
        raise ValueError(f"--pictures: no folder {folder}; expected one of photographs")
    found, _ = list_files(folder, PHOTO_SUFFIXES)
    if not found:
        raise ValueError(f"no picture in {folder}: expected files {', '.join(PHOTO_SUFFIXES)}")
    model = read_manifest(workspace.folder(LABELLERS[by].stage))
    drawing = manifest_of(workspace, "grounding_model") if by == "segmenter" else model
    vocabulary = vocabulary_of(params, model)
    made = {
        "photographs": sha256_folder(folder),
        "model": model.digest,
        "min_presence": min_presence if by == "grounding" else None,
        "ignore_band": params.section("synthetic.ignore_band") if by == "grounding" else None,
    }
    return Photographs(
        dict(zip(keys_of(list(found)), found.values(), strict=True)),
        _about(made, by, model, drawing, vocabulary, params, workspace),
        lambda: LABELLERS[by].load(params, workspace, vocabulary, min_presence),
    )


def keys_of(stems: Sequence[str]) -> list[str]:
    """Names that every format takes: letters, digits, - and _; each once, capitals or not."""
    keys: dict[str, str] = {}
    for stem in stems:
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:80] or "picture"
        number, key = 1, name
        while key.lower() in keys:
            number, key = number + 1, f"{name}-{number + 1}"
        keys[key.lower()] = key
    return list(keys.values())


def _about(
    made: dict[str, Any],
    by: str,
    model: Manifest,
    drawing: Manifest | None,
    vocabulary: Vocabulary,
    params: Params,
    workspace: Workspace,
) -> About:
    used = [detector_of(workspace, params)["model"]]
    facts = [("profile", params.profile), ("photographs", made["photographs"])]
    if drawing is not None:
        used.insert(0, drawing.params["diffusion"]["model"])
        facts += drawing_facts(drawing)[:1]
    if by == "segmenter":
        used.insert(0, model.params["segmenter"]["backbone"])
        facts += [
            ("labelled by", f"segmenter {model.digest}"),
            ("its backbone", model.params["segmenter"]["backbone"]),
            ("it learned from", "the profile's synthetic set alone"),
        ]
    else:
        facts += [
            ("labelled by", f"grounding module {model.digest}"),
            ("words below this presence are taken to be absent", f"{made['min_presence']:g}"),
            ("words asked for at once", "those present; the surest, as many as a prompt takes"),
            ("uncertain (255)", f"winner or word within {made['ignore_band']}"),
        ]
    facts += detector_facts(workspace, params, vocabulary)
    return About(
        name=f"{params.profile}: photographs labelled by its {by}",
        digest=sha256_json(made),
        intro=f"Photographs with label maps by the {by} of the profile {params.profile}.",
        classes=vocabulary.classes,
        origin={"file": "file"},
        facts=tuple(facts),
        faults=(BY_A_MODEL, "No checks judge these labels, and no one has looked at them."),
        licences=(Licence("the photographs", "their owners' terms"), *licences(used)),
    )
