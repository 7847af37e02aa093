"""What is on disk at a moment: what is whole, what is half-made, what somebody holds.

Read with plain file operations, not with the program's own readers: they are what is judged.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ml.pipeline.table import STAGES

NAMES = tuple(stage.name for stage in STAGES)


class Mark(NamedTuple):
    """Equal for a file that nobody made again, wherever it was renamed to."""

    inode: int
    mtime_ns: int
    sha256: str


def mark_of(file: Path) -> Mark:
    stat = file.stat()
    return Mark(stat.st_ino, stat.st_mtime_ns, hashlib.sha256(file.read_bytes()).hexdigest())


def read_object(file: Path) -> dict:
    """A JSON object; {} for what is no whole one."""
    try:
        value = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def recipe_of(folder: Path) -> dict | None:
    """What a folder's manifest says it was made by; None without one."""
    manifest = read_object(folder / "manifest.json")
    keys = ("version", "params", "inputs")
    return {key: manifest[key] for key in keys} if manifest else None


def whole_files(data: Path, recipes: dict[str, dict]) -> dict[str, Mark]:
    """Everything that must not be made again, by its final name: the files of folders that these
    recipes finished, and the shards with a true sidecar of folders that are being made."""
    found = {}
    for name in NAMES:
        folder, new = data / name, data / ".making" / name
        if recipe_of(folder) == recipes[name]:
            for file in filter(Path.is_file, folder.rglob("*")):
                found[f"{name}/{file.relative_to(folder)}"] = mark_of(file)
        for shard in sorted(new.glob("shard-*.parquet")):
            note, mark = read_object(new / f".{shard.stem}.json"), mark_of(shard)
            if note.get("sha256") == mark.sha256:
                found[f"{name}/{shard.name}"] = mark
    return found


def broken(data: Path) -> list[str]:
    """Final places that hold less than a whole folder, unless the old one waits beside."""
    wrong = []
    for name in NAMES:
        places = [data / name, data / f".{name}.replaced"]
        here = [place for place in places if place.exists()]
        if here and not any(_is_whole(place) for place in here):
            wrong.append(f"{name}: no whole folder in its place")
        if places[0].exists() and not _is_whole(places[0]):
            wrong.append(f"{name}: half a folder in its place")
    return list(dict.fromkeys(wrong))


def _is_whole(folder: Path) -> bool:
    files = read_object(folder / "manifest.json").get("files")
    return files is not None and all(
        (folder / name).is_file() and mark_of(folder / name).sha256 == entry["sha256"]
        for name, entry in files.items()
    )


def making(data: Path) -> str:
    """The stage that is being made, "" between two."""
    try:
        notes = os.listdir(data / ".making")
    except FileNotFoundError:
        return ""
    return next((name for name in NAMES if f"{name}.json" in notes), "")


def describe(data: Path, recipes: dict[str, dict]) -> str:
    """In a few words, for the table."""
    done = [name for name in NAMES if recipe_of(data / name) == recipes[name]]
    parts = [f"{len(done)} of {len(NAMES)} stages"]
    if name := making(data):
        new = data / ".making" / name
        shards = len(list(new.glob(".shard-*.json")))
        parts += [f"{shards} shards"] * bool(shards)
        parts += ["checkpoint"] * any(new.glob(".progress/*.pt"))
        parts += ["manifest"] * (new / "manifest.json").exists()
        if not new.exists():
            parts.append("folder renamed, notes not")
    parts += [f"half {half.name}" for half in halves(data)][:2]
    parts += [f"{aside.name}" for aside in data.glob(".*.replaced")]
    return ", ".join(parts)


def halves(data: Path) -> Iterator[Path]:
    """Files and folders that are not whole yet."""
    return (path for path in data.rglob(".*.tmp"))


def left_over(checkout: Path, data: Path) -> list[str]:
    """What a run that ended well leaves behind of the runs before it."""
    found = list(halves(data)) + list(data.glob(".*.replaced")) + list(data.glob(".strays"))
    found += list((data / ".making").iterdir()) if (data / ".making").exists() else []
    found += data.rglob(".progress")
    for below in (".dvc/cache", "mlartifacts", ".dagster/alive"):
        found += (checkout / below).rglob("*tmp*")
    return sorted(str(path.relative_to(checkout)) for path in found)


def held_locks(checkout: Path, data: Path) -> list[str]:
    """Lock files that some process still holds."""
    files = [*(data / ".locks").glob("*"), checkout / "data" / ".gpu.lock"]
    files += [*data.rglob(".lock"), *(checkout / ".dagster" / "alive").glob("*")]
    held = []
    for file in filter(Path.is_file, files):
        with file.open("r+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(str(file.relative_to(checkout)))
    return held
