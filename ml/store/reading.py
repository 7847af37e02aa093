"""Text and YAML files of users: read in one way everywhere, or refused with file and line.

A byte-order mark is no part of the text, a file that is not UTF-8 is refused, and a key that
stands twice in a YAML mapping is an error, not the loss of the first. A device, a pipe, or a file
that was made to fill memory is refused before it is read.
"""

import copy
import functools
import json
import os
import re
import stat
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

MOST_VALUES = 100_000
"""Of a YAML file, aliases followed: a few lines of them can stand for more than memory holds."""
MOST_BYTES = 64 << 20
"""Of a text file: half a million long lines."""
Found = TypeVar("Found")
KEPT_TEXTS, KEPT_LENGTH = 64, 1 << 16
"""How many YAML texts' values are kept in memory, and of how many characters at most."""
MOST_SETTINGS = 16 << 20
"""Of a YAML file or a model's JSON, whose values take some thirty times their bytes."""


def read_text(file: Path | str, most: int = MOST_BYTES) -> str:
    """The text of a user's file, UTF-8 with or without a byte-order mark; line ends are \\n.

    Raises ValueError naming the file when it is missing, no plain file, of more than `most` bytes,
    unreadable or not UTF-8.
    """
    file = Path(file)
    try:
        data = _bytes(file, most)
    except OSError as error:
        raise ValueError(
            f"{file} can't be read: {error.strerror or error}; expected a text file"
        ) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{file}, line {line}: not UTF-8 ({error.reason}); save it as UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _bytes(file: Path, most: int) -> bytes:
    """The bytes of a plain file. ValueError for a pipe or a device, whose end nobody knows."""
    with open(
        file, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)
    ) as handle:
        state = os.fstat(handle.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise ValueError(f"{file} is no plain file: expected a text file; copy it into one")
        if state.st_size > most:
            raise ValueError(
                f"{file} has {state.st_size:,} bytes, expected {most:,} at most: is it the file "
                "that is meant?"
            )
        return handle.read()


def read_yaml(file: Path | str) -> object:
    """What a user's YAML file holds, as plain data; None when it is empty.

    Raises ValueError with file and line for what `read_text` refuses, for broken YAML and for a
    key that stands twice.
    """
    text = read_text(file, MOST_SETTINGS)
    try:
        return copy.deepcopy(_bounded(_loaded(text), file))
    except RecursionError as error:
        raise ValueError(
            f"{file}: nested too deeply; expected settings or lists of words"
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        raise ValueError(
            f"{file}{place}: not valid YAML: {getattr(error, 'problem', error)}"
        ) from error


def _kept(read: Callable[[str], Found]) -> Callable[[str], Found]:
    """Remembers what was made of texts, short ones: a profile's files are read at every step of a
    run, at 10 ms and more."""
    remembered = functools.lru_cache(KEPT_TEXTS)(read)
    return lambda text: remembered(text) if len(text) <= KEPT_LENGTH else read(text)


@_kept
def _loaded(text: str) -> object:
    return yaml.load(text, Loader=_Strict)


def read_object(file: Path | str) -> dict[str, Any]:
    """The object in a JSON file that people bring (a model's configuration).

    Raises ValueError naming the file for what `read_text` refuses and for anything else.
    """
    text = read_text(file, MOST_SETTINGS)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged ({error}): expected JSON; bring it again") from error
    if not isinstance(values, dict):
        raise ValueError(
            f"{file} is damaged: it holds a {type(values).__name__}, expected an "
            "object; bring it again"
        )
    return values


@contextmanager
def configured(source: str) -> Iterator[None]:
    """For a block in which a library makes a model, or a part of one, from a user's files. Errors
    of the library for unusable files become ValueError naming the source."""
    try:
        yield
    except (ImportError, MemoryError, OSError):
        raise
    except Exception as error:  # each class and each validator of theirs has kinds of its own
        if type(error).__name__ in (
            "OutOfMemoryError",
            "SafetensorError",
        ):
            raise
        raise ValueError(
            f"{source}: no model can be made of it ({type(error).__name__}: {error}). "
            "Bring it again, as it was published"
        ) from error


def _bounded(value: object, file: Path | str) -> object:
    """The value itself. Raises ValueError when aliases make too much of it, or lead in a circle."""
    open_, count = [value], 0
    while open_:
        one, count = open_.pop(), count + 1
        if count > MOST_VALUES:
            raise ValueError(
                f"{file}: more than {MOST_VALUES:,} values, or aliases (*name) that "
                "lead back to themselves; write out what is meant"
            )
        open_ += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
    return value


class _Strict(yaml.SafeLoader):
    """SafeLoader that refuses a key that stands twice, and numbers that YAML 1.1 reads otherwise
    than people do: 010 is 8, 1:30 is 90. It stops at MOST_VALUES, which take it seconds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.nodes = getattr(self, "nodes", 0) + 1
        if self.nodes > MOST_VALUES:
            raise yaml.composer.ComposerError(None, None, f"more than {MOST_VALUES:,} values")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            known = str(key)
            if known in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice; keep one", key_node.start_mark
                )
            seen.add(known)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if re.fullmatch(r"[-+]?(0|[1-9][0-9_]*)", node.value) is None:
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"{node.value} is not a decimal number; quote it if it is text, "
                "else write its digits",
                node.start_mark,
            )
        return super().construct_yaml_int(node)


_Strict.add_constructor("tag:yaml.org,2002:int", _Strict.construct_yaml_int)


def yaml_lines(file: Path | str) -> dict[str, int]:
    """Where the keys of a YAML file stand: lines by "key", "key.key", ..., counted from 1.

    Keys that come from an alias or a merge key have no line of their own. For a file that
    `read_yaml` has read.
    """
    return dict(_lines(read_text(file)))


@_kept
def _lines(text: str) -> dict[str, int]:
    lines: dict[str, int] = {}
    _note_lines(yaml.compose(text, Loader=yaml.SafeLoader), "", lines)
    return lines


def _note_lines(node: yaml.Node | None, above: str, lines: dict[str, int]) -> None:
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        lines[f"{above}{key.value}"] = key.start_mark.line + 1
        if value.start_mark.index > key.start_mark.index:  # an alias leads back, maybe in a circle
            _note_lines(value, f"{above}{key.value}.", lines)
