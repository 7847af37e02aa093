"""The allowed values of a setting, declared in its annotation, and the check of a value.

    steps: Annotated[int, Range(1, 10_000_000)]
    precision: Literal["float32", "bfloat16"]
    root: Annotated[str, TEXT] | None
    ignore_band: Annotated[list[Annotated[float, Range(0, 1)]], Length(2, 2)]

A range has two finite ends, so that NaN and infinity are in none. Libraries that check annotated
types (pydantic) take no mapping for a dataclass in strict mode and know no files and lines; these
are the few kinds that settings have.
"""

import re
import reprlib
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Literal

_short = reprlib.Repr()  # a YAML file of aliases can hold a value that is too large to write out
_short.maxstring = _short.maxother = 200


@dataclass(frozen=True)
class Range:
    """Numbers from low to high; above and below leave the end out."""

    low: float
    high: float
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        return (self.low < value if self.above else self.low <= value) and (
            value < self.high if self.below else value <= self.high
        )

    def __str__(self) -> str:
        first = f"{'above' if self.above else 'from'} {self.low:,}"
        last = "and below" if self.below else "and up to" if self.above else "to"
        return f"{first} {last} {self.high:,}"


@dataclass(frozen=True)
class Length:
    """Lists of so many values."""

    low: int
    high: int

    def holds(self, value: list[object]) -> bool:
        return self.low <= len(value) <= self.high

    def __str__(self) -> str:
        return f"{self.low}" if self.low == self.high else f"{self.low} to {self.high}"


@dataclass(frozen=True)
class Pattern:
    """Text that matches as a whole."""

    pattern: str
    description: str  # in words, for messages

    def holds(self, value: str) -> bool:
        return (
            value.isprintable()
            and value == value.strip()
            and len(value) <= 4096
            and re.fullmatch(self.pattern, value) is not None
        )

    def __str__(self) -> str:
        return self.description


TEXT = Pattern(r".+", "text (one line, not empty)")


def fit(value: object, hint: object) -> object:
    """The value, a whole number made a float where one is meant.

    Raises ValueError "expected ..., got ..." when it does not fit the annotation.
    """
    if not _fits(value, hint):
        raise ValueError(
            f"expected {describe(hint)}, got {_short.repr(value)}{_advice(value, hint)}"
        )
    return _converted(value, hint)


def describe(hint: object) -> str:
    """What an annotation takes, in words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " or ".join(", ".join(args).rsplit(", ", 1))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(kind) for kind in args)
    if origin is Annotated:
        kind, rule = args
        if kind is str:
            return str(rule)
        if typing.get_origin(kind) is list:
            return f"a list of {rule} values, each {describe(typing.get_args(kind)[0])}"
        return f"{'a whole number' if kind is int else 'a number'} {rule}"
    return {bool: "true or false", types.NoneType: "null"}[hint]


def _fits(value: object, hint: object) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _fits(value, args[0]) and args[1].holds(value)
    if origin is Literal:
        return isinstance(value, str) and value in args
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, kind) for kind in args)
    if origin is list:
        return isinstance(value, list) and all(_fits(item, args[0]) for item in value)
    return type(value) is hint or (hint is float and type(value) is int)


def _converted(value: object, hint: object) -> object:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is list and isinstance(value, list):
        return [_converted(item, args[0]) for item in value]
    if origin is Annotated or (origin in (typing.Union, types.UnionType) and value is not None):
        return _converted(value, args[0])
    return float(value) if hint is float and isinstance(value, int) else value


def _advice(value: object, hint: object) -> str:
    """How the value that was probably meant is written in YAML."""
    if isinstance(value, str) and not _fits(value, hint):
        try:
            meant = float(value)
        except ValueError:
            return ""
        number = int(meant) if meant.is_integer() and abs(meant) < 1e15 else meant
        fits = _fits(number, hint) or _fits(meant, hint)
        return f" as text; write {number!r}, without quotes" if fits else ""
    scalar = not isinstance(value, (list, dict, type(None), str))
    return "; put it in quotes" if scalar and _fits(str(value), hint) else ""
