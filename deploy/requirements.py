"""`python requirements.py`: what the image installs, one requirement a line, from pyproject.toml.
`--check-variant cpu|cuda`: refuses an environment whose torch is the other variant's."""

import sys
import tomllib
from pathlib import Path

EXTRAS = ("pipeline", "tracking", "ray", "s3", "gcs", "kubernetes", "export", "quantise")
"""All but what is for a person at a screen: the app, the site of docs/, the tests."""


def requirements(pyproject: Path) -> list[str]:
    """The dependencies and those of the extras of a cluster; the code itself is copied."""
    project = tomllib.loads(pyproject.read_text())["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *(line for name in EXTRAS for line in extras[name])]


def check_variant(wanted: str, cuda: str | None) -> None:
    """cuda: the version that torch was built for. Ends the process when that is not as wanted."""
    found = "cpu" if cuda is None else "cuda"
    if wanted not in ("cpu", "cuda"):
        sys.exit(f"VARIANT: expected cpu or cuda, got {wanted!r}")
    if found != wanted:
        sys.exit(
            f"VARIANT is {wanted}, but this torch is a {found} build (CUDA {cuda}); give "
            "TORCH_INDEX, the address of PyTorch's wheels for the variant"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--check-variant"]:
        import torch

        check_variant(sys.argv[2], torch.version.cuda)
    else:
        print(*requirements(Path("pyproject.toml")), sep="\n")
