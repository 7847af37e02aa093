"""What hypothesis brings to readers and functions: bytes near to sound ones, structures of any
values, hostile texts. And what is judged: one clear error of a documented kind, nothing written.

Whether an input is nonsense or sound, only families (`tests.fuzz.families`) know; here no input may
end in a traceback. `make fuzz` looks for many times more inputs than the suite does.
"""

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from ml.errors import INPUT, STAGE, exit_code, one_line, shown

TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        (
            "\u202e\x1b[31m",
            "../../x",
            "/etc/passwd",
            "~root",
            "dog, cat",
            "a dog",
            "İ",
            "e\u0301",
            "{0}%s$x$",
            "<script>",
            "\ud800",
            "x" * 300,
            "_x41_",
            "'; drop",
            "models:/x@y",
            "sqlite:///x",
            "http://a:b@c",
        )
    ),
)
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.integers(-3, 300),
    st.floats(allow_nan=True, allow_infinity=True),
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=8,
)


def damaged(sound: bytes) -> st.SearchStrategy[bytes]:
    """Sound bytes with some changed, cut off, doubled or put in."""
    place = st.integers(0, max(0, len(sound) - 1))
    changes = st.lists(st.tuples(place, st.integers(0, 255)), max_size=8)
    cut = st.one_of(st.just(len(sound)), place)

    def apply(given: tuple[list[tuple[int, int]], int, bytes]) -> bytes:
        edits, end, extra = given
        data = bytearray(sound)
        for at, value in edits:
            data[at] = value
        return bytes(data[:end]) + extra

    return st.tuples(changes, cut, st.binary(max_size=20)).map(apply)


def paths(value: Any, above: tuple = ()) -> list[tuple]:
    """Where the parts of a structure stand."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [above, *(path for key, part in inner for path in paths(part, (*above, key)))]


@st.composite
def altered(draw: st.DrawFn, sound: Any) -> Any:
    """A sound structure in which up to two parts are replaced, or taken out."""
    value = copy.deepcopy(sound)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(paths(value)))
        new = draw(VALUES)
        if not path:
            return new
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        if draw(st.booleans()) or isinstance(holder, list):
            holder[path[-1]] = new
        else:
            del holder[path[-1]]
    return value


def as_json(value: object) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def files_below(folder: Path) -> list[str]:
    return sorted(
        os.path.join(place, name) for place, _, names in os.walk(folder) for name in names
    )


def clear(read: Callable[[], object], folder: Path | None = None) -> object:
    """What it returns; None where it refused, in one clear error and without a file written."""
    before = files_below(folder) if folder else None
    try:
        return read()
    except Exception as error:
        code = exit_code(error)
        if code not in (INPUT, STAGE):
            raise
        said = shown(one_line(error))
        assert said.strip() and "\n" not in said and len(said) <= 10_100, said
        return None
    finally:
        assert before == (files_below(folder) if folder else None)
