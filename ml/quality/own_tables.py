"""What the checks judge of a user's own pictures with masks (`triplets.labels`)."""

from typing import Any

import numpy as np
import pandas as pd

from ml.images.leaks import find_overlap, small
from ml.images.png import decode_png
from ml.images.run_lengths import decode_rle
from ml.pipeline.labelled import benchmark_thumbs
from ml.pipeline.workspace import Workspace
from ml.quality.frames import Tables, one_row
from ml.settings.params import Params
from ml.store.shards import iter_shards, read_shards
from ml.store.sidecars import OWN
from ml.words.spans import named_in
from ml.words.vocabulary import load_vocabulary

NONE: dict[str, Any] = {
    "key": "(no pictures of your own)",
    "reason": "",
    "no_reason": True,
    "accepted": True,
    "only_taught": True,
    "as_pictured": True,
    "fits": True,
    "area_true": True,
    "named_in_text": True,
    "generated_key": False,
    "has_rle": True,
    "in_benchmark": False,
}
"""The row of a table without any: such a table would fail its rules."""


def own_tables(params: Params, workspace: Workspace, every: pd.DataFrame) -> Tables:
    """The table `own`, a row a picture and class, and `own accepted`. every: rows of TRIPLETS.

    New columns: only_taught (the class may teach), as_pictured (text and facts are the picture's),
    fits (the mask is as large as the picture), area_true, named_in_text, generated_key (the key is
    that of a generated picture), in_benchmark (compared here again), no_reason, has_rle.
    """
    own, filters = every[every["subset"] == OWN].reset_index(drop=True), params.triplets
    none = one_row(**NONE | {"area": filters.min_area, "std": filters.min_std})
    if not len(own):
        return {"own": none, "own accepted": none}
    vocabulary, pictures = load_vocabulary(params.vocabulary), _pictures(params, workspace)
    shown = [pictures.get(key, ((), (), False)) for key in own["key"]]
    masks = [_mask(rle) for rle in own["rle"]]
    facts = list(zip(own["text"], own["std"], own["dhash"], strict=True))
    areas = np.array([mask.mean() if mask.size else 0.0 for mask in masks])
    own["only_taught"] = own["entity"].isin(vocabulary.taught)
    own["as_pictured"] = [
        row == own_facts for row, (own_facts, _, _) in zip(facts, shown, strict=True)
    ]
    own["has_rle"] = own["rle"].str.len() > 0
    own["fits"] = [
        mask.shape == size or not rle
        for mask, rle, (_, size, _) in zip(masks, own["rle"], shown, strict=True)
    ]
    own["area_true"] = np.abs(areas - own["area"]) < 1e-6
    own["in_benchmark"] = [near for _, _, near in shown]
    own["generated_key"] = own["key"].isin(read_shards(workspace.folder("images"), ["key"])["key"])
    own["no_reason"] = own["reason"] == ""
    own["named_in_text"] = [
        named_in(text, [word])[0] for word, text in zip(own["word"], own["text"], strict=True)
    ]
    accepted = own[own["accepted"]]
    return {"own": own, "own accepted": accepted if len(accepted) else none}


def _pictures(
    params: Params, workspace: Workspace
) -> dict[str, tuple[tuple[str, float, str], tuple[int, ...], bool]]:
    """Key -> (text and facts, (H,W), whether it is nearly one of the benchmark's)."""
    benchmark = benchmark_thumbs(params, workspace)
    found = {}
    columns = ["key", "text", "std", "dhash", "image"]
    for shard in iter_shards(workspace.folder("triplets") / OWN, columns):
        images = [decode_png(data) for data in shard["image"]]
        near = set(find_overlap(map(small, images), benchmark))
        for place, (row, image) in enumerate(zip(shard.itertuples(), images, strict=True)):
            found[row.key] = ((row.text, row.std, row.dhash), image.shape[:2], place in near)
    return found


def _mask(rle: str) -> np.ndarray:
    """bool (H,W); (0,0) for what is no mask: the rule on `fits` says so of its row."""
    try:
        return decode_rle(rle) if rle else np.zeros((0, 0), bool)
    except ValueError:
        return np.zeros((0, 0), bool)
