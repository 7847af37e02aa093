"""Names as MLflow accepts them: class names of any characters, escaped reversibly.

MLflow accepts letters of any alphabet, digits, `_ - .` and spaces in a name of at most 250
characters, with `/` between the parts. Every other character becomes `_xHEX_` (as OOXML writes it),
so that "men's shoe" is stored as `men_x27_s shoe`. No two texts share a stored name.
"""

import hashlib
import re

MAX_LENGTH = 250  # of a metric's, a parameter's or a tag's key in MLflow
DIGEST = 16  # hex digits that stand for the end of a name that is too long
ESCAPE = re.compile(r"_x([0-9A-F]*)_")


def stored(*parts: str) -> str:
    """A path of texts, one part or several, as one name that MLflow accepts.

    A name that would be too long is cut and ends in `_xsha` and a digest of the whole. `typed`
    can't undo that, so that `aliases` keeps the texts of such names.
    """
    name = "/".join(_escape(part) for part in parts)
    if len(name) <= MAX_LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:DIGEST]
    return f"{name[: MAX_LENGTH - DIGEST - 5]}_xsha{digest}"


def typed(name: str) -> tuple[str, ...]:
    """The parts that `stored` was given. Raises ValueError for a name that was cut."""
    if "_xsha" in name:
        raise ValueError(
            f"{name!r} is the beginning of a longer name: expected a whole one; the "
            "texts of its run are in the artifact names.json"
        )
    return tuple(ESCAPE.sub(_unescape, part) for part in name.split("/"))


def aliases(paths: list[tuple[str, ...]]) -> dict[str, list[str]]:
    """The texts by stored name, of the names that are not stored as they were typed."""
    return {name: list(path) for path in paths if (name := stored(*path)) != "/".join(path)}


def _escape(part: str) -> str:
    # `_x` itself is escaped wherever it stands, so that an escape can be nothing else.
    part = re.sub(r"_(?=x)|[^\w.\- ]", lambda found: _code(found[0]), part)
    part = re.sub(r"^ | $", _code_of, part)  # some databases compare without the spaces at the end
    return re.sub(r"^\.(?=\.*$)", _code_of, part) or "_x_"  # "." and ".." mean folders in a path


def _code(character: str) -> str:
    return f"_x{ord(character):X}_"


def _code_of(found: re.Match) -> str:
    return _code(found[0])


def _unescape(found: re.Match) -> str:
    return chr(int(found[1], 16)) if found[1] else ""
