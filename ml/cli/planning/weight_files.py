"""Where a model's files lie, and how many numbers stand in them; only headers are read."""

import json
import struct
from pathlib import Path


def local_folder(name: str, file: str, revision: str | None) -> Path | None:
    """Where a model's files lie: the folder itself, or the hub's cache; None when neither."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name, file, revision=revision)
    except HFValidationError:  # a backend's own name, or a folder that is not there
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def weight_files(folder: Path, variant: str | None = None) -> list[Path]:
    """The safetensors of a folder: those of the variant where it has any, else the plain ones."""
    files = sorted(folder.glob("*.safetensors"))
    of_variant = [file for file in files if variant and f".{variant}." in file.name]
    return of_variant or [file for file in files if file.name.count(".") == 1]


def count_parameters(file: Path) -> int:
    """Numbers in a safetensors file, from its header. Raises ValueError for another file."""
    with file.open("rb") as handle:
        start = handle.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length < file.stat().st_size:
            raise ValueError(
                f"{file} is no whole safetensors file (half a download?): remove it "
                "and get it again"
            )
        header = json.loads(handle.read(length))
    total = 0
    for name, entry in header.items():
        if name != "__metadata__":
            size = 1
            for side in entry["shape"]:
                size *= side
            total += size
    return total
