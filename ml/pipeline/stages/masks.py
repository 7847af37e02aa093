"""Stage `masks`: a detector looks for what each prompt named; one mask per picture and entity.

Reads: `images`. Writes: shards in the MASKS schema, contact_sheet.jpg. Settings: vocabulary,
detector. The detector has two roles: the `labeller` makes training labels and looks for seen
classes only; the `oracle` judges the sim set and looks for all classes. Not here: which masks are
good enough (`triplets`).
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ml.compute.workers import Workers
from ml.detectors import Detector, Instances, load_detector
from ml.images.boxes import mask_box
from ml.images.contact_sheet import contact_sheet, spread
from ml.images.png import decode_png
from ml.images.run_lengths import decode_rle, encode_rle
from ml.images.stored import load_pictures
from ml.pipeline.table import Output
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.making import write_shards
from ml.store.schemas import MASKS
from ml.store.shards import read_frame, read_rows, read_shards
from ml.store.sidecars import shard_files
from ml.words.spellings import canonical
from ml.words.vocabulary import Vocabulary, load_vocabulary

ROLES = {"train": "labeller", "sim": "oracle"}
"""Purpose of a picture -> who looks at it."""
SHEET_PICTURES = 24
_COLUMNS = ("key", "text", "entities", "words", "purpose", "cell")


def run(params: Params, workspace: Workspace, recipe: str) -> Output:
    """Writes one MASKS shard for each shard of `images`, and a contact sheet.

    Raises ValueError for a training picture that names an unseen class, a purpose without a role,
    or a seen class that the detector does not know.
    """
    vocabulary = load_vocabulary(params.vocabulary)
    images, folder = workspace.folder("images"), workspace.folder("masks")
    plan = [[path] for path in shard_files(images)]
    make = ShardMaker(params, workspace, vocabulary)
    rows = write_shards(
        folder, recipe, plan, make, MASKS, Workers(params.executor, params.diffusion.device)
    )
    masks = read_shards(folder, [name for name in MASKS.names if name != "rle"])
    _sheet(images, folder, masks)
    unknown = sorted(set(vocabulary.classes) - set(make.asked["oracle"]))
    return Output(rows=rows, facts=facts_of(masks, unknown) | {"unknown_to_oracle": unknown})


class ShardMaker:
    """Turns a shard of `images` into one of masks; loads the detector for the first one."""

    def __init__(self, params: Params, workspace: Workspace, vocabulary: Vocabulary):
        self.params, self.workspace, self.vocabulary = params, workspace, vocabulary

    @cached_property
    def detector(self) -> Detector:
        return open_detector(self.params, self.workspace)

    @cached_property
    def asked(self) -> dict[str, tuple[str, ...]]:
        return classes_by_role(self.vocabulary, self.detector)

    def __call__(self, group: Sequence[Path]) -> pd.DataFrame:
        return _shard(group, asked=self.asked, detector=self.detector, vocabulary=self.vocabulary)


def open_detector(params: Params, workspace: Workspace) -> Detector:
    """The detector of the settings, ready to use."""
    settings = params.detector
    return load_detector(
        settings.backend,
        workspace.detector(settings),
        weights=settings.weights and workspace.model(settings.weights),
        revision=settings.revision,
        score_threshold=settings.score_threshold,
        device=params.diffusion.device,
        batch_size=settings.batch_size,
    )


def classes_by_role(vocabulary: Vocabulary, detector: Detector) -> dict[str, tuple[str, ...]]:
    """The classes that each role is asked for, and no others.

    An unseen class that the detector does not know is left out of the oracle's, so that a user may
    name a class without annotations; it is then never found in the sim set. Raises ValueError for
    a seen class that it does not know.
    """
    detector.resolve(vocabulary.seen)
    known = tuple(name for name in vocabulary.classes if canonical(name) in detector.known)
    return {"labeller": vocabulary.seen, "oracle": known}


def _shard(
    group: Sequence[Path],
    *,
    asked: dict[str, tuple[str, ...]],
    detector: Detector,
    vocabulary: Vocabulary,
) -> pd.DataFrame:
    frame = read_frame(group[0], [*_COLUMNS, "image"])
    strange = sorted(set(frame.purpose) - set(ROLES))
    if strange:
        raise ValueError(
            f"{group[0]}: purposes {strange}, expected some of {sorted(ROLES)}: "
            "masks are looked for in pictures of these only"
        )
    refuse_unseen(frame[frame.purpose == "train"], vocabulary)
    pieces = []
    for purpose, role in ROLES.items():
        # A batch at a time: a shard's instances at 1024 pixels would be gigabytes of masks.
        rows, size = frame[frame.purpose == purpose], detector.batches.size
        for batch in (rows.iloc[start : start + size] for start in range(0, len(rows), size)):
            pictures = [decode_png(data) for data in batch.image]
            found = detector.detect(pictures, asked[role])
            pieces += [
                mask_rows(row, instances, role, picture.shape[:2])
                for row, instances, picture in zip(
                    batch.itertuples(index=False), found, pictures, strict=True
                )
            ]
    order = {key: i for i, key in enumerate(frame.key)}
    flat = [row for piece in pieces for row in piece]
    return pd.DataFrame(sorted(flat, key=lambda row: order[row["key"]]))  # stable: entities stay


def refuse_unseen(train: pd.DataFrame, vocabulary: Vocabulary) -> None:
    """Raises ValueError if a training picture names a class that is not seen."""
    for key, entities in zip(train.key, train.entities, strict=True):
        if wrong := sorted(set(entities) - set(vocabulary.seen)):
            raise ValueError(
                f"training picture {key} names {wrong}, which vocabulary "
                f"{vocabulary.name!r} does not list as seen: a label of it would leak "
                "what the method must not know. Make `prompts` again"
            )


def mask_rows(
    prompt: Any, found: Instances, role: str, size: tuple[int, int]
) -> list[dict[str, Any]]:
    """One row of MASKS for each entity of a prompt; all instances of a class make one mask.

    prompt: a row of `images` with key, entities, words, purpose, cell. size: (H,W) of the picture.
    The box is the merged mask's, far edges exclusive. Raises ValueError for a mask of another size.
    """
    rows = []
    for entity, word in zip(prompt.entities, prompt.words, strict=True):
        mask, score, count = found.merged(entity)
        row = {
            "key": prompt.key,
            "entity": entity,
            "word": word,
            "purpose": prompt.purpose,
            "cell": prompt.cell,
            "role": role,
            "found": mask is not None,
            "score": score,
            "instances": count,
            "area": 0.0,
            "x0": 0.0,
            "y0": 0.0,
            "x1": 0.0,
            "y1": 0.0,
            "rle": "",
        }
        if mask is not None:
            if mask.shape != tuple(size):
                raise ValueError(
                    f"{prompt.key}: mask of {mask.shape} for a picture of {size}; the "
                    "detector must answer in the picture's own pixels"
                )
            box = zip(("x0", "y0", "x1", "y1"), map(float, mask_box(mask)), strict=True)
            row |= {"area": float(mask.mean()), **dict(box), "rle": encode_rle(mask)}
        rows.append(row)
    return rows


def facts_of(masks: pd.DataFrame, unknown: Sequence[str] = ()) -> dict[str, Any]:
    """Found shares (0..1) by role and class, mean score of what was found (0 where nothing).

    unknown: classes that the detector cannot look for; they are in `rows` and `pictures` alone,
    since a share of them would blame the detector or the pictures.
    """
    by_role = dict(iter(masks[~masks.entity.isin(unknown)].groupby("role")))
    return {
        "rows": len(masks),
        "pictures": int(masks.key.nunique()),
        "roles": {role: _summary(part) for role, part in by_role.items()},
        "classes": {
            role: {name: _summary(rows) for name, rows in part.groupby("entity")}
            for role, part in by_role.items()
        },
    }


def _summary(part: pd.DataFrame) -> dict[str, float]:
    hits = part[part.found]
    return {
        "rows": len(part),
        "found": float(part.found.mean()),
        "mean_score": float(hits.score.mean()) if len(hits) else 0.0,
        "mean_area": float(hits.area.mean()) if len(hits) else 0.0,
        "mean_instances": float(hits.instances.mean()) if len(hits) else 0.0,
    }


def _sheet(images: Path, folder: Path, masks: pd.DataFrame) -> None:
    keys = list(masks.key.unique())
    shown = [keys[i] for i in spread(len(keys), SHEET_PICTURES)]
    pictures = load_pictures(images, shown)
    rles = read_rows(folder, ["key", "entity", "rle"], shown)
    over, captions = [], []
    for key in shown:
        rows = masks[masks.key == key].merge(rles, on=["key", "entity"])
        size = pictures[key].shape[:2]
        over.append(
            np.array(
                [
                    decode_rle(row.rle) if row.found else np.zeros(size, bool)
                    for row in rows.itertuples()
                ]
            )
        )
        captions.append(
            ", ".join(
                f"{row.word} {row.score:.2f}" if row.found else f"no {row.word}"
                for row in rows.itertuples()
            )
        )
    if shown:
        contact_sheet(
            [pictures[key] for key in shown], over, captions, folder / "contact_sheet.jpg"
        )
