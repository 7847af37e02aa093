"""What several families write: a profile, a vocabulary, and the values that are read back."""

from pathlib import Path

import yaml

from ml.images.png import decode_png
from ml.store.shards import read_shards

SMALL = {"train_one": 2, "train_two": 2, "sim_per_cell": 1, "synthetic_one": 2, "synthetic_two": 2}
"""Prompts of a profile that is made in a moment."""


def write_profile(folder: Path, name: str = "yard", **sections) -> Path:
    """A user's profile that overrides micro's."""
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"prompts": SMALL} | sections), encoding="utf-8")
    return file


def write_vocabulary(folder: Path, seen=("dog", "cat"), unseen=("bus",), **more) -> str:
    file = folder / "words.yaml"
    file.write_text(
        yaml.safe_dump({"seen": list(seen), "unseen": list(unseen)} | more, allow_unicode=True),
        encoding="utf-8",
    )
    return str(file)


def stage(folder: Path, name: str, profile: Path, *more: str) -> list[str]:
    """Arguments that make a stage of a profile in the input's root."""
    return [name, "--profile", str(profile), "--root", str(folder / "root"), *more]


def rows(folder: Path, stage: str, profile: str = "yard"):
    return read_shards(folder / "root" / "data" / profile / stage)


def labels(folder: Path, profile: str = "yard") -> dict[str, object]:
    """Label maps of the benchmark that was made, by key."""
    made = rows(folder, "benchmark", profile)
    return {key: decode_png(label) for key, label in zip(made.key, made.label, strict=True)}


def benchmark_of(folder: Path, source: str, root: str, seen) -> list[str]:
    """Arguments that read a data set below the folder, whole or not."""
    words = write_vocabulary(folder, seen, ["bus"])
    benchmark = {"source": source, "root": str(folder / root), "subset": "any"}
    return stage(folder, "benchmark", write_profile(folder, vocabulary=words, benchmark=benchmark))
