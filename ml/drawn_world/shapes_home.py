"""Household objects: one function a class, drawn with a `Pen`.

Seats differ by outline: a chair is tall, narrow and open between its legs, a sofa wide and solid, a
dining table a wide slab on legs with a laid top.
"""

from ml.drawn_world.shapes_pen import (
    CREAM,
    INK,
    METAL,
    NAMED_COLOURS,
    WOOD,
    Pen,
    jitter_colour,
    luminance,
    shade,
)

TERRACOTTA = (206, 110, 74)


def bottle(pen: Pen) -> None:
    w = pen.vary(0.3, 0.36)
    neck = max(0.13, pen.thin * 0.6)
    shoulder = pen.vary(-0.34, -0.16)
    pen.poly(
        pen.main, (-neck, -0.86), (neck, -0.86), (neck, shoulder - 0.2), (w, shoulder + 0.14),
        (w, 0.9), (w - 0.08, 0.98), (-w + 0.08, 0.98), (-w, 0.9), (-w, shoulder + 0.14),
        (-neck, shoulder - 0.2),
    )  # fmt: skip
    cap = pen.pick([(224, 80, 70), INK, (246, 198, 80)])
    pen.box(cap, -neck - 0.05, -1.0, neck + 0.05, -0.76, 0.04)
    label = CREAM if luminance(pen.main) < 200 else pen.pick([(232, 110, 90), (96, 150, 200)])
    pen.box(label, -w, 0.22, w, 0.66)


def chair(pen: Pen) -> None:
    """Seen from the side and a little from above: back, seat, four legs."""
    leg = WOOD if pen.maybe(0.5) else shade(pen.main, 0.66)
    seat = pen.vary(0.0, 0.12)
    w = 0.15
    pen.line(shade(leg, 0.8), w, (-0.24, seat), (-0.24, 0.78))
    pen.line(shade(leg, 0.8), w, (0.54, seat), (0.54, 0.78))
    pen.line(leg, w, (-0.5, seat), (-0.5, 0.92))
    pen.line(leg, w, (0.3, seat), (0.3, 0.92))
    pen.poly(pen.main, (-0.58, -0.96), (-0.26, -0.98), (-0.2, seat), (-0.56, seat + 0.1))
    pen.poly(
        shade(pen.main, 0.84), (-0.56, seat + 0.08), (-0.24, seat - 0.12), (0.64, seat - 0.12),
        (0.42, seat + 0.08), (0.42, seat + 0.22), (-0.56, seat + 0.22),
    )  # fmt: skip


def diningtable(pen: Pen) -> None:
    wood = pen.main
    leg = shade(wood, 0.74)
    top = pen.vary(-0.22, -0.12)
    for x in (-0.5, 0.5):
        pen.line(shade(wood, 0.6), 0.14, (x, top), (x, 0.5))
    for x in (-0.8, 0.8):
        pen.line(leg, 0.17, (x, top + 0.24), (x, 0.72))
    pen.poly(wood, (-0.7, top - 0.12), (0.7, top - 0.12), (0.98, top + 0.2), (-0.98, top + 0.2))
    pen.box(leg, -0.98, top + 0.2, 0.98, top + 0.36)
    dish = pen.pick([(250, 250, 250), (120, 170, 210), (240, 150, 120)])
    if luminance(wood) > 200:
        dish = (96, 150, 200)
    x = pen.vary(-0.25, 0.25)
    for dx, colour in ((-0.14, "red"), (0.14, "green"), (0.0, "orange")):
        pen.disc(NAMED_COLOURS[colour], x + dx, top - 0.2 - 0.08 * (dx == 0), 0.14)
    pen.poly(dish, (x - 0.36, top - 0.18), (x + 0.36, top - 0.18), (x + 0.18, top + 0.06),
             (x - 0.18, top + 0.06))  # fmt: skip


def pottedplant(pen: Pen) -> None:
    pot = jitter_colour(pen.rng, TERRACOTTA)
    leaf = jitter_colour(pen.rng, (82, 162, 92))
    dark = shade(leaf, 0.76)
    spread = pen.vary(0.85, 1.1)
    long = pen.vary(0.42, 0.5)
    for angle, x, y, colour in (
        (-90, 0.0, -0.5, dark),
        (-128, -0.32, -0.38, leaf),
        (-52, 0.32, -0.38, leaf),
        (-160, -0.44, -0.02, dark),
        (-20, 0.44, -0.02, dark),
        (-108, -0.1, -0.2, leaf),
    ):
        pen.ellipse(colour, x * spread, y, long, 0.19, angle)
    pen.poly(pot, (-0.42, 0.26), (0.42, 0.26), (0.3, 0.96), (-0.3, 0.96))
    pen.box(shade(pot, 0.84), -0.5, 0.2, 0.5, 0.42, 0.05)


def sofa(pen: Pen) -> None:
    cloth, dark = pen.main, shade(pen.main, 0.78)
    top = pen.vary(-0.62, -0.5)
    for x in (-0.74, 0.74):
        pen.line(WOOD, 0.14, (x, 0.5), (x, 0.64))
    pen.box(dark, -0.84, top, 0.84, 0.3, 0.18)
    pen.box(cloth, -0.7, -0.06, -0.02, 0.28, 0.1)
    pen.box(cloth, 0.02, -0.06, 0.7, 0.28, 0.1)
    pen.box(shade(cloth, 0.88), -0.9, 0.22, 0.9, 0.54, 0.06)
    for x in (-0.98, 0.66):
        pen.box(cloth, x, -0.18, x + 0.32, 0.56, 0.16)
    if pen.maybe(0.5):
        x = pen.pick([-0.36, 0.36])
        pillow = CREAM if luminance(cloth) < 215 else (246, 178, 110)
        pen.poly(pillow, (x - 0.2, -0.28), (x + 0.2, -0.34), (x + 0.24, 0.06), (x - 0.18, 0.1))


def tvmonitor(pen: Pen) -> None:
    frame = pen.pick([INK, (84, 88, 100)])
    low = 0.5
    sky = pen.main
    pen.box(shade(METAL, 0.8), -0.14, low, 0.14, 0.78)
    pen.box(shade(METAL, 0.8), -0.44, 0.68, 0.44, 0.84, 0.05)
    pen.box(frame, -0.98, -0.72, 0.98, low + 0.08, 0.1)
    edge = max(0.12, 0.6 * pen.thin)
    x0, y0, x1, y1 = -0.98 + edge, -0.72 + edge, 0.98 - edge, low + 0.08 - edge
    pen.box(sky, x0, y0, x1, y1)
    hill = shade(sky, 0.62) if luminance(sky) > 110 else shade(sky, 1.4)
    pen.disc(shade(sky, 1.6) if luminance(sky) < 215 else (250, 190, 80), 0.4, -0.3, 0.2)
    peak = pen.vary(-0.5, -0.1)
    pen.poly(hill, (x0, y1), (x0, 0.12), (peak, -0.24), (peak + 0.5, 0.14), (x1, -0.02), (x1, y1))
