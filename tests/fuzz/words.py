"""Words: `init --classes`, vocabulary files, and files of the user's own lines."""

import random
import shutil
import unicodedata
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import yaml

from ml.__main__ import main
from ml.settings.profile import ROOT
from tests.fuzz.harness import Case
from tests.fuzz.parts import SMALL, rows, stage, write_profile, write_vocabulary

ELSEWHERE = {"model": "nobody/nothing-here"}
"""A diffusion model that is not on this machine, so that none is loaded for its tokenizer."""
THINGS = (
    "forklift",
    "pallet",
    "hourglass",
    "unicycle",
    "x-ray",
    "garçon",
    "straße",
    "bollard",
    "lens",
    "canvas",
    "gas mask",
    "SUV",
    "dog's bowl",
    "jack-o'-lantern",
    "no",
    "on",
    "7",
    "null",
    "2x4",
    "abacus",
    "octopus",
    "ıspanak",
    "Übung",
    "teddy",
    "harness",
    "chassis",
    "atlas moth",
    "8-ball",
    "mp3 player",
    "yes",
    "1e3",
    "0x1f",
)
"""Singular names of things that COCO does not list; YAML takes some for other things than text."""
MANY = {
    "forklift": "forklifts",
    "wolf": "wolves",
    "mouse trap": "mouse traps",
    "knife": "knives",
    "policeman": "policemen",
    "woman": "women",
    "tooth": "teeth",
    "battery": "batteries",
    "box": "boxes",
    "bench": "benches",
    "cherry": "cherries",
    "hard hat": "hard hats",
    "pair of gloves": "pairs of gloves",
    "potato": "potatoes",
    "stepchild": "stepchildren",
    "cactus": "cactuses",
    "fox": "foxes",
    "ox": "oxen",
    "quiz": "quizzes",
    "loaf": "loaves",
}
"""Singular: plural, out of a dictionary."""


def cases(rng: random.Random) -> Iterator[Case]:
    while True:
        every = [*_init_sound(rng), *_init_nonsense(rng), *_vocabulary(rng), *_lines(rng)]
        yield from rng.sample(every, len(every))


def _init(name: str, classes: str, sound: bool, *names, check=None, base="sd15") -> Case:
    def prepare(folder: Path) -> list[str]:
        root = folder / "root"
        (root / "profiles").mkdir()
        for file in ("params.yaml", "profiles/sd15.yaml"):
            shutil.copyfile(ROOT / file, root / file)
        return [
            "init",
            f"--classes={classes}",
            "--profile",
            base,
            "--name",
            "yard",
            "--root",
            str(root),
        ]

    def made(folder: Path, out: str) -> str | None:
        found = yaml.safe_load((folder / "root/profiles/words/yard.yaml").read_text("utf-8"))
        expected = [
            unicodedata.normalize("NFC", " ".join(word.lower().split()))
            for word in classes.split(",")
        ]
        if found["unseen"] != expected:
            return f"unseen {found['unseen']}, expected {expected}"
        return check(folder) if check else None

    return Case(
        "words",
        f"init {name}: {classes[:80]!r}",
        sound,
        prepare,
        names=names,
        check=made if sound else None,
    )


def _drawn(folder: Path) -> str | None:
    """The vocabulary that `init` wrote is one that `prompts` takes."""
    text = str(folder / "root/profiles/words/yard.yaml")
    file = write_profile(folder, "again", vocabulary=text, diffusion=ELSEWHERE)
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        code = main(stage(folder, "prompts", file))
    return None if code == 0 else f"prompts: {code}"


def _init_sound(rng) -> Iterator[Case]:
    for count in (1, 2, 5):
        words = rng.sample(THINGS, count)
        yield _init("things", ", ".join(words), True, check=_drawn)
    word = rng.choice(THINGS)
    yield _init("blanks", f"  {word.upper()}  ", True)
    yield _init("decomposed", unicodedata.normalize("NFD", "garçon, été sign"), True, check=_drawn)
    yield _init(
        "near a plural",
        ", ".join(rng.sample([one for one in MANY if one not in ("knife", "bench")], 3)),
        True,
    )  # COCO's


def _init_nonsense(rng) -> Iterator[Case]:
    word, other = rng.sample(THINGS[:4], 2)
    many = rng.choice(list(MANY.values()))
    yield _init("plural", many, False, many)
    yield _init("plural beside", f"{word}, {many.title()}", False, many)
    yield _init("twice", f"{word}, {other}, {word.upper()}", False, word)
    yield _init(
        "twice, composed", f"garçon, {unicodedata.normalize('NFD', 'garçon')}", False, "garçon"
    )
    yield _init("part", f"{word}, red {word}", False, word)
    yield _init("nothing", rng.choice(("", " ", ",", " , ,", "\t")), False, "--classes")
    yield _init("gap", f"{word},,{other}", False, "commas")
    bad = rng.choice('{}%$#@!?:;/\\<>"`|*&^~[]()=+.…💩\u200b\u202e\0\x1b\n_')
    yield _init(f"character U+{ord(bad):04X}", f"{word}{bad}{other}", False, "cannot be a class")
    yield _init(
        "background", rng.choice(("background", "Background", "BACKGROUND")), False, "background"
    )
    small = rng.choice(("a", "an", "the", "and", "of", "next to", "near", "next", "to"))
    yield _init("small word", f"{word}, {small}", False, repr(small))
    yield _init("article", f"{rng.choice(('a', 'an', 'the'))} {word}", False, word)
    yield _init("template", rng.choice(("a photograph of a", "dog and a cat")), False, "'")
    yield _init(
        "too many",
        ", ".join(f"{a}{b}o" for a in "bdfgklmnprtvz" for b in "abcdefghijklmnopqrstuvwxyz"),
        False,
        "254",
    )
    yield _init("endless", "x" * 100_000, False, "x")
    yield _init("unknown to the drawn world", word, False, word, base="micro")


def _file(
    name: str,
    content: bytes | str,
    sound: bool,
    *names,
    check=None,
    says: str = "words.yaml",
    **more,
) -> Case:
    """A vocabulary file that `prompts` reads."""

    def prepare(folder: Path) -> list[str]:
        file = folder / "words.yaml"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return stage(
            folder,
            "prompts",
            write_profile(folder, vocabulary=str(file), diffusion=ELSEWHERE, **more),
        )

    return Case(
        "words",
        f"vocabulary {name}: {content[:60]!r}",
        sound,
        prepare,
        names=(says, *names),
        check=check,
    )


def _vocabulary(rng) -> Iterator[Case]:
    one, two, three = rng.sample(THINGS[:4], 3)
    base = f"seen: [{one}, {two}]\nunseen: [{three}]\n"

    def named(*words: str):
        def check(folder: Path, _) -> str | None:
            found = {name for own in rows(folder, "prompts").entities for name in own}
            return None if found == set(words) else f"prompts of {found}, expected {words}"

        return check

    yield _file("plain", base, True, check=named(one, two, three))
    yield _file(
        "mark and returns",
        b"\xef\xbb\xbf" + base.replace("\n", "\r\n").encode(),
        True,
        check=named(one, two, three),
    )
    yield _file("in UTF-16", base.encode("utf-16"), False)
    yield _file(
        "quoted",
        f'seen: ["no", "7", {one}]\nunseen: ["on"]\n',
        True,
        check=named("no", "7", one, "on"),
    )
    bare = rng.choice(
        (
            "no",
            "on",
            "7",
            "1.5",
            "null",
            "2026-11-27",
            "0x1f",
            "[a]",
            "{a: b}",
            "~",
            ".nan",
            "010",
            "1:30",
            "!!binary aGk=",
            "<<",
            "=",
            "2001-01-01T00:00:00Z",
        )
    )
    yield _file("what is no text", f"seen: [{one}, {bare}]\nunseen: []\n", False)
    typo = rng.choice(("unsen", "Unseen", "seen ", "unseens", "classes", "word", "nmae", "base"))
    yield _file(
        "typo",
        base.replace("unseen:", f"{typo}:") if "seen" in typo.lower() else f"{base}{typo}: [x]\n",
        False,
    )
    yield _file("twice", f"{base}seen: [{three}]\n", False, "line 3")
    yield _file("both", f"seen: [{one}, {two}]\nunseen: [{one.upper()}]\n", False, one)
    yield _file("plural", f"seen: [{one}, {one}s]\nunseen: []\n", False, f"{one}s")
    many = rng.choice([m for m in MANY.values() if " " not in m])
    yield _file("plural alone", f"seen: [{one}, {many}]\nunseen: []\n", False, many)
    yield _file("one thing by two names", f"seen: [tv, tvmonitor, {one}]\n", False, "tv")
    yield _file("shared", f"{base}words: {{{one}: [barrow], {two}: [Barrow]}}\n", False, "arrow")
    yield _file(
        "none",
        rng.choice(
            (
                f"{base}words: {{{one}: []}}\n",
                f"{base}words: [{one}]\n",
                f"{base}words: {{{one}: barrow}}\n",
                f"{base}words: {{spoon: [spoon]}}\n",
                f"{base}words: {{{one}: [[barrow]]}}\n",
            )
        ),
        False,
        "words",
    )
    yield _file(
        "another shape",
        rng.choice(
            (
                "",
                "[]",
                "seen",
                "7",
                "{}",
                "seen: dog\n",
                "seen: {a: b}\n",
                "unseen: [dog]\n",
                "seen: []\nunseen: [dog]\n",
                "- seen\n- dog\n",
                "seen: null\n",
            )
        ),
        False,
    )
    yield _file(
        "broken",
        rng.choice(
            (
                "seen: [dog, cat\n",
                "seen:\n\t- dog\n",
                "seen: [dog]]\n",
                "seen: 'dog\n",
                "&a [*a]\n",
                "seen: [dog]\n---\nseen: [cat]\n",
                "!!python/object/apply:os.system ['true']\n",
                "seen: [*nobody]\n",
                "seen: [dog]\n\x00",
                "seen: [\x07]\n",
                "? [a, b]\n: c\n",
                "{" * 3000,
            )
        ),
        False,
    )
    yield _file(
        "bomb",
        "a: &a [x, x]\n"
        + "".join(
            f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n"
            for a, b in zip("abcdefghi", "bcdefghij", strict=True)
        ),
        False,
    )
    yield _file("itself", "seen: &a [dog, cat, *a]\n", False)
    unseen_mark = rng.choice("\u200b\u00ad\u202e\ufeff\u2060")
    yield _file(
        f"invisible U+{ord(unseen_mark):04X}",
        f'seen: [{one}, "{two}{unseen_mark}"]\n',
        False,
        f"U+{ord(unseen_mark):04X}",
    )
    yield _file("several in one", f'seen: ["{one}, {two}"]\nunseen: [{three}]\n', False, one)
    yield _file("article", f"seen: [{one}, a {two}]\nunseen: []\n", False, two)
    small = rng.choice(("and", "a", "of", "near", "next to", "the"))
    yield _file("small word", f'seen: [{one}, "{small}"]\nunseen: []\n', False, small)
    yield _file(
        "too many", "seen: [" + ", ".join(f"w{i}k" for i in range(255)) + "]\n", False, "254"
    )
    yield _file(
        "mathematics",
        f'seen: [{one}, "$x^2$ sign", "<b>bold</b>", "C++", "50% sign"]\n',
        True,
        check=named(one, "$x^2$ sign", "<b>bold</b>", "C++", "50% sign"),
    )
    yield _file(
        "braces",
        f'seen: [{one}, "{{A}} sign", "{{0}}"]\n',
        True,
        check=named(one, "{A} sign", "{0}"),
    )
    yield _file(
        "attribute",
        f"seen: [panda, red panda]\nunseen: [{one}]\n",
        False,
        "panda",
        says="vocabulary 'words'",
        prompts=SMALL | {"attribute_share": 0.5},
    )


def _line(name: str, text: bytes | str, sound: bool, *names, entities=()) -> Case:
    """A file of the user's own prompts."""

    def prepare(folder: Path) -> list[str]:
        (folder / "lines.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
        return stage(
            folder,
            "prompts",
            write_profile(
                folder,
                vocabulary=write_vocabulary(folder),
                prompts=SMALL | {"texts": str(folder / "lines.txt"), "synthetic_one": 6},
            ),
        )

    def check(folder: Path, _) -> str | None:
        made = rows(folder, "prompts")
        own = made[made.text == text.splitlines()[0].strip()]
        found = {tuple(one) for one in own.entities}
        return None if found == {tuple(entities)} else f"the line names {found or 'nothing'}"

    return Case(
        "words",
        f"line {name}: {text[:80]!r}",
        sound,
        prepare,
        names=("lines.txt", *names),
        check=check if sound else None,
    )


def _lines(rng) -> Iterator[Case]:
    yield _line("one", f"a {rng.choice(('red', 'blue'))} dog on grass\n", True, entities=["dog"])
    yield _line("capitals", "A DOG near a Bus\n", True, entities=["dog", "bus"])
    yield _line(
        "plural", f"two {rng.choice(('dogs', 'buses', 'cats'))} on grass\n", False, "line 1"
    )
    yield _line("three", "# mine\na dog, a cat and a bus\n", False, "line 2")
    yield _line("twice", "a dog and a dog\n", False, "line 1", "dog")
    yield _line("nothing", "a horse\n\na dog\n", False, "line 1")
    yield _line(
        "glued",
        rng.choice(("a dog-friendly bus", "a dog's bowl", "a hot-dog", "a bus-cat", "a cat’s bus"))
        + "\n",
        False,
        "line 1",
    )
    yield _line(
        "within", rng.choice(("a bulldog", "a catalogue", "an omnibus")) + "\n", False, "line 1"
    )
    yield _line(
        "too long", "a dog " + "on grass near a car " * rng.randint(5, 8) + "\n", False, "line 1"
    )
    yield _line("not UTF-8", b"a dog\na caf\xe9 cat\n", False, "line 2")
    yield _line("UTF-16", "a dog\n".encode("utf-16"), False)
    yield _line("empty", rng.choice(("", "\n \n", "# a dog\n", "\ufeff")), False)
    hidden = rng.choice("\u200b\u00ad\u202e\x00\x07")
    yield _line(f"invisible U+{ord(hidden):04X}", f"a do{hidden}g and a cat\n", False, "line 1")
