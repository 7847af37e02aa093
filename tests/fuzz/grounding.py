"""What a program asks the grounded pipeline for: pictures, words, prompts and phrases."""

import contextlib
import random
from collections.abc import Iterator
from functools import cache

import numpy as np

from tests.fuzz.harness import Case


@cache
def _pipeline():
    from tests.builders.grounded import make_engine

    with contextlib.redirect_stderr(None):
        return make_engine()


def _pictures(count: int, side: int = 64) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, side, side, 3), np.uint8)


def _case(name: str, sound: bool, entities, *names, images=None, **more) -> Case:
    def ask(_) -> int:
        pictures = (
            _pictures(len(entities) if hasattr(entities, "__len__") else 1)
            if images is None
            else images
        )
        found = _pipeline().ground(pictures, entities, **more)
        shapes = [mask.shape for mask in found.masks]
        if shapes != [(len(own), 64, 64) for own in entities]:
            raise AssertionError(f"masks {shapes}")
        if not all(np.isfinite(soft).all() for soft in found.probabilities):
            raise AssertionError("probabilities that are not finite")
        return 0

    said = "".join(f", {key} {value!r:.60}" for key, value in more.items())
    return Case(
        "grounding", f"{name}: {entities!r:.90}{said}", sound, lambda _: [], ask, names=names
    )


def cases(rng: random.Random) -> Iterator[Case]:
    while True:
        every = [*_words(rng), *_pictures_and_prompts(rng)]
        yield from rng.sample(every, len(every))


def _words(rng) -> Iterator[Case]:
    word, other = rng.sample(("dog", "cat", "bus", "car", "horse", "sheep", "dining table"), 2)
    yield _case("two", True, [[word, other]])
    yield _case("one each", True, [[word], [other]])
    yield _case("within", True, [[f"red {word}", word]])
    yield _case("twice", False, [[word, other, word]], word)
    yield _case("twice, in capitals", False, [[word, word.upper()]], word)
    yield _case("none", False, [[]], "word")
    yield _case("none of one", False, [[word], []], "word")
    yield _case("a text", False, [word], word)
    yield _case("a text alone", False, word)
    yield _case("nothing", False, [[rng.choice(("", " ", ".", "-", "\n"))]])
    yield _case("no text", False, [[rng.choice((None, 7, True, 1.5, b"dog", ("dog",)))]])
    yield _case("hidden", False, [[f"{word}{rng.choice(chr(0x200B) + chr(0xAD) + chr(0))}"]], "U+")
    yield _case("several in one", False, [[f"{word}, {other}"]], word)
    small = rng.choice(("a", "and", "of", "the", "an"))
    yield _case("small word", False, [[small, word]], small)
    yield _case("article", False, [[f"a {word}"]], word)
    yield _case("too long", False, [[" ".join([word] * rng.randint(23, 40))]], "tokens")
    yield _case(
        "too many",
        False,
        [
            [
                "dog",
                "cat",
                "bus",
                "car",
                "horse",
                "sheep",
                "grass",
                "dining table",
                "potted plant",
                "aeroplane",
            ]
        ],
        "tokens",
    )
    yield _case("a number of pictures", False, [[word]], images=_pictures(2))


def _pictures_and_prompts(rng) -> Iterator[Case]:
    word = rng.choice(("dog", "cat", "bus"))
    for name, images in (
        ("fractions", _pictures(1) / 255),
        ("another size", _pictures(1, rng.choice((32, 63, 128)))),
        ("one without its axis", _pictures(1)[0]),
        ("grey", _pictures(1)[..., :1]),
        ("channels first", _pictures(1).transpose(0, 3, 1, 2)),
        ("alpha", np.zeros((1, 64, 64, 4), np.uint8)),
        ("none", _pictures(1)[:0]),
        ("a list of texts", ["x.jpg"]),
        ("16 bits", _pictures(1).astype(np.uint16)),
        ("None", np.array(None)),
    ):
        yield _case(f"pictures, {name} {rng.randrange(99)}", False, [[word]], images=images)
    prompts = (f"a {word} near an aeroplane", f"the red {word}", f"{word}")
    yield _case("its prompt", True, [[word]], prompts=[rng.choice(prompts)])
    for prompt in (
        "a horse",
        f"a {word}-friendly horse",
        f"a bull{word}",
        "",
        f"two {word}s",
        7,
        None,
        f"a {word} " + "on grass near a car " * 9,
    ):
        yield _case("another prompt", False, [[word]], prompts=[prompt])
    yield _case("a prompt more", False, [[word]], prompts=[f"a {word}", "a car"])
    yield _case("a prompt as text", False, [[word]], prompts=f"a {word}")
    for phrases in ([["a horse"]], [[f"a {word}", "x"]], [[]], [f"a {word}"], [[None]]):
        yield _case("phrases", False, [[word]], phrases=phrases)
    yield _case("a timestep", True, [[word]], timestep=rng.randrange(1, 999))
    for timestep in (-1, 1000, 10**9, 1.5, "x", float("nan")):
        yield _case("no timestep", False, [[word]], "timestep", timestep=timestep)
    for seed in (-1, 1.5, "x", 2**70):
        yield _case("no seed", False, [[word]], "seed", seed=seed)
    for least in (float("nan"), "x", [0.5]):
        yield _case("no presence", False, [[word]], "presence", min_presence=least)
    for more in (
        {"steps": 0},
        {"steps": 2.5},
        {"steps": "3"},
        {"seeds": [-1]},
        {"seeds": [1.5]},
        {"seeds": [1, 2]},
        {"guidance_scale": float("nan")},
        {"guidance_scale": -2},
        {"steps": 10**9},
        {"seeds": [2**40]},
        {"guidance_scale": "7"},
        {"seeds": [None]},
    ):
        yield _drawn(f"a {word}", [[word]], False, *more, **more)
    yield _drawn(f"a {word}", [[word]], True, steps=np.int64(3))


def _drawn(prompt: str, entities, sound: bool, *names, **more) -> Case:
    def draw(_) -> int:
        asked = {"seeds": [3], "steps": 2, "guidance_scale": 3.0} | more
        made = _pipeline().draw([prompt], entities, **asked)
        if made.images.shape != (1, 64, 64, 3):
            raise AssertionError(f"pictures {made.images.shape}")
        return 0

    return Case("grounding", f"drawn: {prompt!r}, {more}", sound, lambda _: [], draw, names=names)
