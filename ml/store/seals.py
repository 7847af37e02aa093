"""Small JSON files that carry a digest of themselves, where a changed bit must not pass for truth:
the verdicts of checks, and the record of a champion.
"""

from pathlib import Path
from typing import Any

from ml.store.files import Damaged, Fields, read_json, sha256_json

SEAL = "sha256"


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """The object with the digest of its other fields."""
    return value | {SEAL: sha256_json({k: v for k, v in value.items() if k != SEAL})}


def read_sealed(path: Path, expected: Fields) -> dict[str, Any] | None:
    """What was written with `sealed`, an object with at least these fields; None without a file.

    Raises Damaged, naming the file, for one that can't be read or does not fit its digest. One of
    an earlier version has no digest, and is taken as it is.
    """
    value = read_json(path, expected)
    if value is not None and SEAL in value and sealed(value) != value:
        raise Damaged(f"{path} does not fit its own sha256: it was edited or damaged")
    return value
