"""The weight files of a text-to-image model: which there are, and whether they are whole.

Only safetensors count. Not here: what is loaded from them (`ml.diffusion.loading`).
"""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from ml.compute.weights import index_files
from ml.diffusion.backbones.kinds import KINDS
from ml.diffusion.configurations import INDEX, class_of
from ml.store.reading import read_object


def stem_of(part: str) -> str:
    """How the weight files of a part are called."""
    return "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"


def parts_of(folder: Path) -> list[str]:
    """The parts of the model in a folder that have weights."""
    index = read_object(folder / INDEX)
    known = KINDS[index["_class_name"]].networks
    return [part for part in known if class_of(index, part)]


def check_weights(folder: Path, variant: str | None) -> None:
    """Raises ValueError unless every part of the model has whole safetensors files.

    A part without files of the variant is loaded from the plain ones, as diffusers does; a model
    in which no part has them is refused. Reads the files' headers only.
    """
    of_variant = 0
    for part in parts_of(folder):
        files, own = weight_files(folder, part, variant)
        of_variant += own is not None
        if not files:
            raise ValueError(_without_safetensors(folder / part, variant))
        for file in files:
            _check_file(file)
    if variant and not of_variant:
        raise ValueError(
            f"{folder} has no files of the variant {variant!r}: set "
            "diffusion.variant to null, or to one that its files name"
        )


def weight_files(folder: Path, part: str, variant: str | None) -> tuple[list[Path], str | None]:
    """The files of a part and the variant that they are of: the plain ones where it has none."""
    own = _files(folder / part, stem_of(part), variant) if variant else []
    return (own, variant) if own else (_files(folder / part, stem_of(part), None), None)


def _files(folder: Path, stem: str, variant: str | None) -> list[Path]:
    """The one file of a part, or all that its index lists; none when there is neither."""
    dot = f".{variant}" if variant else ""
    single, index = (
        folder / f"{stem}{dot}.safetensors",
        folder / f"{stem}.safetensors.index{dot}.json",
    )
    if single.is_file():
        return [single]
    if not index.is_file():
        return []
    return [folder / name for name in index_files(index)]


def _without_safetensors(folder: Path, variant: str | None) -> str:
    pickled = sorted(p.name for p in folder.glob("*.bin"))
    if pickled:
        return (
            f"{folder} has only pickled weights ({', '.join(pickled)}), which can run any code "
            "when they are loaded: expected safetensors; take a revision that has them, or "
            "write them once with save_pretrained(..., safe_serialization=True)"
        )
    found = sorted(p.name for p in folder.glob("*.safetensors"))
    return (
        f"no weights in {folder} for diffusion.variant {variant!r}: expected safetensors, "
        f"found {found or 'none'}; set diffusion.variant to what the files' names have, or "
        "bring the model again"
    )


def _check_file(file: Path) -> None:
    again = "half a download? remove it and run again with the network, or bring the folder again"
    if not file.is_file():
        raise ValueError(f"{file} is missing, though its index lists it: {again}")
    try:
        with safe_open(file, "pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{file} ({file.stat().st_size:,} bytes) is cut short or damaged ({error}): {again}"
        ) from error
