"""Weight files of published detectors, converted to safetensors once.

COCO weights are published as pickles (torchvision's .pth, detectron2's .pkl), and a pickle can
run anything. Here they are read by loaders that can only make tensors; the result is kept as
safetensors under the sha256 of its source, and only that is read from then on. Not here: which
file a backend wants.
"""

import collections
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ml.compute.torch_files import DAMAGED, Refused, damaged, more_than_tensors, read_torch_file
from ml.store.files import atomic, sha256_file

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".pkl")
MOST_TIMES = 8
"""How much larger than its file the tensors may be: a few names can share one tensor, but a tensor
that is shown a million times, or packed bytes, would fill the memory."""


@dataclass(frozen=True)
class Weights:
    """The tensors of a weight file by name, on the CPU, and what it says of itself."""

    tensors: dict[str, torch.Tensor]
    author: str  # of a detectron2 checkpoint, e.g. "Detectron2 Model Zoo" or "Caffe2"; else ""
    heuristics: bool  # names are another library's: detectron2's heuristics must match them


def load_weights(file: Path) -> Weights:
    """The tensors of a weight file: .safetensors, .pth, .pt, .bin or .pkl.

    The .pkl form is detectron2's: numpy arrays in a dict. Raises FileNotFoundError for a missing
    file, ValueError for one that is damaged, unknown or holds more than tensors; nothing in it
    is run.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(
            f"no weight file {file}: set detector.weights to a file on this machine, or to null "
            "for the published weights of detector.model"
        )
    if file.suffix not in SUFFIXES:
        raise ValueError(f"weight file {file}: expected one of {', '.join(SUFFIXES)}")
    if file.suffix == ".safetensors":
        return _read(file)
    kept = Path(torch.hub.get_dir()) / "safetensors" / f"{sha256_file(file)}.safetensors"
    if not kept.is_file():
        _convert(file, kept)
    return _read(kept)


def _read(file: Path) -> Weights:
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            notes = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    except SafetensorError as error:
        raise ValueError(damaged(file, str(error))) from error
    return Weights(tensors, notes.get("author", ""), notes.get("heuristics") == "true")


def _convert(file: Path, kept: Path) -> None:
    payload = _unpickled(file) if file.suffix == ".pkl" else read_torch_file(file)
    tensors, author, heuristics = _take_apart(file, payload)
    notes = {"format": "pt", "author": author, "heuristics": str(heuristics).lower()}
    with atomic(kept) as temporary:
        save_file(tensors, temporary, metadata=notes)


def _unpickled(file: Path) -> object:
    try:
        with file.open("rb") as handle:
            return _ArraysOnly(file, handle).load()
    except Refused:
        raise
    except DAMAGED as error:
        raise ValueError(damaged(file, f"{type(error).__name__} while reading")) from error


def _take_apart(file: Path, payload: object) -> tuple[dict[str, torch.Tensor], str, bool]:
    """(tensors by name, author, names need heuristics) of what a pickle held.

    detectron2's .pkl has "model" and "__author__"; another .pkl is Caffe2's, with "blobs" or the
    arrays themselves. A .pth has its tensors under "model" or "state_dict", or is a dict of them.
    """
    if not isinstance(payload, dict):
        raise ValueError(f"{file}: expected a dict of tensors, got {type(payload).__name__}")
    author = str(payload.get("__author__", ""))
    heuristics = bool(payload.get("matching_heuristics", False))
    inner = next((payload[key] for key in ("model", "state_dict", "blobs")
                  if isinstance(payload.get(key), dict)), payload)  # fmt: skip
    if file.suffix == ".pkl" and not author:
        author, heuristics = "Caffe2", True
        inner = {name: value for name, value in inner.items() if not name.endswith("_momentum")}
    size = sum(_size(value) for value in inner.values())
    if size > MOST_TIMES * file.stat().st_size:
        raise Refused(
            f"weight file {file} of {file.stat().st_size:,} bytes stands for {size:,} bytes of "
            "tensors: expected one tensor a name. Take the file from its publisher again"
        )
    tensors = {str(name): _tensor(file, name, value) for name, value in inner.items()}
    return tensors, author, heuristics


def _size(value: object) -> int:
    """Bytes of an array or a tensor when it is copied; 0 of anything else."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    return value.nbytes if isinstance(value, np.ndarray | np.generic) else 0


def _tensor(file: Path, name: str, value: object) -> torch.Tensor:
    try:
        if isinstance(value, np.ndarray | np.generic):
            return torch.from_numpy(np.array(value, order="C"))
        if isinstance(value, torch.Tensor):
            return value.detach().contiguous().clone()  # safetensors refuses shared memory
    except TypeError as error:
        raise ValueError(f"{file}: {name!r} is no tensor: {error}") from error
    raise ValueError(
        f"{file}: expected tensors by name, but {name!r} is of type {type(value).__name__}. Give "
        "the weights alone, in the form of the publisher"
    )


def _latin1(text: str, encoding: str) -> bytes:
    """Stands for `_codecs.encode`, which makes the bytes of an array in a pickle of protocol 2."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"expected the encoding latin1, got {encoding!r}")
    return text.encode("latin1")


def _scalar(dtype: np.dtype, data: bytes) -> np.generic:
    """A number that was pickled as numpy's, such as BatchNorm's count of batches."""
    number: np.generic = np.frombuffer(data, dtype, 1)[0]
    return number


# Everything that a pickle of numpy arrays names; numpy 2 moved numpy.core to numpy._core.
_ARRAY = np.zeros(1)
_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _ARRAY.__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): _ARRAY.__reduce__()[0],
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _ARRAY.__reduce_ex__(5)[0],
    ("numpy._core.numeric", "_frombuffer"): _ARRAY.__reduce_ex__(5)[0],
    ("_codecs", "encode"): _latin1,
    ("collections", "OrderedDict"): collections.OrderedDict,
}


class _ArraysOnly(pickle.Unpickler):
    """Rebuilds numpy arrays in dicts and lists; any other name is refused before it is imported."""

    def __init__(self, file: Path, handle: BinaryIO):
        super().__init__(handle, encoding="latin1")  # detectron2's oldest are Python 2's
        self.file = file

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ALLOWED:
            raise Refused(more_than_tensors(self.file, f"{module}.{name}"))
        return _ALLOWED[module, name]
