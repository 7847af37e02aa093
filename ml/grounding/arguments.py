"""What a caller hands to the pipeline, brought into one form: lists with one entry a picture.

Not here: which words may be asked for (`prompting.py`), and pictures (`given.py`).
"""

from collections.abc import Sequence
from typing import Annotated, Any, get_type_hints

import numpy as np
import torch

from ml.grounding.prompting import refuse_set
from ml.settings.ranges import Range, fit
from ml.settings.sections import DiffusionParams

SEED = Annotated[int, Range(0, 2**32 - 1)]
"""More is not read: torch's generator takes the low 32 bits."""

_SETTINGS = get_type_hints(DiffusionParams, include_extras=True)
DRAWING = {
    "num_inference_steps": _SETTINGS["steps"],
    "guidance_scale": Annotated[float, Range(0, 100)],
}
"""What these numbers may be in a call. Steps as in a profile; a guidance of 1 or less is taken by
models that are told it (FLUX dev) and refused by the others (`Backbone.check_guidance`)."""

Generators = torch.Generator | Sequence[torch.Generator]


def number(name: str, value: object, hint: object) -> Any:
    """An argument as its annotation says (`ml.settings.ranges`), numpy's numbers too. Raises
    ValueError naming it for anything else."""
    try:
        return fit(value.item() if isinstance(value, np.generic) else value, hint)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def drawing(name: str, value: float | None, default: float | None) -> Any:
    """A call's number, else the folder's. Raises ValueError for neither or one out of its range."""
    if value is None and default is None:
        raise ValueError(f"{name}: the model's folder names no default; give a number")
    return number(name, default if value is None else value, DRAWING[name])


def texts(name: str, value: object) -> tuple[list[str], bool]:
    """Texts, and whether one was given and not several. Raises ValueError for none, or others."""
    if isinstance(value, str):
        return [value], True
    several = not isinstance(value, bytes) and isinstance(value, Sequence | np.ndarray)
    own = list(value) if several and np.ndim(value) else []  # type: ignore[call-overload,arg-type]
    if not own or not all(isinstance(text, str) for text in own):
        raise ValueError(f"{name}: expected a text, or a list of at least one, got {value!r:.80}")
    return [str(text) for text in own], False


def one(name: str, words: Any) -> list[Any]:
    """[words] of one picture. Raises ValueError unless they are a flat list."""
    refuse_set(name, words)
    if isinstance(words, str | bytes) or not hasattr(words, "__len__"):
        raise ValueError(f'{name}: expected a list of words, such as ["dog", "car"], got {words!r}')
    own = _plain(words)
    if any(isinstance(word, list | tuple | np.ndarray) for word in own):
        raise ValueError(
            f'{name}: expected a flat list of words for one picture, such as ["dog", "car"], got '
            f"{words!r}; lists within it go with a list of pictures or prompts"
        )
    return [own]


def several(name: str, words: Any) -> list[Any]:
    """A list of words for each picture; `ask` checks them. Raises ValueError for a text."""
    refuse_set(name, words)
    if isinstance(words, str | bytes) or not hasattr(words, "__len__"):
        raise ValueError(
            f'{name}: expected a list of words for each picture, such as [["dog", "car"], ["cat"]]'
            f", got {words!r}"
        )
    return [_plain(own) if isinstance(own, list | tuple | np.ndarray) else own for own in words]


def _plain(words: Any) -> list[Any]:
    """Words as they are keys of masks: numpy's texts become Python's."""
    return [str(word) if isinstance(word, str) else word for word in words]


def seeds_of(
    seed: int | Sequence[int] | None, generator: Generators | None, pictures: int
) -> list[int]:
    """A seed for each picture.

    seed: one number for the first picture (the next ones have the numbers after it) or one for each
    picture. generator: the seeds are drawn from it, or from each picture's own, and its state moves
    on as under diffusers. With neither they are drawn from torch's global generator. Raises
    ValueError for both, a wrong count, or what is no seed.
    """
    if seed is not None and generator is not None:
        raise ValueError("expected seed or generator, got both; leave one of them out")
    if seed is not None:
        if isinstance(seed, int | np.integer):
            first = int(number("seed", seed, SEED))
            seed = [first + place for place in range(pictures)]
        if isinstance(seed, str) or not hasattr(seed, "__len__"):
            number("seed", seed, SEED)
        _check_count("seed", "a whole number", seed, pictures)
        return [number("seed", value, SEED) for value in seed]
    if generator is None or isinstance(generator, torch.Generator):
        return [_drawn(generator) for _ in range(pictures)]
    _check_count("generator", "a torch.Generator", generator, pictures)
    if wrong := [own for own in generator if not isinstance(own, torch.Generator)]:
        raise ValueError(f"generator: expected torch.Generator, got {wrong[0]!r}")
    return [_drawn(own) for own in generator]


def _drawn(generator: torch.Generator | None) -> int:
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**32, (), generator=generator, device=device))


def _check_count(name: str, kind: str, values: object, pictures: int) -> None:
    if not isinstance(values, Sequence | np.ndarray):
        raise ValueError(
            f"{name}: expected {kind}, or a list of one for each of {pictures} pictures, "
            f"got {values!r}"
        )
    if len(values) != pictures:
        raise ValueError(f"{name}: expected one for each of {pictures} pictures, got {len(values)}")
