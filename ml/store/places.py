"""Where a workspace lies: a local folder, or an address on an object store.

A local place is a `pathlib.Path`. An address (`s3://bucket/prefix`, `gs://bucket/prefix`) is a
`UPath` of universal-pathlib, which has pathlib's methods over fsspec and is typed as `Path` here.
What pathlib cannot say of objects (conditional writes, copies by the store) is in
`ml.store.objects`.
"""

import functools
import importlib.util
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

if TYPE_CHECKING:
    from upath import UPath

ADDRESS = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/")
STORES = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "memory": ("fsspec", "")}
"""Protocol -> the package that speaks it, and our extra that installs it. `memory` is for tests: it
ends with its process."""
PATIENCE = {
    "retries": {"mode": "standard", "max_attempts": 4},
    "connect_timeout": 10,
    "read_timeout": 30,
}
"""Of botocore for a request; s3fs makes five of each: about 20 s without an answer are bridged."""
OPTIONS: dict[str, dict[str, Any]] = {"s3": {"config_kwargs": PATIENCE}}
"""Of the client, by protocol."""
EXPECTED = "a folder, file:///folder, s3://bucket/prefix or gs://bucket/prefix"


def is_remote(path: Path) -> bool:
    """Whether a place is on an object store."""
    return not isinstance(path, Path)


def address(path: Path) -> "UPath":
    """A place on an object store as what it is."""
    place = cast("UPath", path)
    if place.protocol == "s3":
        _be_patient()
    return place


@functools.cache
def _be_patient() -> None:
    """Has s3fs try again, too, where nothing listens: a server that is started again. Tracebacks of
    its connections are not printed."""
    from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError
    from s3fs.core import add_retryable_error

    for error in (EndpointConnectionError, ConnectTimeoutError):
        add_retryable_error(error)
    # of a cut connection, whose error the caller gets anyway
    logging.getLogger("asyncio").addFilter(lambda record: not record.exc_info)


def is_address(text: str) -> bool:
    """Whether a text is meant as an address; other texts are paths of this machine."""
    return ADDRESS.match(text) is not None


def place_of(root: "str | Path") -> Path:
    """The place that a root names.

    Raises ValueError for an address that holds a login or a query (which is not repeated: it may be
    a secret), an unknown protocol, a pattern, or no bucket; ImportError when the package for it is
    missing.
    """
    if not isinstance(root, str):
        return root
    found = ADDRESS.match(root)
    if found is None:
        return Path(root)
    protocol, rest = found[1].lower(), root[found.end() :]
    protocol = {"gcs": "gs"}.get(protocol, protocol)
    if "@" in unquote(rest) or re.search(r"[?#\s]", rest):
        raise ValueError(
            f"the root is an address ({protocol}://) with a login, a query or a space in it: "
            f"expected {EXPECTED}. Keys come from the environment (AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY), a profile or the machine's role; change one that stood there"
        )
    if protocol == "file":
        return _local(root, rest)
    if protocol not in STORES:
        raise ValueError(f"unknown protocol {protocol}:// in {root!r}: expected {EXPECTED}")
    if found := re.search(r"[*\[\]]", rest):  # of which fsspec makes a pattern, also to delete by
        raise ValueError(
            f"{root!r} holds {found[0]!r}, which would stand for other places of the bucket, too: "
            f"expected {EXPECTED} without * [ ]. Choose another prefix"
        )
    bucket, *parts = rest.removeprefix("/").rstrip("/").split("/")
    if not rest.startswith("/") or not bucket or {"", ".", ".."} & set(parts):
        raise ValueError(f"{root!r} names no place in a bucket: expected {EXPECTED}")
    package, extra = STORES[protocol]
    if importlib.util.find_spec(package) is None:
        raise ImportError(
            f"{root} needs the package {package}, which is not installed: pip install '.[{extra}]'"
        )
    from upath import UPath

    options: dict[str, Any] = {"use_listings_cache": False}  # others write there, too
    options |= OPTIONS.get(protocol, {})
    return cast(Path, UPath(f"{protocol}://{'/'.join([bucket, *parts])}", **options))


def _local(root: str, rest: str) -> Path:
    if not rest.startswith("//"):
        raise ValueError(f"{root!r}: expected the absolute path of a folder, file:///folder")
    return Path(unquote(rest.removeprefix("/")))
