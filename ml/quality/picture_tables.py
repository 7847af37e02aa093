"""What the checks judge of prompts, images, masks, triplets and the synthetic set.

Settings that a rule depends on are turned into columns here ("expected", "share_of_even"), so that
the rules stay literal. Pixels are decoded for the synthetic set alone: its labels, and leaks.
"""

import numpy as np
import pandas as pd

from ml.pipeline.picture_size import picture_side
from ml.pipeline.workspace import Workspace
from ml.quality.frames import Tables, balance, entities_of, facts, near_duplicates, one_row
from ml.settings.params import Params
from ml.store.schemas import IMAGES, MASKS, PROMPTS, SYNTHETIC, TRIPLETS
from ml.store.shards import iter_shards
from ml.words.spans import named_in
from ml.words.vocabulary import Vocabulary, load_vocabulary


def prompt_tables(params: Params, workspace: Workspace) -> Tables:
    rows, vocabulary = facts(workspace, "prompts", PROMPTS), load_vocabulary(params.vocabulary)
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
    prompts = facts(workspace, "prompts", PROMPTS)
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


def mask_tables(params: Params, workspace: Workspace) -> Tables:
    rows, vocabulary = facts(workspace, "masks", MASKS), load_vocabulary(params.vocabulary)
    rows["has_rle"] = rows["rle"].str.len() > 0
    asked = entities_of(facts(workspace, "images", IMAGES), vocabulary)
    pairs = set(zip(rows["key"], rows["entity"], strict=True))
    wanted = set(zip(asked["key"], asked["entity"], strict=True))
    labels, found = rows[rows["role"] == "labeller"], rows[rows["found"]]
    return {
        "rows": rows,
        "labels": labels,
        "found": found,
        "classes": balance(labels[labels["found"]]["entity"], vocabulary.seen),
        "total": one_row(
            missing=len(wanted - pairs),
            unasked=len(pairs - wanted),
            found_share=float(rows["found"].mean()),
            labels_found_share=float(labels["found"].mean()),
        ),
    }


def triplet_tables(params: Params, workspace: Workspace) -> Tables:
    rows, vocabulary = facts(workspace, "triplets", TRIPLETS), load_vocabulary(params.vocabulary)
    rows["named_in_text"] = [
        named_in(text, [word])[0] for word, text in zip(rows["word"], rows["text"], strict=True)
    ]
    rows["has_rle"] = rows["rle"].str.len() > 0
    rows["no_reason"] = rows["reason"] == ""
    labels = rows[rows["subset"].isin(["train", "validation"])]
    accepted = rows[rows["accepted"]]
    return {
        "rows": rows,
        "accepted": accepted,
        "labels": labels,
        "classes": balance(labels[labels["accepted"]]["entity"], vocabulary.seen),
        "total": one_row(
            yield_share=float(labels["accepted"].mean()),
            validation=int((accepted["subset"] == "validation").sum()),
            sim=int((accepted["subset"] == "sim").sum()),
        ),
    }


def synthetic_tables(params: Params, workspace: Workspace) -> Tables:
    rows = facts(workspace, "synthetic_dataset", SYNTHETIC)
    vocabulary = load_vocabulary(params.vocabulary)
    rows["expected_side"] = picture_side(params, workspace) or rows["width"].mode()[0]
    rows = pd.concat([rows, label_facts(workspace, vocabulary)], axis=1)
    accepted = rows[rows["accepted"]]
    entities = accepted["entities"].explode()
    return {
        "rows": rows,
        "accepted": accepted,
        "entities": entities_of(rows, vocabulary),
        "classes": balance(entities, vocabulary.classes),
        "total": one_row(
            accepted=len(accepted),
            yield_share=float(rows["accepted"].mean()),
            in_benchmark=int(rows["in_benchmark"].sum()),
            mean_ignored=float(accepted["ignored"].mean()),
        ),
    }


def label_facts(workspace: Workspace, vocabulary: Vocabulary) -> pd.DataFrame:
    """Per synthetic picture, from its pixels: is the label map as large as the picture, are its
    labels those of the prompt, is the picture (or nearly) one of the benchmark's."""
    from ml.images.leaks import find_overlap, small
    from ml.images.overlays import IGNORED
    from ml.images.png import decode_png

    real = [
        small(decode_png(data))
        for shard in iter_shards(workspace.folder("benchmark"), ["image"])
        for data in shard["image"]
    ]
    found = []
    columns = ["key", "entities", "image", "label"]
    for shard in iter_shards(workspace.folder("synthetic_dataset"), columns):
        pictures = [decode_png(data) for data in shard["image"]]
        leaked = set(find_overlap([small(p) for p in pictures], real)) if real else set()
        for index, (row, picture) in enumerate(zip(shard.itertuples(), pictures, strict=True)):
            label = decode_png(row.label)
            named = {vocabulary.label(e) for e in row.entities if e in vocabulary.classes}
            found.append(
                {
                    "label_fits": label.shape == picture.shape[:2],
                    "labels_named": set(np.unique(label).tolist()) <= named | {0, IGNORED},
                    "in_benchmark": index in leaked,
                }
            )
    return pd.DataFrame(found)
