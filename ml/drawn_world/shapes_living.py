"""Animals and people: one function a class, drawn with a `Pen`, facing right.

Each animal has a silhouette and a mark of its own, since their colours overlap: cat (sitting,
pointed ears, tail in the air), dog (floppy ear, snout, red collar), cow (long white body with dark
patches, horns, pink muzzle), horse (long neck and legs, mane), sheep (a cloud with a dark face).
"""

from ml.drawn_world.shapes_pen import CREAM, INK, RGB, Pen, jitter_colour, luminance, shade

BLUSH: RGB = (244, 164, 164)
BEAK: RGB = (246, 160, 52)
SKINS: tuple[RGB, ...] = ((250, 212, 180), (232, 184, 144), (190, 132, 92), (128, 84, 60))
HAIRS: tuple[RGB, ...] = ((60, 46, 44), (110, 70, 46), (224, 176, 92), (186, 84, 48))
TROUSERS: tuple[RGB, ...] = ((58, 76, 124), (80, 84, 96), (126, 92, 70), (46, 110, 112))


def bird(pen: Pen) -> None:
    body = pen.main
    dark = shade(body, 0.74) if luminance(body) > 80 else shade(body, 1.25)
    for x in (-0.08, 0.2):
        pen.line(BEAK, 0.1, (x, 0.5), (x, 0.88), (x + 0.14, 0.88))
    pen.poly(dark, (-0.4, -0.02), (-0.98, pen.vary(-0.5, -0.2)), (-0.96, 0.2), (-0.4, 0.44))
    pen.ellipse(body, 0.0, 0.18, 0.6, 0.46, -18)
    pen.poly(BEAK, (0.66, -0.6), (1.0, -0.38), (0.66, -0.22))
    pen.disc(body, 0.42, -0.4, 0.36)
    pen.ellipse(shade(CREAM, 0.97), 0.28, 0.32, 0.26, 0.26)
    pen.ellipse(dark, -0.2, 0.14, 0.4, 0.23, pen.vary(-30, 0))
    eye = CREAM if luminance(body) < 80 else INK
    pen.disc(eye, 0.5, -0.46, max(0.08, pen.dot))


def cat(pen: Pen) -> None:
    coat = pen.main
    dark = shade(coat, 0.8) if luminance(coat) > 80 else shade(coat, 1.14)
    belly = shade(coat, 1.55) if luminance(coat) < 230 else shade(coat, 0.9)
    lean = pen.vary(-0.06, 0.06)
    end = pen.vary(-0.25, 0.0)
    pen.line(dark, 0.2, (0.2, 0.76), (0.68, 0.74), (0.84, 0.46), (0.74, 0.14), (0.88, end))
    pen.poly(
        coat, (lean - 0.28, -0.2), (lean + 0.28, -0.2), (0.46, 0.4), (0.48, 0.74), (0.36, 0.92),
        (-0.44, 0.92), (-0.54, 0.74), (-0.5, 0.4),
    )  # fmt: skip
    pen.ellipse(belly, -0.02, 0.4, 0.24, 0.36)
    for x in (-0.22, 0.18):
        pen.ellipse(dark, x, 0.84, 0.18, 0.12)
    for side in (-1, 1):
        pen.poly(
            coat, (lean + 0.5 * side, -0.4), (lean + 0.48 * side, -1.0), (lean + 0.02 * side, -0.7)
        )
        pen.poly(
            BLUSH, (lean + 0.4 * side, -0.6), (lean + 0.4 * side, -0.84), (lean + 0.2 * side, -0.7)
        )
    pen.ellipse(coat, lean, -0.38, 0.54, 0.4)
    r = max(0.1, pen.dot)
    for side in (-1, 1):
        pen.ellipse((250, 226, 110) if luminance(coat) < 110 else INK,
                    lean + 0.22 * side, -0.42, r, r * 1.15)  # fmt: skip
    r = max(0.09, pen.dot)
    pen.poly((232, 110, 120), (lean - r, -0.28), (lean + r, -0.28), (lean, -0.28 + 1.5 * r))


def _legs(pen: Pen, colour: RGB, xs: tuple[float, ...], top: float, foot: float, width: float,
          hoof: RGB | None = None) -> None:  # fmt: skip
    width = max(width, pen.thin)
    for x in xs:
        pen.box(colour, x - width / 2, top, x + width / 2, foot, 0.05)
        if hoof is not None:
            pen.box(hoof, x - width / 2, foot - 0.14, x + width / 2, foot, 0.04)


def cow(pen: Pen) -> None:
    coat = jitter_colour(pen.rng, (250, 246, 240))
    patch = jitter_colour(pen.rng, pen.pick([(62, 56, 60), (112, 70, 50)]))
    _legs(pen, shade(coat, 0.82), (-0.5, 0.4), 0.2, 0.86, 0.2, INK)
    pen.line(coat, 0.1, (-0.8, -0.26), (-0.92, 0.2))
    pen.disc(patch, -0.92, 0.24, 0.12)
    pen.ellipse(BLUSH, -0.34, 0.44, 0.2, 0.16)
    _legs(pen, coat, (-0.7, 0.2), 0.2, 0.86, 0.22, INK)
    pen.box(coat, -0.86, -0.42, 0.52, 0.42, 0.24)
    pen.ellipse(patch, -0.5, -0.1 + pen.vary(-0.06, 0.06), pen.vary(0.2, 0.28), 0.24, 20)
    pen.ellipse(patch, 0.1, -0.1 + pen.vary(-0.08, 0.1), pen.vary(0.17, 0.24), 0.2, -30)
    pen.poly((222, 196, 150), (0.38, -0.6), (0.32, -0.94), (0.56, -0.68))
    pen.poly((222, 196, 150), (0.72, -0.68), (0.94, -0.94), (0.88, -0.58))
    pen.ellipse(patch, 0.3, -0.46, 0.18, 0.11, 20)
    pen.box(coat, 0.38, -0.7, 0.92, 0.0, 0.2)
    pen.box(patch, 0.38, -0.7, 0.6, -0.3, 0.16)
    pen.ellipse(BLUSH, 0.68, -0.06, 0.3, 0.2)
    pen.disc(INK, 0.76, -0.44, max(0.07, pen.dot))


def dog(pen: Pen) -> None:
    coat = pen.main
    dark = shade(coat, 0.7) if luminance(coat) > 80 else shade(coat, 1.22)
    rear = pen.vary(-0.74, -0.64)
    pen.line(coat, 0.2, (rear + 0.12, 0.06), (rear - 0.18, pen.vary(-0.5, -0.3)))
    _legs(pen, dark, (rear + 0.36, 0.1), 0.2, 0.88, 0.2)
    _legs(pen, coat, (rear + 0.12, 0.32), 0.2, 0.92, 0.22)
    pen.box(coat, rear, -0.08, 0.46, 0.46, 0.22)
    pen.poly(coat, (0.0, 0.0), (0.2, -0.5), (0.6, -0.4), (0.46, 0.3))
    pen.line((214, 62, 60), 0.16, (0.12, -0.14), (0.5, -0.02))
    pen.box(coat, 0.4, -0.52, 0.98, -0.16, 0.15)
    pen.ellipse(coat, 0.36, -0.52, 0.36, 0.34)
    pen.disc(INK if luminance(coat) > 80 else CREAM, 0.92, -0.44, max(0.1, pen.dot))
    pen.ellipse(dark, 0.14, -0.4, 0.17, 0.38, pen.vary(6, 20))
    pen.disc(INK if luminance(coat) > 80 else CREAM, 0.5, -0.58, max(0.08, pen.dot))


def horse(pen: Pen) -> None:
    coat = pen.main
    mane = shade(coat, 0.58) if luminance(coat) > 80 else shade(coat, 1.3)
    if luminance(coat) > 200:
        mane = (176, 150, 122)
    _legs(pen, shade(coat, 0.78), (-0.38, 0.14), 0.1, 0.94, 0.16)
    pen.line(mane, 0.22, (-0.6, -0.12), (-0.84, 0.1), (-0.84, 0.46))
    _legs(pen, coat, (-0.56, 0.3), 0.1, 0.98, 0.17, INK if luminance(coat) > 80 else mane)
    pen.box(coat, -0.68, -0.24, 0.42, 0.3, 0.25)
    tilt = pen.vary(-0.04, 0.06)
    pen.poly(mane, (-0.08, -0.2), (0.18 + tilt, -0.92), (0.44 + tilt, -0.96), (0.3, -0.1))
    pen.poly(coat, (0.04, -0.14), (0.3 + tilt, -0.88), (0.66 + tilt, -0.66), (0.42, 0.12))
    pen.poly(coat, (0.36 + tilt, -0.8), (0.36 + tilt, -1.0), (0.54 + tilt, -0.84))
    pen.poly(
        coat, (0.28 + tilt, -0.86), (0.54 + tilt, -0.88), (0.96 + tilt, -0.52),
        (0.9 + tilt, -0.36), (0.74 + tilt, -0.34), (0.36 + tilt, -0.5),
    )  # fmt: skip
    pen.disc(INK if luminance(coat) > 80 else CREAM, 0.56 + tilt, -0.68, max(0.07, pen.dot))


def sheep(pen: Pen) -> None:
    wool = jitter_colour(pen.rng, (252, 246, 230))
    face = jitter_colour(pen.rng, (74, 66, 70))
    _legs(pen, face, (-0.44, -0.16, 0.16, 0.42), 0.2, 0.82, 0.16)
    r = pen.vary(0.26, 0.31)
    lower = shade(wool, 0.84)
    for x, y in ((-0.6, 0.2), (-0.24, 0.32), (0.14, 0.32), (0.46, 0.2)):
        pen.disc(lower, x, y, r)
    pen.ellipse(wool, -0.06, -0.02, 0.66, 0.4)
    for x, y in ((-0.66, -0.08), (-0.42, -0.34), (-0.06, -0.42), (0.3, -0.34), (0.5, -0.06)):
        pen.disc(wool, x, y, r)
    pen.ellipse(face, 0.72, -0.14, 0.23, 0.31, -14)
    pen.ellipse(face, 0.46, -0.2, 0.16, 0.09, 24)
    pen.disc(wool, 0.66, -0.42, 0.19)
    pen.disc(CREAM, 0.78, -0.16, max(0.06, pen.dot))


def person(pen: Pen) -> None:
    tone = pen.pick(SKINS)
    hair = pen.pick(HAIRS if luminance(tone) > 170 else HAIRS[:1])
    skin = jitter_colour(pen.rng, tone)
    trousers = jitter_colour(pen.rng, pen.pick(TROUSERS))
    stand = pen.vary(0.16, 0.26)
    pen.line(trousers, 0.26, (-0.12, 0.25), (-stand, 0.82))
    pen.line(trousers, 0.26, (0.12, 0.25), (stand, 0.82))
    for side in (-1, 1):
        pen.line(INK, 0.17, (side * stand, 0.89), (side * (stand + 0.1), 0.89))
        raised = pen.maybe(0.3)
        elbow = (side * 0.48, -0.2 if raised else 0.0)
        hand = (side * 0.62, -0.5) if raised else (side * pen.vary(0.46, 0.62), 0.22)
        pen.disc(skin, *hand, max(0.12, pen.dot))
        pen.line(shade(pen.main, 0.86), 0.2, (side * 0.24, -0.28), elbow,
                 (elbow[0] * 0.3 + hand[0] * 0.7, elbow[1] * 0.3 + hand[1] * 0.7))  # fmt: skip
    pen.box(pen.main, -0.34, -0.4, 0.34, 0.32, 0.14)
    if pen.maybe(0.4):
        pen.box(hair, -0.33, -0.84, 0.33, -0.36, 0.14)
    pen.disc(hair, 0.0, -0.7, 0.31)
    pen.ellipse(skin, 0.0, -0.6, 0.25, 0.26)
