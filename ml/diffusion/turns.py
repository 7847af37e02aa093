"""Turns at a diffusion model: one thread at a time uses it, the others wait.

Hooks, attention processors, the scheduler's steps and the tokenizer's padding are state of the
model itself: two threads at once would read each other's features. Locks lie beside the models, not
in them, so that a pipeline can be copied and pickled.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from torch import nn

from ml.diffusion.backbones.kinds import denoiser
from ml.diffusion.pipeline import Pipeline

Given = ParamSpec("Given")
Result = TypeVar("Result")


@dataclass
class _Turns:
    lock: Any = field(default_factory=threading.RLock)
    in_callback: bool = False  # read and written by the thread that has the lock


_known: WeakKeyDictionary[nn.Module, _Turns] = WeakKeyDictionary()
_adding = threading.Lock()


def _turns(pipe: Pipeline) -> _Turns:
    """Of the denoiser, which pipelines made of the same parts share."""
    with _adding:
        return _known.setdefault(denoiser(pipe), _Turns())


@contextmanager
def turn(pipe: Pipeline) -> Iterator[None]:
    """Within the block no other thread uses the model; a thread that has its turn may ask again.

    Raises ValueError within a callback of a drawing, which is not finished and would be spoilt.
    """
    own = _turns(pipe)
    with own.lock:
        if own.in_callback:
            raise ValueError(
                "callback_on_step_end: expected one that leaves the model alone, got one that uses "
                "it for something else in the middle of a drawing; finish the drawing first"
            )
        yield


@contextmanager
def callback_running(pipe: Pipeline) -> Iterator[None]:
    """Around a drawing's callback: this thread asks in vain for another turn meanwhile."""
    own = _turns(pipe)
    own.in_callback = True
    try:
        yield
    finally:
        own.in_callback = False


def in_turn(
    work: Callable[Concatenate[Pipeline, Given], Result],
) -> Callable[Concatenate[Pipeline, Given], Result]:
    """A function of a pipeline that waits for its turn."""

    @wraps(work)
    def waiting(pipe: Pipeline, /, *args: Given.args, **named: Given.kwargs) -> Result:
        with turn(pipe):
            return work(pipe, *args, **named)

    return waiting
