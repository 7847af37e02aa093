"""One matrix of a struct out of a MATLAB 5 file, as SBD publishes its masks.

scipy.io.loadmat reads these in C and trusts the lengths that the file states: a damaged one ends
the process with a segmentation fault. Here every length is compared with the bytes that are there.
Not here: other kinds of variables, or MATLAB's HDF5 files (7.3).
"""

import struct
import zlib
from collections.abc import Iterator
from math import prod

import numpy as np

HEADER = 128
MOST_BYTES = 64 << 20
"""Of one variable, unpacked; SBD's masks have a quarter of a million pixels."""
NUMBERS = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
MATRIX, COMPRESSED = 14, 15
STRUCT_CLASS, NUMERIC_CLASSES, COMPLEX = 2, range(6, 16), 0x800


def read_struct_matrix(data: bytes, variable: str, field: str) -> np.ndarray:
    """The numbers (H,W) of `variable.field`. data: a whole file.

    Raises ValueError for bytes that are not such a file, are cut off, or hold no such field.
    """
    if data[:8] == b"\x89HDF\r\n\x1a\n" or b"MATLAB 7.3" in data[:HEADER]:
        raise ValueError("MATLAB 7.3 is another format; save it with -v7")
    order = {b"IM": "<", b"MI": ">"}.get(data[HEADER - 2 : HEADER])
    if order is None or len(data) <= HEADER:
        raise ValueError(f"no MATLAB 5 file: {len(data)} bytes without its header")
    for kind, body in _elements(data[HEADER:], order):
        if kind == COMPRESSED:
            kind, body = next(_elements(_unpacked(body), order), (0, b""))
        if kind == MATRIX:
            found = _parts(body, order)
            if found.name == variable:
                return _numbers(_field(found, field, order), order)
    raise ValueError(f"no variable {variable}")


class _Matrix:
    """The head of a matrix element and what follows it."""

    def __init__(self, flags: int, dims: tuple[int, ...], name: str, rest: list[tuple[int, bytes]]):
        self.kind, self.flags, self.dims, self.name, self.rest = (
            flags & 0xFF,
            flags,
            dims,
            name,
            rest,
        )


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, bytes) of the elements that follow one another."""
    place = 0
    while place < len(data):
        if place + 8 > len(data):
            raise ValueError("it ends within an element's head")
        kind, size = struct.unpack_from(order + "II", data, place)
        if kind >> 16:  # up to four bytes, kept in the head itself
            kind, size, start, after = kind & 0xFFFF, kind >> 16, place + 4, place + 8
            if size > 4:
                raise ValueError("an element's length is damaged")
        else:
            start = place + 8
            after = start + size if kind == COMPRESSED else start + -(-size // 8) * 8
        if start + size > len(data):
            raise ValueError(f"it ends within an element: {start + size - len(data)} bytes miss")
        yield kind, data[start : start + size]
        place = after


def _unpacked(body: bytes) -> bytes:
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(body, MOST_BYTES)
    except zlib.error as error:
        raise ValueError(f"packed bytes are damaged: {error}") from error
    if not stream.eof:
        raise ValueError("packed bytes are cut off, or far too many")
    return data


def _parts(body: bytes, order: str) -> _Matrix:
    parts = list(_elements(body, order))
    if len(parts) < 3 or len(parts[0][1]) != 8 or len(parts[1][1]) % 4:
        raise ValueError("a matrix has no head")
    (flags,) = struct.unpack_from(order + "I", parts[0][1])
    dims = tuple(np.frombuffer(parts[1][1], order + "i4").tolist())
    return _Matrix(flags, dims, parts[2][1].decode("ascii", "replace"), parts[3:])


def _field(found: _Matrix, field: str, order: str) -> _Matrix:
    if found.kind != STRUCT_CLASS or prod(found.dims) != 1 or len(found.rest) < 2:
        raise ValueError(f"{found.name} is no struct of one element")
    (_, width), (_, names), *values = found.rest
    length = int.from_bytes(width, "little" if order == "<" else "big")
    if not 0 < length <= 64:
        raise ValueError(f"field names of {length} characters")
    fields = [
        names[i : i + length].split(b"\0")[0].decode("ascii", "replace")
        for i in range(0, len(names), length)
    ]
    if field not in fields or len(values) != len(fields):
        raise ValueError(
            f"{found.name} has {len(values)} values for the fields {fields[:8]}; "
            f"expected {field} among them"
        )
    kind, body = values[fields.index(field)]
    if kind != MATRIX:
        raise ValueError(f"{field} is no matrix")
    return _parts(body, order)


def _numbers(found: _Matrix, order: str) -> np.ndarray:
    kind, body = found.rest[0] if found.rest else (0, b"")
    if found.kind not in NUMERIC_CLASSES or found.flags & COMPLEX or kind not in NUMBERS:
        raise ValueError("its values are no plain numbers")
    dtype = np.dtype(order + NUMBERS[kind])
    if (
        len(found.dims) != 2
        or min(found.dims) < 1
        or prod(found.dims) * dtype.itemsize != len(body)
    ):
        raise ValueError(f"{len(body)} bytes for a matrix of {found.dims}")
    return np.frombuffer(body, dtype).reshape(found.dims, order="F")
