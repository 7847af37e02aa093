"""What a result may depend on beside settings and data: this package's code and the libraries."""

import functools
import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "numpy",
    "scipy",
    "pandas",
    "pillow",
    "pyarrow",
)


@functools.cache
def versions() -> dict[str, str]:
    """By name; "ml" is the start of a digest of its source files."""
    folder, digest = Path(__file__).resolve().parents[1], hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    found = {"ml": digest.hexdigest()[:12], "Python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found
