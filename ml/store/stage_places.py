"""A stage's folder, notes, lock and successor: of a local disk, or of an object store."""

from pathlib import Path

from ml.store.leases import Lease
from ml.store.locks import FolderLock
from ml.store.places import is_remote
from ml.store.shelf import files_of, look, version_in
from ml.store.successor import STATE, Successor
from ml.store.versions import STATE as BESIDE
from ml.store.versions import Version, check_place


def folder_of(data: Path, stage: str) -> Path:
    """The finished folder; one that is not there before a stage has finished."""
    return files_of(data / stage)


def state_of(data: Path, stage: str) -> Path:
    """The notes about the finished folder, which are replaced together with it."""
    if is_remote(data):
        if (number := look(data / stage).current) is not None:
            return version_in(data / stage, number) / BESIDE
    return data / STATE / stage


def lock_of(data: Path, stage: str) -> FolderLock | Lease:
    return Lease(data, stage) if is_remote(data) else FolderLock(data, stage)


def successor_of(data: Path, stage: str, lock: FolderLock | Lease) -> Successor | Version:
    """lock: the stage's own."""
    return Version(data, stage, lock) if isinstance(lock, Lease) else Successor(data, stage)


def check_stage(data: Path, stage: str) -> None:
    """Raises ManifestError when what stands in a stage's place was not made by us."""
    if is_remote(data):
        check_place(data, stage)
    else:
        Successor(data, stage).check()
