"""Vehicles: one function a class, drawn with a `Pen`, facing right.

Proportions vary by `pen.vary`; the order of the calls is the order of painting, back to front.
"""

from ml.drawn_world.shapes_pen import CREAM, GLASS, INK, METAL, NAMED_COLOURS, Pen, luminance, shade

LAMP = (255, 226, 130)


def aeroplane(pen: Pen) -> None:
    body = pen.main
    accent = pen.pick([NAMED_COLOURS[name] for name in ("red", "orange", "blue", "yellow")])
    wing = accent if luminance(body) > 200 else shade(body, 0.7)
    h = pen.vary(0.25, 0.3)
    reach = pen.vary(0.7, 0.84)
    pen.poly(wing, (0.34, -0.1), (-0.12, -0.66), (-0.42, -0.66), (-0.2, -0.1))
    pen.poly(wing, (-0.44, -h + 0.06), (-0.7, -0.82), (-1.0, -0.82), (-0.9, 0.0))
    pen.box(body, -0.5, -h, 0.98, h, h)
    pen.poly(body, (-0.98, -h), (0.6, -h), (0.6, h), (-0.3, h), (-0.6, 0.16), (-0.98, -0.12))
    glass = shade(GLASS, 0.72)
    pen.poly(glass, (0.6, -h + 0.06), (0.74, -h + 0.06), (0.92, -0.04), (0.6, -0.04))
    r = max(0.085, pen.dot)
    for x in (-0.36, -0.06, 0.24):
        pen.disc(glass, x, -0.09, r)
    pen.poly(shade(wing, 0.88), (0.42, 0.06), (-0.02, 0.06), (-0.46, reach), (-0.08, reach))


def bicycle(pen: Pen) -> None:
    small = pen.thin > 0.2
    r = 0.48 if small else pen.vary(0.44, 0.48)
    y, width = 0.34, 0.13
    for x in (-0.52, 0.52):
        pen.ring(INK, x, y, r, width)
    seat, head, crank = (-0.26, -0.3), (0.36, -0.34), (0.0, y)
    if small:  # two strokes fewer: five of 3 px would fill a frame that is 12 px wide
        pen.line(pen.main, width, (-0.52, y), (-0.26, -0.22), (0.34, -0.22), (0.52, y))
    else:
        pen.line(pen.main, width, (-0.52, y), seat, head, (0.52, y))
        pen.line(pen.main, width, seat, crank, head)
        pen.line(pen.main, width, (-0.28, -0.42), seat)
    pen.line(pen.main, width, head, (0.3, -0.6))
    pen.line(INK, width, (0.3, -0.64), (0.58, -0.74))
    pen.line(INK, 0.17, (-0.48, -0.5), (-0.14, -0.5))


def boat(pen: Pen) -> None:
    sail = pen.pick([CREAM, (250, 250, 250), (255, 224, 178), (214, 232, 244)])
    if luminance(pen.main) > 225:
        sail = (246, 178, 150)
    mast = pen.vary(-0.12, 0.08)
    pen.line((130, 92, 66), 0.1, (mast, 0.4), (mast, -0.9))
    pen.poly(sail, (mast + 0.1, -0.92), (mast + pen.vary(0.7, 0.82), 0.26), (mast + 0.1, 0.26))
    back = mast - pen.vary(0.52, 0.66)
    pen.poly(shade(sail, 0.87), (mast - 0.1, -0.6), (mast - 0.1, 0.26), (back, 0.26))
    pen.poly(pen.main, (-0.98, 0.36), (0.98, 0.36), (0.66, 0.86), (-0.7, 0.86))
    pen.poly(shade(pen.main, 0.76), (-0.82, 0.64), (0.8, 0.64), (0.66, 0.86), (-0.7, 0.86))


def _wheels(pen: Pen, xs: tuple[float, ...], y: float, r: float) -> None:
    for x in xs:
        pen.disc(INK, x, y, r)
        pen.disc(METAL, x, y, r * 0.48)


def bus(pen: Pen) -> None:
    top = pen.vary(-0.72, -0.6)
    pen.box(pen.main, -0.98, top, 0.98, 0.5, 0.14)
    pen.box(shade(pen.main, 0.8), -0.98, 0.26, 0.98, 0.5, 0.08)
    for x in (-0.84, -0.42, 0.0):
        pen.box(GLASS, x, top + 0.2, x + 0.34, -0.08, 0.05)
    pen.box(GLASS, 0.44, top + 0.2, 0.9, 0.0, 0.05)
    pen.disc(LAMP, 0.88, 0.26, max(0.08, pen.dot))
    _wheels(pen, (-0.52, 0.52), 0.5, 0.24)


def car(pen: Pen) -> None:
    roof = pen.vary(-0.52, -0.42)
    pen.poly(
        pen.main, (-0.72, -0.02), (-0.5, roof + 0.04), (-0.38, roof), (0.22, roof),
        (0.34, roof + 0.04), (0.66, -0.02),
    )  # fmt: skip
    pen.poly(GLASS, (-0.56, -0.02), (-0.38, roof + 0.13), (-0.1, roof + 0.13), (-0.1, -0.02))
    pen.poly(GLASS, (0.06, -0.02), (0.06, roof + 0.13), (0.24, roof + 0.13), (0.48, -0.02))
    pen.box(pen.main, -0.98, -0.06, 0.98, 0.42, 0.16)
    pen.box(shade(pen.main, 0.8), -0.96, 0.22, 0.96, 0.42, 0.1)
    pen.disc(LAMP, 0.88, 0.08, max(0.08, pen.dot))
    pen.disc((226, 84, 76), -0.9, 0.08, max(0.07, pen.dot))
    _wheels(pen, (-0.54, 0.54), 0.4, pen.vary(0.23, 0.27))


def motorbike(pen: Pen) -> None:
    r = pen.vary(0.36, 0.4)
    pen.line(METAL, 0.14, (0.6, 0.4), (0.32, -0.42))
    _wheels(pen, (-0.58, 0.6), 0.4, r)
    pen.poly(shade(METAL, 0.62), (-0.3, 0.1), (0.26, 0.1), (0.16, 0.56), (-0.2, 0.56))
    pen.line(METAL, 0.14, (-0.1, 0.56), (-0.78, 0.5))
    pen.poly(pen.main, (-0.96, -0.16), (-0.5, -0.2), (-0.1, 0.16), (-0.34, 0.26), (-0.62, 0.06))
    pen.ellipse(pen.main, 0.12, -0.1, 0.38, 0.27, -8)
    pen.box(INK, -0.72, -0.28, -0.08, -0.08, 0.1)
    pen.line(INK, 0.13, (0.3, -0.5), (0.08, -0.62))
    pen.disc(LAMP, 0.46, -0.38, max(0.14, pen.dot))


def train(pen: Pen) -> None:
    """A steam locomotive: boiler, chimney, cab, cow-catcher and three wheels."""
    trim = shade(pen.main, 0.66) if luminance(pen.main) > 90 else (212, 64, 62)
    top = pen.vary(-0.3, -0.2)
    pen.poly(trim, (0.38, top + 0.1), (0.3, -0.76), (0.74, -0.76), (0.64, top + 0.1))
    pen.disc(trim, -0.04, top + 0.02, 0.15)
    pen.box(pen.main, -0.4, top, 0.84, 0.4, 0.16)
    pen.box(trim, 0.66, top, 0.86, 0.4, 0.08)
    pen.box(pen.main, -0.92, -0.72, -0.24, 0.42)
    pen.box(trim, -0.98, -0.86, -0.18, -0.66, 0.06)
    pen.box(GLASS, -0.76, -0.5, -0.42, -0.12, 0.04)
    pen.poly(METAL, (0.6, 0.32), (0.82, 0.32), (1.0, 0.74), (0.6, 0.74))
    pen.box(INK, -0.94, 0.34, 0.72, 0.54)
    for x, r in ((-0.66, 0.28), (-0.08, 0.28), (0.42, 0.22)):
        pen.disc(INK, x, 0.78 - r, r)
        pen.disc(trim, x, 0.78 - r, r * 0.55)
