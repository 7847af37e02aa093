"""What the checks judge of prompts and images.

Settings that a rule depends on are turned into columns here ("expected", "share_of_even"), so that
the rules stay literal. No picture is decoded here; latents and heat maps are read as numbers.
"""

from typing import Any

import numpy as np
import pandas as pd

from ml.pipeline.picture_size import picture_side
from ml.pipeline.workspace import Workspace
from ml.quality.captions import caption_fault
from ml.quality.frames import Tables, as_in, balance, entities_of, facts, near_duplicates, one_row
from ml.quality.heat import read_heat
from ml.settings.params import Params
from ml.store.schemas import IMAGES, PROMPTS
from ml.store.shards import iter_shards
from ml.words.vocabulary import load_vocabulary


def prompt_tables(params: Params, workspace: Workspace) -> Tables:
    rows, vocabulary = facts(workspace, "prompts", PROMPTS), load_vocabulary(params.vocabulary)
    rows["caption_fault"] = [caption_fault(text) for text in rows["text"]]
    entities, asked = entities_of(rows, vocabulary), params.prompts
    train = entities[entities["purpose"] == "train"]
    cells = rows[rows["purpose"] == "sim"]["cell"].value_counts()
    expected = {
        ("train", asked.train_one + asked.train_two),
        ("synthetic", asked.synthetic_one + asked.synthetic_two),
    }
    counts = [
        {"set": name, "count": int((rows["purpose"] == name).sum()), "expected": number}
        for name, number in sorted(expected)
    ]
    counts += [
        {"set": f"sim {cell}", "count": int(number), "expected": asked.sim_per_cell}
        for cell, number in cells.items()
    ]
    return {
        "rows": rows,
        "entities": entities,
        "counts": pd.DataFrame(counts),
        "train": train,
        "train classes": balance(train["entity"], vocabulary.seen),
        "synthetic classes": balance(
            entities[entities["purpose"] == "synthetic"]["entity"], vocabulary.classes
        ),
        "sim classes": balance(
            entities[entities["purpose"] == "sim"]["entity"], vocabulary.classes
        ),
    }


def image_tables(params: Params, workspace: Workspace) -> Tables:
    rows, vocabulary = facts(workspace, "images", IMAGES), load_vocabulary(params.vocabulary)
    side = picture_side(params, workspace)
    rows["expected_side"] = side or rows["width"].mode()[0]
    rows["near_duplicate"] = near_duplicates(rows["dhash"], params.triplets.duplicate_bits)
    rows["whiteness"] = whiteness(rows)
    prompts = facts(workspace, "prompts", PROMPTS)
    rows["as_prompted"] = as_in(rows, prompts, PROMPTS.names)
    rows = pd.concat([rows, number_facts(workspace)], axis=1)
    wanted = set(prompts[prompts["purpose"] != "synthetic"]["key"])
    return {
        "rows": rows,
        "entities": entities_of(rows, vocabulary),
        "total": one_row(
            missing=len(wanted - set(rows["key"])),
            unasked=len(set(rows["key"]) - wanted),
            near_duplicate_share=float(rows["near_duplicate"].mean()),
        ),
    }


def whiteness(rows: pd.DataFrame) -> pd.Series:
    """How little neighbouring pixels have in common: 1 for white noise, whose Laplacian has 20
    times the variance of its levels; 0.005 to 0.09 for drawn scenes. 0 for one level."""
    variance = 20 * rows["std"] ** 2
    return (rows["sharpness"] / variance.where(variance > 0, np.inf)).astype(float)


def number_facts(workspace: Workspace) -> pd.DataFrame:
    """Of each picture: are latent and heat maps arrays of the shape they state, of finite numbers;
    is the latent shaped like the first one, and not one value all over; one heat map a word?"""
    first: list[int] = []
    found: list[dict[str, bool]] = []
    columns = ["entities", "latent", "latent_shape", "daam", "daam_shape"]
    for shard in iter_shards(workspace.folder("images"), columns):
        for row in shard.itertuples():
            first = first or list(row.latent_shape)
            heat = read_heat(row.daam, row.daam_shape)
            found.append(
                {
                    "latent_sound": list(row.latent_shape) == first and _alive(row),
                    "heat_sound": heat is not None and len(heat) == len(row.entities),
                }
            )
    return pd.DataFrame(found)


def _alive(row: Any) -> bool:
    if len(row.latent) != 4 * int(np.prod(row.latent_shape)):
        return False
    values = np.frombuffer(row.latent, "<f4")
    return bool(np.isfinite(values).all() and values.std() > 0)
