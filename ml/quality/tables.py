"""What the checks judge: a stage's shard facts as small pandas tables.

`TABLES[stage](params, workspace)` gives the tables that the rules in `suites.py` name. Bounds that
depend on settings are turned into columns here ("expected", "share_of_even"), so that the rules
stay literal. Pixels are decoded only for the two rules that are about pixels: labels and leaks.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd

from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.manifest import read_manifest
from ml.store.schemas import BENCHMARK, IMAGES, MASKS, PROMPTS, SYNTHETIC, TRIPLETS
from ml.store.shards import iter_shards, read_shards
from ml.words.spans import fold, named_in
from ml.words.vocabulary import Vocabulary, load_vocabulary

PIXELS = {"image", "label", "latent", "daam", "rles"}  # columns left on disk
Tables = dict[str, pd.DataFrame]


def facts(workspace: Workspace, stage: str, schema) -> pd.DataFrame:
    """All rows of a stage without the columns that hold pixels."""
    return read_shards(workspace.folder(stage), [n for n in schema.names if n not in PIXELS])


def one_row(**values: object) -> pd.DataFrame:
    return pd.DataFrame([values])


def entities_of(rows: pd.DataFrame, vocabulary: Vocabulary) -> pd.DataFrame:
    """One row per picture and entity, with whether its word stands for it, and in the text."""
    columns = ["key", "text", "purpose", "cell", "entities", "words"]
    named = [named_in(text, words) for text, words in zip(rows["text"], rows["words"], strict=True)]
    out = (
        rows[columns]
        .assign(named_in_text=named)
        .explode(["entities", "words", "named_in_text"], ignore_index=True)
    )
    out = out.rename(columns={"entities": "entity", "words": "word"})
    out["word_means_entity"] = [
        fold(w) in {fold(name) for name in vocabulary.words.get(e, ())}
        for e, w in zip(out["entity"], out["word"], strict=True)
    ]
    out["seen"] = out["entity"].isin(vocabulary.seen)
    return out


def balance(entities: pd.Series, classes: tuple[str, ...]) -> pd.DataFrame:
    """One row per class: its count and the count as a multiple of the even share."""
    counts = entities.value_counts().reindex(list(classes), fill_value=0)
    even = max(counts.sum() / len(classes), 1e-9)
    return pd.DataFrame(
        {
            "class": counts.index,
            "count": counts.to_numpy(),
            "share_of_even": counts.to_numpy() / even,
        }
    )


def near_duplicates(hashes: pd.Series, bits: int) -> np.ndarray:
    """bool (n,): an earlier row's 64-bit difference hash is at most so many bits away."""
    values = np.array([int(text, 16) for text in hashes], np.uint64)
    near = np.zeros(len(values), bool)
    for index in range(1, len(values)):
        near[index] = (np.bitwise_count(values[:index] ^ values[index]) <= bits).any()
    return near


def model_size(params: Params, workspace: Workspace) -> int | None:
    """Side in pixels of the diffusion model's pictures; None for a hub id that is not on disk."""
    folder = Path(workspace.model(params.diffusion.model))
    if not (folder / "unet" / "config.json").is_file():
        return None
    unet = json.loads((folder / "unet" / "config.json").read_text())
    vae = json.loads((folder / "vae" / "config.json").read_text())
    side = unet["sample_size"]
    side = side if isinstance(side, int) else side[0]  # square: ml.diffusion.fields
    return side * 2 ** (len(vae["block_out_channels"]) - 1)


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
    side = model_size(params, workspace)
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
    rows["expected_side"] = model_size(params, workspace) or rows["width"].mode()[0]
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


def benchmark_tables(params: Params, workspace: Workspace) -> Tables:
    """The benchmark as it is on disk, beside what it should be.

    Drawn scenes are compared with the published ones, drawn again with the vocabulary's labels
    (2 s); photographs with the digests of what was read, and in number with the split's list.
    """
    said = read_manifest(workspace.folder("benchmark"), verify=False).facts
    if params.benchmark.source == "none":  # an empty set, as asked for: one row that says so
        return {
            "rows": one_row(
                key="(no real benchmark)",
                pixels="",
                published="",
                label_fits=True,
                labels_known=True,
                blank=False,
            ),
            "classes": one_row(**{"class": "(no real benchmark)", "missing": ""}),
            "total": one_row(rows=said["pictures"], published=0, repeated_share=0.0),
        }
    rows = facts(workspace, "benchmark", BENCHMARK)
    rows = pd.concat([rows, benchmark_pixels(params, workspace)], axis=1)
    expected = said.get("listed")
    if params.benchmark.source == "drawn":
        published = drawn_digests(load_vocabulary(params.vocabulary))
        expected = len(published)
        rows["published"] = (published + [""] * len(rows))[: len(rows)]
    elif params.benchmark.subset == "official" and said["official_pictures"] is not None:
        expected = said["official_pictures"]
    present = set(rows["entities"].explode())
    missing = ["" if name in present else name for name in said["labelled_classes"]]
    return {
        "rows": rows,
        "classes": pd.DataFrame({"class": said["labelled_classes"], "missing": missing}),
        "total": one_row(
            rows=len(rows),
            published=expected,
            repeated_share=float(rows["sha256"].duplicated().mean()),
        ),
    }


def benchmark_pixels(params: Params, workspace: Workspace) -> pd.DataFrame:
    """Per benchmark picture, from its pixels, a shard at a time. `pixels` is of picture and label
    where those are drawn, else of the picture, with what was read as `published`."""
    from ml.images.facts import grey_levels, pixel_digest
    from ml.images.overlays import IGNORED
    from ml.images.png import decode_png

    vocabulary, found = load_vocabulary(params.vocabulary), []
    drawn = params.benchmark.source == "drawn"
    columns = ["entities", "image", "label", "sha256"]
    for shard in iter_shards(workspace.folder("benchmark"), columns):
        for row in shard.itertuples():
            image, label = decode_png(row.image), decode_png(row.label)
            present = set(np.unique(label).tolist()) - {0, IGNORED}
            named = {vocabulary.label(e) for e in row.entities}
            found.append(
                {
                    "pixels": pair_digest(image, label) if drawn else pixel_digest(image),
                    "published": row.sha256,
                    "label_fits": label.shape == image.shape[:2],
                    "labels_known": present == named,
                    "blank": float(grey_levels(image).std()) < params.triplets.min_std,
                }
            )
    return pd.DataFrame(found)


def drawn_digests(vocabulary: Vocabulary) -> list[str]:
    """`pair_digest` of every published scene, with the labels of the vocabulary."""
    from ml.drawn_world.benchmark import benchmark_scenes
    from ml.drawn_world.world import CLASSES
    from ml.images.overlays import IGNORED

    relabel = np.full(256, IGNORED, np.uint8)  # a class the vocabulary does not list is ignored
    relabel[0] = 0
    for name in CLASSES:
        if name in vocabulary.classes:
            relabel[CLASSES.index(name) + 1] = vocabulary.label(name)
    return [pair_digest(scene.image, relabel[scene.label_map()]) for scene in benchmark_scenes()]


def pair_digest(image: np.ndarray, label: np.ndarray) -> str:
    """Hex sha256 of a picture uint8 (H,W,3) and its label map uint8 (H,W)."""
    digest = hashlib.sha256(np.ascontiguousarray(image).tobytes())
    digest.update(np.ascontiguousarray(label).tobytes())
    return digest.hexdigest()
