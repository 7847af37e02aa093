"""A model's folder as it comes out of the model registry, without knowing the registry."""

import re
from pathlib import Path

ADDRESS = re.compile(r"^(models|runs|mlflow-artifacts):/")


def model_folder(folder: Path | str, opener: str) -> Path:
    """Where the files of a saved model lie. opener: what takes that folder, for messages.

    Raises ValueError for an address of the registry, what is no path, and a folder that is not
    there.
    """
    if not isinstance(folder, str | Path):
        raise ValueError(f"{opener}: expected the path of a folder, got {folder!r:.80}")
    refuse_address(str(folder), opener)
    place = Path(folder)
    if not place.is_dir():
        what = "is a file" if place.exists() else "does not exist"
        raise ValueError(
            f"{opener}: expected a folder, and {str(place.absolute())!r} {what} "
            f"(working directory: {str(Path.cwd())!r})"
        )
    return downloaded(place)


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
