"""Learned text queries of words: in a folder, by word, and where they stand for the words' own.

Not here: how they are learned (`ml.grounding.learning`).
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ml.store.files import atomic
from ml.words.spans import fold

FILE = "queries.safetensors"
"""Beside `pipeline.json`, which lists the words."""


def folded(queries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The queries by the form in which words are compared (`ml.words.spans.fold`), on the CPU."""
    return {fold(word): query.detach().float().cpu() for word, query in queries.items()}


def save_queries(folder: Path, queries: Mapping[str, Tensor]) -> None:
    """Writes word -> float32 (D,)."""
    with atomic(folder / FILE) as temporary:
        save_file({word: query.contiguous() for word, query in queries.items()}, temporary)


def load_queries(folder: Path, words: list[str], width: int) -> dict[str, Tensor]:
    """The queries of these words, float32 (width,) each. Raises ValueError for a file that is
    missing, damaged, of other words, or of another model."""
    if not words:
        return {}
    file = folder / FILE
    try:
        found = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{file} is missing or damaged ({error}): expected the learned queries of "
            f"{', '.join(map(repr, words))}; teach them again (python -m ml teach)"
        ) from error
    sound = all(
        query.shape == (width,) and query.dtype == torch.float32 and bool(query.isfinite().all())
        for query in found.values()
    )
    if sorted(found) != sorted(words) or not sound:
        raise ValueError(
            f"{file}: expected a query float32 ({width},) of each of {sorted(words)}, got "
            f"{ {word: tuple(query.shape) for word, query in found.items()} }; teach them again "
            "(python -m ml teach)"
        )
    return {word: found[word] for word in words}
