"""A model's folder as it comes out of the model registry, without knowing the registry."""

import re
from pathlib import Path

ADDRESS = re.compile(r"^(models|runs|mlflow-artifacts):/")


def refuse_address(name: str, opener: str) -> None:
    """Raises ValueError for an address of the registry ("models:/grounding@champion"), saying how
    it becomes a folder. opener: what takes that folder."""
    if ADDRESS.match(name):
        raise ValueError(
            f"{name!r} is an address in the model registry, and {opener} opens folders: download "
            f"it first with `mlflow artifacts download --artifact-uri {name} --dst-path FOLDER` "
            "and give FOLDER"
        )


def downloaded(folder: Path) -> Path:
    """Where the model's own files lie: in `artifacts/model` of a registered model that was
    downloaded, in the folder itself otherwise."""
    inside = folder / "artifacts" / "model"
    return inside if (folder / "MLmodel").is_file() and inside.is_dir() else folder
