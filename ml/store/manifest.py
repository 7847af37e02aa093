"""The manifest of a stage's folder: what is in it, made from what, with which settings.

It is written last, atomically. Its digest is the one name of a data set: Dagster's data version,
MLflow's dataset digest and what DVC records.
"""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NotRequired, TypedDict

from ml.errors import ManifestError
from ml.store.files import say, sha256_file, sha256_json, write_json
from ml.store.objects import below, read
from ml.store.places import is_remote

SCHEMA_VERSION = 1
NAME = "manifest.json"
PROGRESS = ".progress"
"""Below a stage's folder: what its training goes on from, until the folder is whole."""
SIDECAR = re.compile(r"\.(shard-\d+)\.json")
HALF = re.compile(r"\..+\.\d+\.tmp")
"""What `ml.store.files.atomic` calls a file that is not whole yet."""


class Recipe(TypedDict):
    """All that the output of a stage depends on; the digest of it names the output."""

    stage: str
    version: int  # of the stage's code
    params: dict[str, Any]  # the settings that the stage reads, as plain data
    inputs: dict[str, str]  # digest by name of the stage or foundation model


class FileEntry(TypedDict):
    sha256: str
    bytes: int
    rows: NotRequired[int]  # of a shard


@dataclass(frozen=True)
class Manifest:
    stage: str
    version: int  # of the stage's code, raised when its output changes
    params: dict[str, Any]  # the settings that the stage read
    inputs: dict[str, str]  # digest by name of the stage or foundation model read
    files: dict[str, FileEntry]  # by relative path
    facts: dict[str, Any]  # counts and scores, plain numbers

    @property
    def digest(self) -> str:
        """Hex sha256 over everything above."""
        return sha256_json({"schema": SCHEMA_VERSION} | vars(self))


def describe_files(folder: Path, rows: dict[str, int]) -> dict[str, FileEntry]:
    """The `files` entry for what lies below a folder, hidden files and the manifest left out."""
    entries: dict[str, FileEntry] = {}
    for path in below(folder):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or name == NAME:
            continue
        entries[name] = {"sha256": sha256_file(path), "bytes": path.stat().st_size}
        if name in rows:
            entries[name]["rows"] = rows[name]
    return entries


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes `manifest.json` with its digest beside the content."""
    content = {"schema": SCHEMA_VERSION} | vars(manifest) | {"digest": manifest.digest}
    write_json(folder / NAME, content)


def read_manifest(folder: Path, *, verify: bool = True) -> Manifest:
    """The manifest of a finished folder.

    With `verify`, every file's sha256 is compared too; of a file that the manifest does not name, a
    line goes to stderr. Raises ManifestError naming the file when the folder is unfinished, the
    manifest fails its own digest, a file is missing or changed, or a file that was not made by the
    stage could be read as part of it.
    """
    path = folder / NAME
    if not path.is_file():
        raise ManifestError(
            f"no {path}: the stage that writes {folder.name!r} has not finished; "
            f"run `python -m ml {folder.name}` first"
        )
    try:
        content = dict(json.loads(read(path).decode()))
    except (ValueError, TypeError, RecursionError) as error:
        raise ManifestError(
            f"{path} is not a JSON object ({error}): it was edited or damaged; make the stage again"
        ) from error
    stated, schema = content.pop("digest", None), content.pop("schema", None)
    if schema != SCHEMA_VERSION:
        raise ManifestError(f"{path}: schema {schema}, expected {SCHEMA_VERSION}; make it again")
    try:
        manifest = Manifest(**content)
    except TypeError as error:
        raise ManifestError(
            f"{path}: fields {sorted(content)}, expected those of "
            "ml.store.manifest.Manifest; make the stage again"
        ) from error
    if wrong := _misfit(manifest):
        raise ManifestError(f"{path}: {wrong}: it was edited or damaged; make the stage again")
    if manifest.digest != stated:
        raise ManifestError(
            f"{path} fails its own digest (states {stated}, is {manifest.digest}): "
            "it was edited or damaged; make the stage again"
        )
    if verify:
        for problem in damage(folder, manifest):
            raise ManifestError(f"{problem}; make the stage {folder.name!r} again")
        _judge_strays(folder, manifest)
    return manifest


def _misfit(manifest: Manifest) -> str:
    """What is wrong with the kinds of a manifest's values, "" for nothing."""
    kinds = {
        "stage": str,
        "version": int,
        "params": dict,
        "inputs": dict,
        "files": dict,
        "facts": dict,
    }
    for field, kind in kinds.items():
        if not isinstance(value := getattr(manifest, field), kind):
            return f"{field} is {value!r:.60}"
    for name, entry in manifest.files.items():
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or PurePosixPath(name).is_absolute() or "\0" in name:
            return f"the file {name!r:.80} leaves its folder"
        if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str):
            return f"the entry of {name!r:.80} is {entry!r:.60}"
    return ""


def damage(folder: Path, manifest: Manifest) -> Iterator[str]:
    """What is missing or changed of a manifest's files, in words."""
    for name, entry in manifest.files.items():
        if not is_remote(folder) and not (folder / name).is_file():
            yield f"{folder / name} is missing"
            continue
        try:
            found = sha256_file(folder / name)
        except FileNotFoundError:
            yield f"{folder / name} is missing"
            continue
        if found != entry["sha256"]:
            yield (
                f"{folder / name} is not what its manifest says (sha256 {found[:12]}, expected "
                f"{entry['sha256'][:12]})"
            )


def strays(folder: Path, names: Collection[str]) -> list[str]:
    """Files and links below a stage's folder that are neither named nor its notes to itself."""
    found = []
    for path in below(folder) if is_remote(folder) else sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        known = relative.as_posix() in names or relative.as_posix() == NAME
        there = is_remote(folder) or path.is_file() or path.is_symlink()
        if not known and there and not _own_note(relative, names):
            found.append(relative.as_posix())
    return found


def _own_note(relative: Path, names: Collection[str]) -> bool:
    """The sidecar of a shard that is named, a training's checkpoint, or a file that a kill left
    half-written."""
    found = SIDECAR.fullmatch(relative.as_posix())
    return (
        relative.parts[0] == PROGRESS
        or HALF.fullmatch(relative.name) is not None
        or (found is not None and found[1] + ".parquet" in names)
    )


def _judge_strays(folder: Path, manifest: Manifest) -> None:
    """Reports other files in the folder; refuses those that would be read as part of the data."""
    kinds = {Path(name).suffix for name in manifest.files}
    for name in strays(folder, manifest.files):
        if any(part.startswith(".") for part in Path(name).parts):
            continue
        if Path(name).suffix in kinds:
            raise ManifestError(
                f"{folder / name} was not made by the stage {folder.name!r} and "
                "would be read as part of it; move it elsewhere"
            )
        say(
            f"{folder / name} was not made by the stage {folder.name!r}: it is left there, and "
            "not read"
        )
