"""classes.txt and palette.txt of a user's folder: what the labels, or the colours, of masks mean.

Other tools write such lists with other first lines, numbers or colours; what is unambiguous is
accepted, the rest is refused with its line. Not here: the masks themselves.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ml.images.overlays import IGNORED
from ml.store.reading import read_text

BACKGROUND = {"background", "_background_", "__background__", "bg"}
NO_CLASS = {"__ignore__", "ignore", "ignored", "void", "unlabeled", "unlabelled", "none"}
"""Names of 255 in palettes; as a line of classes.txt they would shift every label after them."""
MOST = 254
LABELMAP = "labelmap.txt"
"""CVAT's, beside masks in the layout of VOC."""
_CVAT = re.compile(r"(?P<name>[^:]+):(?P<colour>\d+,\d+,\d+)?:[^:]*:[^:]*")
_LABELMAP = re.compile(r"(?P<name>.+):(?P<colour>\d+,\d+,\d+):[^:]*:[^:]*")
"""The same where a name may hold colons."""
_HEXADECIMAL = re.compile(r"#[0-9a-fA-F]{6}\s+\S")
_NUMBERED = re.compile(r"\d+\s*[\s:,;.)-]\s*\S")


def read_classes(file: Path) -> dict[int, str]:
    """label -> class of classes.txt: line n is label n. A first line `background` (labelme writes
    `__ignore__` before it) is label 0, lines that start with # and the end's blank ones are none.

    Raises ValueError with the line for any other list.
    """
    lines = list(_lines(file))
    while lines and not lines[-1][1]:
        lines.pop()
    first = [name.casefold() for _, name in lines[:2]]
    if first[:1] == ["__ignore__"] and first[1:] and first[1] in BACKGROUND:
        lines = lines[2:]
    elif first and first[0] in BACKGROUND:
        lines = lines[1:]
    if lines and all(_NUMBERED.match(name) for _, name in lines):
        raise ValueError(
            f"{file}, line {lines[0][0]}: {lines[0][1]!r} begins with a number, as "
            "all lines do; expected names alone, line n being label n"
        )
    if len(lines) == 1 and "," in lines[0][1] and not _CVAT.fullmatch(lines[0][1]):
        raise ValueError(
            f"{file}, line {lines[0][0]}: {lines[0][1]!r} is one line of several "
            "names; expected one class a line, line n being label n"
        )
    for number, name in lines:
        _require_name(file, number, name)
        if not name:
            raise ValueError(
                f"{file}, line {number}: blank between classes; expected one class a "
                "line, line n being label n. Remove the line, or name its label"
            )
        if name.casefold() in NO_CLASS | BACKGROUND:
            raise ValueError(
                f"{file}, line {number}: {name!r} is no class here; label 0 is "
                f"background and {IGNORED} is ignored, without a line (a first line "
                "`background` may stand for 0). Remove it and number the masks so"
            )
    return dict(enumerate(_distinct(file, [name for _, name in lines]), start=1))


def read_palette(file: Path) -> tuple[dict[int, str], dict[tuple[int, int, int], int]]:
    """(label -> class, colour -> label) of palette.txt, `128 0 0 forklift` a line, or of CVAT's
    labelmap.txt, `forklift:128,0,0::` a line.

    Black is background, white is ignored unless it is a class's, and so are the colours of
    `void` and its like. Raises ValueError with the line for anything else.
    """
    names: list[str] = []
    colours = {(0, 0, 0): 0}
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        line = _of_labelmap(file, line.strip())
        if _HEXADECIMAL.match(line):
            raise ValueError(
                f"{file}, line {number}: {line!r} begins with a colour as web pages "
                "write it, and a line that starts with # is a remark; write `red "
                "green blue class` (0..255)"
            )
        if not line or line.startswith("#"):
            continue
        parts = line.split(maxsplit=3)
        if len(parts) < 4 or not all(
            p.isascii() and p.isdecimal() and int(p) < 256 for p in parts[:3]
        ):
            _require_name(file, number, line)
            raise ValueError(
                f"{file}, line {number}: expected `red green blue class` (0..255), got {line!r}"
            )
        red, green, blue = (int(part) for part in parts[:3])
        colour, name = (red, green, blue), parts[3]
        black, background = colour == (0, 0, 0), name.casefold() in BACKGROUND
        if black and background:
            continue
        if black or background:
            raise ValueError(
                f"{file}, line {number}: colour {colour} of {name!r}: black is "
                "background and background is black; give every class a colour of "
                "its own"
            )
        if colour in colours:
            raise ValueError(
                f"{file}, line {number}: colour {colour} of {name!r} is listed twice; "
                "give every class a colour of its own"
            )
        if name.casefold() in NO_CLASS:
            colours[colour] = IGNORED
        else:
            names.append(name)
            colours[colour] = len(names)
    colours.setdefault((255, 255, 255), IGNORED)
    return dict(enumerate(_distinct(file, names), start=1)), colours


def _of_labelmap(file: Path, line: str) -> str:
    """A line of labelmap.txt as palette.txt would have it; any other as it is."""
    found = _LABELMAP.fullmatch(line) if file.name == LABELMAP else None
    if found is None:
        return line
    return f"{found['colour'].replace(',', ' ')} {found['name']}"


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """(number, text) of the lines that are no comments."""
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip().startswith("#"):
            yield number, line.strip()


def _require_name(file: Path, number: int, line: str) -> None:
    if found := _CVAT.fullmatch(line):
        colour = (found["colour"] or "128,0,0").replace(",", " ")
        raise ValueError(
            f"{file}, line {number}: {line!r} is a line of CVAT's labelmap.txt; write "
            f"`{colour} {found['name']}` into palette.txt instead"
        )
    if "\t" in line or not line.isprintable():
        raise ValueError(
            f"{file}, line {number}: {line!r} holds a tab or a control character; "
            "expected a class's name"
        )


def _distinct(file: Path, names: list[str]) -> list[str]:
    repeated = sorted(
        name for name, count in Counter(map(str.casefold, names)).items() if count > 1
    )
    if not names or repeated or len(names) > MOST:
        raise ValueError(
            f"{file}: expected 1 to {MOST} classes, each once; got {len(names)}, "
            f"repeated: {repeated}"
        )
    return names
