"""Workspaces: files that were cut off, edited or exchanged, folders of the user's in the way."""

import contextlib
import io
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from ml.__main__ import main
from ml.pipeline.table import STAGES
from ml.store.manifest import read_manifest
from tests.builders import handmade
from tests.fuzz.harness import Case
from tests.fuzz.parts import write_vocabulary

NAMES = [stage.name for stage in STAGES]
RUNNABLE = ("prompts", "benchmark", "triplets", "promotion", "report")
"""Stages that need no model."""
DETERMINED = ("prompts", "benchmark")
"""Of which the folder that was made by hand is the stage's own."""


@cache
def _base() -> tuple[tempfile.TemporaryDirectory, tuple[str, ...]]:
    """A workspace with the whole graph in it, and its files."""
    place = tempfile.TemporaryDirectory()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        handmade.all_stages(Path(place.name), "yard")
    files = sorted(
        path.relative_to(place.name).as_posix()
        for path in Path(place.name, "data/yard").rglob("*")
        if path.is_file()
    )
    return place, tuple(files)


def lay(folder: Path, settings: str = "") -> Path:
    """The workspace below the input's root, and the profile that it is of."""
    shutil.copytree(_base()[0].name, folder / "root", dirs_exist_ok=True)
    profile = folder / "yard.yaml"
    profile.write_text(f"base: ci\n{settings}")
    return profile


def command(folder: Path, stage: str, *more: str) -> list[str]:
    return [stage, "--profile", str(folder / "yard.yaml"), "--root", str(folder / "root"), *more]


def _may_change(stage: str) -> tuple[str, ...]:
    """What the making of a stage may replace: its own files as they are in the base."""
    own = [
        f"root/{name}"
        for name in _base()[1]
        if name.startswith(
            (f"data/yard/{stage}/", f"data/yard/.state/{stage}/", "data/yard/champion/")
        )
    ]
    locks = [f"root/{name}" for name in _base()[1] if "/.locks/" in name]
    return (*own, *locks, "root/data/yard/.making/*", "root/data/yard/.state/profile.json")


def _whole(stage: str) -> Callable[[Path, str], str | None]:
    """The stage's folder is finished, and what it was where its content is determined."""

    def check(folder: Path, _) -> str | None:
        made = read_manifest(folder / "root/data/yard" / stage)
        before = read_manifest(Path(_base()[0].name) / "data/yard" / stage)
        if stage in DETERMINED and made.digest != before.digest:
            return f"{stage} is {made.digest[:12]}, was {before.digest[:12]}"
        return None

    return check


def cases(rng: random.Random) -> Iterator[Case]:
    while True:
        every = [
            *(_damaged(rng) for _ in range(20)),
            *(_in_the_way(rng) for _ in range(10)),
            *(_stray(rng) for _ in range(4)),
            *_useless_settings(rng),
            *_mixed(rng),
            *(_read_beside(rng) for _ in range(5)),
        ]
        yield from rng.sample(every, len(every))


DAMAGE: dict[str, Callable[[Path, random.Random], object]] = {
    "{}": lambda path, rng: path.write_text("{}"),
    "[]": lambda path, rng: path.write_text("[]"),
    "null": lambda path, rng: path.write_text("null"),
    "empty": lambda path, rng: path.write_bytes(b""),
    "bytes": lambda path, rng: path.write_bytes(rng.randbytes(50)),
    "half": lambda path, rng: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "more": lambda path, rng: path.write_bytes(path.read_bytes() + b"\n"),
    "deep": lambda path, rng: path.write_text("[" * 100_000),
    "numbers for texts": lambda path, rng: path.write_bytes(
        path.read_bytes().replace(b'": "', b'": 7, "x": "')
    ),
    "gone": lambda path, rng: path.unlink(),
}


def _flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _linked(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(Path(os.path.relpath(_root_of(path).parent / "mine/holiday.jpg", path.parent)))


def _a_folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()
    (path / "mine.txt").write_text("mine")


def _root_of(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.name == "root")


DAMAGE |= {"flipped": _flip, "linked": _linked, "a folder": _a_folder}


def _damaged(rng) -> Case:
    """A file of a stage; then that stage, or one that reads it."""
    stage, kind, seed = rng.choice(RUNNABLE), rng.choice(list(DAMAGE)), rng.randrange(10**6)
    nearby = (
        [name for name in _base()[1] if f"/{stage}/" in name]
        if rng.random() < 0.6
        else [name for name in _base()[1] if "foundation" not in name]
    )
    file = rng.choice(nearby)

    def prepare(folder: Path) -> list[str]:
        lay(folder)
        DAMAGE[kind](folder / "root" / file, random.Random(seed))
        return command(folder, stage, *(["--force"] if seed % 4 == 0 else []))

    return Case(
        "workspaces",
        f"{stage} with {file} {kind} ({seed})",
        False,
        prepare,
        codes=(2, 3),
        check=_whole(stage),
        ours=(*_may_change(stage), f"root/{file}"),
        either=True,
    )


def _read_beside(rng) -> Case:
    """What is read and not remade: the summary."""
    kind, seed = rng.choice(list(DAMAGE)), rng.randrange(10**6)
    file = rng.choice([name for name in _base()[1] if "_scores/" in name or "/.state/" in name])

    def prepare(folder: Path) -> list[str]:
        lay(folder)
        DAMAGE[kind](folder / "root" / file, random.Random(seed))
        return ["--profile", str(folder / "yard.yaml"), "--root", str(folder / "root")]

    return Case(
        "workspaces",
        f"summary with {file} {kind} ({seed})",
        False,
        prepare,
        "orchestration.summary",
        codes=(2, 3),
        either=True,
    )


def _in_the_way(rng) -> Case:
    """The user's own folder, file or link where the product wants one of its own."""
    stage = rng.choice(RUNNABLE)
    place = rng.choice(
        (
            stage,
            stage,
            rng.choice(NAMES),
            f".making/{stage}",
            ".making",
            f".making/{stage}.json",
            f".state/{stage}",
            ".state",
            ".locks",
            f".locks/{stage}",
            ".strays",
            f".{stage}.replaced",
            f".making/{stage}.state",
            ".state/profile.json",
            "champion",
            "champion/grounding",
        )
    )
    kind = rng.choice(("folder", "file", "link to a folder", "link to a file", "dangling link"))
    forced = rng.random() < 0.3

    def prepare(folder: Path) -> list[str]:
        lay(folder, "seed: 3\n" if place == stage and forced else "")
        path = folder / "root/data/yard" / place
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "folder":
            (path / "deep").mkdir(parents=True)
            (path / "deep/photo.jpg").write_bytes(b"mine, a photograph")
            (path / "shard.parquet").write_bytes(b"mine, a table")
        elif kind == "file":
            path.write_bytes(b"mine")
        else:
            path.symlink_to(
                {
                    "link to a folder": folder / "mine/deep",
                    "dangling link": "nowhere",
                    "link to a file": folder / "mine/holiday.jpg",
                }[kind]
            )
        return command(folder, stage, *(["--force"] if forced else []))

    own = [name for name in _may_change(stage) if f"/yard/{place}/" not in name]
    if place.endswith(".json") or place == f".locks/{stage}":  # a note of ours that says "mine"
        own.append(f"root/data/yard/{place}")
    if kind == "link to a folder":  # who links a folder of ours elsewhere has it made there
        own += [f"mine/deep/{name}*" for name in (*NAMES, "grounding", "made", "profile", "timing")]
    return Case(
        "workspaces",
        f"{stage}: a {kind} at {place}{', forced' if forced else ''}",
        False,
        prepare,
        codes=(2, 3),
        either=True,
        ours=tuple(name for name in own if not name.startswith("root/data/yard/.making")),
    )


def _stray(rng) -> Case:
    """The user's file in a folder of ours."""
    stage = rng.choice(RUNNABLE)
    name = rng.choice(
        (
            "notes.txt",
            "deep/er/mine.jpg",
            "shard-00099.parquet",
            ".hidden",
            "shard-00000.parquet.bak",
            "manifest.json.orig",
            ".shard-00099.json",
            "metrics.json~",
            "model/mine.txt",
            ".x.tmp",
        )
    )

    def prepare(folder: Path) -> list[str]:
        lay(folder, "seed: 3\n")
        path = folder / "root/data/yard" / stage / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine, and no one else's")
        return command(folder, stage, "--force")

    return Case(
        "workspaces",
        f"{stage}: the user's {name} in it",
        False,
        prepare,
        codes=(2, 3),
        either=True,
        ours=_may_change(stage),
    )


def _useless_settings(rng) -> Iterator[Case]:
    """A stage that is finished, and settings that cannot work: nothing is touched."""
    for stage, settings in (
        ("prompts", "prompts: {texts: nowhere.txt}"),
        ("prompts", "vocabulary: nowhere.yaml"),
        ("prompts", "prompts: {texts: ../mine/holiday.jpg}"),
        ("images", "diffusion: {model: no}"),
        ("images", "diffusion: {scheduler: Nothing}"),
        ("masks", "detector: {model: nowhere}"),
        ("benchmark", "benchmark: {source: folder, root: nowhere}"),
        ("benchmark", "benchmark: {source: coco2017, root: /}"),
        ("segmenter", "segmenter: {backbone: no}"),
        ("grounding_model", "diffusion: {device: 'cuda:77'}"),
        ("prompts", "seed: -1"),
        ("benchmark", f"vocabulary: voc-{rng.choice('789')}"),
    ):
        if stage not in RUNNABLE:
            continue
        for force in ("", "--force"):
            yield Case(
                "workspaces",
                f"{stage} {force}, then {settings}",
                False,
                lambda folder, stage=stage, settings=settings, force=force: (
                    lay(folder, f"{settings}\n"),
                    command(folder, stage, *force.split()),
                )[1],
                codes=(2, 3),
                ours=tuple(name for name in _may_change("") if "/.locks/" in name),
            )


def _mixed(rng) -> Iterator[Case]:
    """Inputs that were not made from one another."""

    def remade(folder: Path) -> list[str]:
        lay(folder, f"seed: {rng.randint(1, 99)}\n")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert main(command(folder, "prompts")) == 0
        return command(folder, "triplets")

    def exchanged(folder: Path) -> list[str]:
        lay(folder)
        data = folder / "root/data/yard"
        shutil.rmtree(data / "masks")
        shutil.copytree(data / "images", data / "masks")
        return command(folder, "triplets")

    def other_words(folder: Path) -> list[str]:
        words = write_vocabulary(folder, ["dog", "cat", "car"], ["bus"])
        lay(folder, f"vocabulary: {words}\n")
        return command(folder, rng.choice(("triplets", "report")))

    def no_verdict(folder: Path) -> list[str]:
        lay(folder)
        digest = read_manifest(folder / "root/data/yard/masks").digest
        (folder / "root/data/yard/.state/masks/quality.json").write_text(
            f'{{"digest": "{digest}", "passed": false, "failures": ["masks: {rng.random()}"]}}'
        )
        return command(folder, "triplets")

    for prepare in (remade, exchanged, other_words, no_verdict):
        yield Case(
            "workspaces",
            f"{prepare.__name__} {rng.randrange(10**6)}",
            False,
            prepare,
            codes=(3,),
            ours=_may_change("prompts"),
        )
