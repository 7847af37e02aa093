"""What is required of every model: exactly its own weights, and finite numbers.

A library that finds other weights than it expects logs that and goes on with random ones; here it
is an error. Not here: what a model's configuration may say (`ml.diffusion.fields` and the
loaders themselves).
"""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ml.errors import NotFinite
from ml.store.reading import configured, read_object

Model = TypeVar("Model", bound=nn.Module)
COMPUTED = (
    "num_batches_tracked",
    "position_ids",
    "relative_position_index",
    "criterion.empty_weight",
)
"""Parts of names that either side may lack: counted or computed, never learned."""
ANOTHER = "Take the weights and the configuration of one checkpoint, as it was published"
LORA = (
    "it was saved with a LoRA attached: load it where it was made, fuse_lora() and "
    "unload_lora_weights(), and save it again"
)


def load_whole(
    kind: type[Model],
    source: str,
    *where: str | Path | None,
    dropped: Sequence[str] = (),
    **options: object,
) -> Model:
    """`kind.from_pretrained(*where, **options)` of diffusers or transformers, safetensors alone.

    dropped: prefixes of names that are left out on purpose (a classifier's head). source: named in
    errors. Raises ValueError for weights that are missing, unknown, of another shape or not finite;
    the library's own errors for missing or damaged files are not caught.
    """
    for index in sorted(Path(where[0]).glob("*.safetensors.index.json")) if where[0] else ():
        index_files(index)
    loader: Any = kind  # the method is of the libraries' mixins, which share no type
    try:
        with configured(source), _quiet():
            model, found = loader.from_pretrained(
                *where,
                output_loading_info=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                **options,
            )
    except SafetensorError as error:
        raise ValueError(
            f"{source}: its weights are cut short or damaged ({error}): half a "
            "download? Bring it again"
        ) from error
    account(
        source,
        found["missing_keys"],
        found["unexpected_keys"],
        [shapes_of(*key) for key in found["mismatched_keys"]],
        dropped,
    )
    loaded: Model = model
    check_numbers(source, loaded.state_dict())
    return loaded


def index_files(index: Path) -> list[str]:
    """The names of the files that a model's weights are spread over, all beside their index.

    Raises ValueError for an index that is damaged, or names a file elsewhere.
    """
    listed = read_object(index).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise ValueError(
            f"{index} is damaged: expected weight_map, the file of each weight; bring "
            "the model again"
        )
    names = sorted(set(listed.values()))
    if odd := [name for name in names if Path(name).name != name or name in ("", "..")]:
        raise ValueError(
            f"{index} lists {odd[0]!r:.80}, which leaves its folder: expected names of files "
            "beside it; bring the model again, as it was published"
        )
    return names


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the libraries' messages about weights that do not fit, hundreds for a large model:
    they become errors here."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def fill(model: nn.Module, tensors: Mapping[str, Tensor], source: str,
         optional: tuple[str, ...] = ()) -> None:  # fmt: skip
    """Loads all weights of a model. Raises ValueError unless names and shapes agree and all
    numbers are finite.

    source: named in errors. optional: parts of names that either side may lack.
    """
    own = model.state_dict()
    account(
        source,
        own.keys() - tensors.keys(),
        tensors.keys() - own.keys(),
        [
            shapes_of(name, tensors[name].shape, own[name].shape)
            for name in own
            if name in tensors and own[name].shape != tensors[name].shape
        ],
        optional=optional,
    )
    check_numbers(source, tensors)
    model.load_state_dict(tensors, strict=False)


def shapes_of(name: str, given: Sequence[int], expected: Sequence[int]) -> str:
    """A weight of another shape, as `account` names it."""
    return f"{name}: {list(given)}, expected {list(expected)}"


def account(source: str, missing: Iterable[str], unexpected: Iterable[str],
            mismatched: Iterable[str], dropped: Sequence[str] = (),
            optional: Sequence[str] = (), computed: Sequence[str] = COMPUTED) -> None:  # fmt: skip
    """Raises ValueError, naming them, when there are weights that do not fit.

    dropped: prefixes of names that do not count. optional, computed: parts of names likewise.
    """
    free = (*computed, *optional)

    def counted(names: Iterable[str]) -> list[str]:
        return sorted(
            str(name)
            for name in names
            if not any(part in str(name) for part in free)
            and not str(name).startswith(tuple(dropped))
        )

    kinds = {
        "of its weights are missing": counted(missing),
        "are unknown": counted(unexpected),
        "have another shape": counted(mismatched),
    }
    odd = [
        f"{len(names)} {what} ({', '.join(names[:3])})" for what, names in kinds.items() if names
    ]
    if not odd:
        return
    lora = any("lora_" in name or "base_layer" in name for name in kinds["are unknown"])
    raise ValueError(
        f"{source}: weights of another model: {', '.join(odd)}. {LORA if lora else ANOTHER}"
    )


def check_numbers(source: str, tensors: Mapping[str, Tensor]) -> None:
    """Raises ValueError, naming the first, when a weight has NaN or infinite numbers."""
    for name, value in tensors.items():
        # The sum is finite if all numbers are, and is read at the memory's speed.
        if value.is_floating_point() and not math.isfinite(value.sum(dtype=torch.float32)):
            raise ValueError(
                f"{source}: the weight {name} has NaN or infinite numbers: bring the "
                "model again, or from before it was converted to another dtype"
            )


def check_finite(values: Tensor, what: str, advice: str) -> None:
    """Raises NotFinite unless all numbers are finite. what: in words, with the settings it has."""
    if not torch.isfinite(values).all():
        stop_for_numbers(what, advice)


def check_loss(loss: float, what: str) -> None:
    """Raises NotFinite unless a training's loss is a finite number."""
    if not math.isfinite(loss):
        stop_for_numbers(
            f"the loss of {what}",
            "lower its learning_rate, or set its precision to "
            "bfloat16 or float32; the data may have it too: look at its checks",
        )


def stop_for_numbers(what: str, advice: str) -> NoReturn:
    """Raises the NotFinite of `check_finite`."""
    raise NotFinite(f"{what}: expected finite numbers, got NaN or infinite ones; {advice}")
