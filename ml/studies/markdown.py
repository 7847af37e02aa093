"""Blocks as GitHub markdown, and how a figure is written: its decimals, spread, interval, paper's.

Whatever a study says is text: it is escaped, and only `code` between backticks is code.
"""

import math
import re
from collections.abc import Callable

from ml.studies.blocks import Cell, Table
from ml.words.markdown import escape

NONE = "–"
"""Where there is no figure."""


def number(value: float | None, digits: int = 1) -> str:
    """A figure in so many decimals, NONE where it is not finite. Never "-0.0"."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{round(value, digits) + 0.0:.{digits}f}"


def parts(cell: Cell | None, digits: int = 1) -> tuple[str, str, str]:
    """ "55.7 ± 1.2", "[53.1, 58.0]" and the paper's "48.0"; "" for what a cell does not have."""
    if cell is None:
        return NONE, "", ""
    said = number(cell.value, digits)
    if cell.spread is not None and said != NONE:
        said += f" ± {number(cell.spread, digits)}"
    between = ""
    if cell.low is not None and cell.high is not None and said != NONE:
        between = f"[{number(cell.low, digits)}, {number(cell.high, digits)}]"
    return said, between, "" if cell.paper is None else number(cell.paper, digits)


def mixed(text: str, plain: Callable[[str], str], code: Callable[[str], str]) -> str:
    """Text with `code` between backticks, each kind of part through its function. A backtick
    without a partner is text."""
    pieces = re.split(r"`([^`]+)`", text.strip())
    return "".join(code(p) if i % 2 else plain(p) for i, p in enumerate(pieces))


def prose(text: str) -> str:
    """A paragraph: escaped, with `code` kept."""
    return mixed(text, escape, lambda code: f"`{code}`")


def table(block: Table) -> str:
    """A table, with interval and the paper's figure below each of ours."""
    lines = [["", *map(escape, block.columns.values())], ["---"] + ["--:"] * len(block.columns)]
    for row in block.rows:
        cells = []
        for name in block.columns:
            said, between, paper = parts(row.cells.get(name), block.digits(name))
            said += f" <sub>{between}</sub>" * bool(between)
            cells.append(said + f"<br>paper {paper}" * bool(paper))
        lines.append([escape(row.label), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain_rows(block: Table) -> list[str]:
    """Its rows for a terminal, a line a figure."""
    lines = []
    for row in block.rows:
        lines.append(f"{block.title}: {row.label}")
        width = max(map(len, block.columns.values()), default=0)
        for name, heading in block.columns.items():
            said, between, paper = parts(row.cells.get(name), block.digits(name))
            own = [said, between, f"paper {paper}" if paper else ""]
            lines.append(f"  {heading:<{width}}  " + "  ".join(part for part in own if part))
    return lines
