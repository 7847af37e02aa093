"""The graph of the stages as an inline SVG, each with the time it took; colours are the page's.

Rows from top to bottom: a stage stands as far down as what reads it allows. An arrow that others
imply is left out, one over several rows bends around what stands between (Sugiyama's layers).
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape

WIDE, HIGH, NARROW = 168, 44, 20
"""Pixels of a box, and the width of the lane that an arrow takes past a row."""
GAP, BELOW = 16, 30
"""Pixels between boxes beside and below one another."""
Inputs = Mapping[str, Sequence[str]]
Node = tuple[str, int]
"""A stage and its row; an arrow's lane past a row is named by both of its ends."""


def duration(seconds: float) -> str:
    """A time in words; 0 stands for one that was not recorded."""
    if not seconds:
        return "not recorded"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def needed(inputs: Inputs) -> dict[str, list[str]]:
    """The inputs of each stage that no other of its inputs reads already, directly or not."""
    behind = {name: set(_behind(name, inputs)) for name in inputs}
    return {
        name: [own for own in sources if not any(own in behind[o] for o in sources if o != own)]
        for name, sources in inputs.items()
    }


def _behind(name: str, inputs: Inputs) -> Iterator[str]:
    for source in inputs[name]:
        yield source
        yield from _behind(source, inputs)


def rows_of(inputs: Inputs) -> dict[str, int]:
    """The row of each stage, 0 at the top. inputs: a stage after what it reads, as in the table."""
    below: dict[str, int] = {}
    for name in reversed(list(inputs)):
        readers = [below[other] for other in inputs if name in inputs[other]]
        below[name] = 1 + max(readers, default=-1)
    deepest = max(below.values())
    return {name: deepest - below[name] for name in inputs}


def draw_graph(inputs: Inputs, seconds: Mapping[str, float]) -> str:
    """The `<svg>`. seconds: by stage, 0 where it is not known."""
    inputs = needed(inputs)
    rows = rows_of(inputs)
    arrows = [
        [
            (source, rows[source]),
            *((f"{source} {name}", row) for row in range(rows[source] + 1, rows[name])),
            (name, rows[name]),
        ]
        for name, sources in inputs.items()
        for source in sources
    ]
    places = _places(arrows, rows)
    width = max(x + (WIDE if name in rows else NARROW) / 2 for (name, _), x in places.items())
    height = (1 + max(rows.values())) * (HIGH + BELOW) - BELOW
    lines = [f'<path d="{_path(arrow, places)}"/>' for arrow in arrows]
    times = {name: duration(seconds.get(name, 0.0)) for name in rows}
    boxes = [
        f'<g transform="translate({places[name, row] - WIDE / 2:.0f} {row * (HIGH + BELOW)})">'
        f'<rect width="{WIDE}" height="{HIGH}" rx="8"/>'
        f'<text x="{WIDE / 2:.0f}" y="19">{escape(name)}</text>'
        f'<text class="time" x="{WIDE / 2:.0f}" y="35">{times[name]}</text></g>'
        for name, row in rows.items()
    ]
    return (
        f'<svg class="graph" viewBox="-2 -2 {width + 4:.0f} {height + 4}" '
        f'width="{width + 4:.0f}" height="{height + 4}">{"".join(lines)}{"".join(boxes)}</svg>'
    )


def _places(arrows: Sequence[Sequence[Node]], rows: Mapping[str, int]) -> dict[Node, float]:
    """The middle of each node, in pixels from the left; nodes of a row in the order of the middles
    of what they come from."""
    nodes = dict.fromkeys([(name, row) for name, row in rows.items()])
    nodes |= dict.fromkeys(node for arrow in arrows for node in arrow)
    above: dict[Node, list[Node]] = {node: [] for node in nodes}
    for arrow in arrows:
        for source, node in zip(arrow, arrow[1:], strict=False):
            above[node].append(source)
    place: dict[Node, float] = {}
    for row in range(1 + max(rows.values())):
        own = [node for node in nodes if node[1] == row]
        wanted = {
            node: sum(place[source] for source in above[node]) / len(above[node])
            if above[node]
            else float("inf")
            for node in own
        }
        own.sort(key=lambda node: (wanted[node], node[0] in rows))
        widths = [WIDE if node[0] in rows else NARROW for node in own]
        left = -(sum(widths) + GAP * (len(own) - 1)) / 2
        for node, width in zip(own, widths, strict=True):
            place[node] = left + width / 2
            left += width + GAP
    edge = min(x - (WIDE if node[0] in rows else NARROW) / 2 for node, x in place.items())
    return {node: x - edge for node, x in place.items()}


def _path(arrow: Sequence[Node], places: Mapping[Node, float]) -> str:
    """Down from the lower edge of the first box to the upper edge of the last, straight past the
    rows between."""
    x, y = places[arrow[0]], arrow[0][1] * (HIGH + BELOW) + HIGH
    path = f"M{x:.0f} {y}"
    for node in arrow[1:]:
        x2, top = places[node], node[1] * (HIGH + BELOW)
        path += f"C{x:.0f} {y + BELOW / 2:.0f} {x2:.0f} {top - BELOW / 2:.0f} {x2:.0f} {top}"
        x, y = x2, top + HIGH
        if node != arrow[-1]:
            path += f"V{y}"
    return path
