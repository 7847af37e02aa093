"""Command lines: stages, roots, profiles and files that are none, typed as people type them."""

import random
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.harness import Case
from tests.fuzz.parts import write_profile

STAGES = (
    "benchmark",
    "prompts",
    "images",
    "masks",
    "triplets",
    "grounding_model",
    "grounding_scores",
    "synthetic_dataset",
    "segmenter",
    "real_bound",
    "benchmark_scores",
    "promotion",
    "report",
)


def cases(rng: random.Random) -> Iterator[Case]:
    while True:
        every = [*_typed(rng), *_beside(rng), *_roots(rng), *_ticks(rng), *_early(rng)]
        yield from rng.sample(every, len(every))


def _typed(rng) -> Iterator[Case]:
    stage = rng.choice(STAGES)
    wrong = rng.choice(
        (
            stage.title(),
            f"{stage}s",
            stage[:-1],
            f" {stage}",
            "",
            "all!",
            "--",
            "run",
            "train",
            f"{stage}.py",
            "../prompts",
            "*",
        )
    )
    lines = [
        [wrong],
        [],
        [stage, "--prof"],
        [stage, "extra"],
        [stage, "--root"],
        [stage, "--unknown", "3"],
        [stage, "--profile"],
        ["plan", "everything"],
        ["init"],
        ["init", "--classes"],
        ["audit"],
        [stage, "--force=3"],
        ["plan", "--images", "many"],
        ["plan", "--images", rng.choice(("0", "-3", "nan", "inf", "1e3", "2.5", "1" * 30, ""))],
        [
            stage,
            "--profile",
            rng.choice(
                (
                    "sd16",
                    "",
                    " ",
                    "Micro",
                    "micro ",
                    "../micro",
                    "a/b",
                    "params.yaml",
                    "nowhere.yaml",
                    "micro,ci",
                    "--force",
                    "\n",
                    "x" * 5000,
                    "$(id)",
                    "📷",
                )
            ),
        ],
        ["plan", "--profile", rng.choice(("sd16", ".yaml", "/", ".", "..", "a" * 300 + ".yaml"))],
        ["init", "--classes", "forklift", "--profile", "nowhere"],
        ["export"],
        ["export", "--format", rng.choice(("csv", "", "COCO", "coco,voc"))],
        ["export", "--format", "coco", "--seed", rng.choice(("-1", "x", "1e9", ""))],
        [
            "export",
            "--format",
            "voc",
            "--split",
            rng.choice(("", "train=2", "a=b", "=1", "x=1e-9")),
        ],
        ["export", "--format", "hf", "--pictures", rng.choice(("/nowhere", "params.yaml"))],
        [
            "init",
            "--classes",
            "forklift",
            "--name",
            rng.choice(
                ("../up", "/abs", "A B", "", "real", "x" * 41, ".", "é", "-x", "a.b", "foundation")
            ),
        ],
        ["init", "--classes", "forklift", "--texts", rng.choice(("nowhere.txt", "/", ""))],
    ]
    for line in lines:
        if line[-2:-1] == ["--name"] and not line[-1]:
            continue  # an empty name is the default
        # init writes below its root, which is none here and has no params.yaml
        rest = ["--root", "r"] if line and line[0] in ("init", stage, "plan") else []
        yield Case(
            "commands",
            f"typed {line!r:.120}",
            False,
            lambda folder, line=line, rest=rest: [*line, *rest],
        )
    for stage in rng.sample(STAGES, 2):
        yield Case(
            "commands",
            f"{stage} --help {rng.randrange(10**6)}",
            True,
            lambda _, stage=stage: [stage, "--help"],
            check=lambda _, out: None if "exit codes" in out else "no codes",
        )


def _beside(rng) -> Iterator[Case]:
    """The commands beside `ml`."""
    wrong = rng.choice(("sd16", "", "../micro", "nowhere.yaml"))
    for module, lines in {
        "orchestration.mlflow.champion": (
            ["segmenter", "--profile", wrong],
            ["painter"],
            [],
            ["segmenter", "--tracking-uri", "ftp://x"],
            ["grounding", "--tracking-uri", "https://me:pw@server"],
        ),
        "orchestration.summary": (
            ["--profile", wrong],
            ["--what"],
            ["--root", "/dev/null"],
            ["more"],
        ),
        "orchestration.run_config": (["--profile", wrong, "--write", "x"], [], ["--write"]),
        "ml.studies.__main__": (
            ["--row", "ours"],
            ["--study", "99"],
            ["--quick=3"],
            ["more"],
            ["--root", "/dev/null"],
        ),
    }.items():
        for line in lines:
            yield Case("commands", f"{module} {line!r}", False, lambda _, line=line: line, module)


def _roots(rng) -> Iterator[Case]:
    stage = rng.choice(("prompts", "benchmark", "masks", "report"))

    def a_file(folder: Path) -> list[str]:
        (folder / "plain").write_text("x")
        return [stage, "--root", str(folder / "plain")]

    def below_a_file(folder: Path) -> list[str]:
        (folder / "plain").write_text("x")
        return [stage, "--root", str(folder / "plain" / "deep")]

    def dangling(folder: Path) -> list[str]:
        (folder / "link").symlink_to(folder / "nowhere")
        return [stage, "--root", str(folder / "link")]

    def data_is_a_file(folder: Path) -> list[str]:
        (folder / "root2").mkdir()
        (folder / "root2/data").write_text("mine")
        return [stage, "--root", str(folder / "root2")]

    def profile_is_a_file(folder: Path) -> list[str]:
        (folder / "root/data/yard").write_text("mine")
        return [stage, "--root", str(folder / "root"), "--profile", str(write_profile(folder))]

    def a_loop(folder: Path) -> list[str]:
        (folder / "loop").symlink_to(folder / "loop")
        return [stage, "--root", str(folder / "loop")]

    for prepare in (a_file, below_a_file, dangling, data_is_a_file, profile_is_a_file, a_loop):
        yield Case(
            "commands", f"{stage}, root: {prepare.__name__}", False, prepare, codes=(2, 3, 4)
        )
    for root in ("", " ", "/proc/nowhere", "/dev/null", "/dev/full", "x" * 300):
        yield Case(
            "commands",
            f"{stage} --root {root!r:.40}",
            False,
            lambda _, root=root: [stage, "--root", root],
            codes=(2, 4),
        )
    for profile in (".", "/", "/dev/null", "/dev/null.yaml", "/proc/self/mem.yaml"):
        yield Case(
            "commands",
            f"{stage} --profile {profile!r}",
            False,
            lambda folder, profile=profile: [
                stage,
                "--profile",
                profile,
                "--root",
                str(folder / "root"),
            ],
        )

    def a_folder(folder: Path) -> list[str]:
        (folder / "yard.yaml").mkdir()
        return [stage, "--profile", str(folder / "yard.yaml"), "--root", str(folder / "root")]

    yield Case("commands", f"{stage}, profile: a folder", False, a_folder, names=("yard.yaml",))
    for write in ("/dev/full/x", "/proc/x", ""):
        yield Case(
            "commands",
            f"run_config --write {write!r}",
            False,
            lambda folder, write=write: ["--write", write, "--root", str(folder / "root")],
            "orchestration.run_config",
            codes=(2, 4),
        )


def _ticks(rng) -> Iterator[Case]:
    """The audit's file, which a browser saved and people mail around."""
    for content in rng.sample(
        (
            b"",
            b"{}",
            b"[]",
            b"null",
            b"7",
            b"\xff\xfe{",
            b'{"ticks": 3}',
            b'{"ticks": [], "synthetic_dataset": "x"}',
            b"{" * 20_000,
            b"[" * 100_000,
            b'{"ticks": [{}], "synthetic_dataset": "x"}',
            b'{"ticks": [3], "synthetic_dataset": null}',
            b"<html>",
            b'{"ticks": NaN, "synthetic_dataset": "x"}',
            b'{"ticks": [{"key": 1, "entity": 2, "verdict": 3}], "synthetic_dataset": []}',
        ),
        6,
    ):

        def prepare(folder: Path, content=content) -> list[str]:
            (folder / "ticks.json").write_bytes(content)
            return ["audit", str(folder / "ticks.json"), "--root", str(folder / "root")]

        yield Case("commands", f"audit {content[:60]!r}", False, prepare, codes=(2, 3))
    for path in ("/", "/dev/null", "", "~/nowhere.json"):
        yield Case(
            "commands",
            f"audit of {path!r}",
            False,
            lambda folder, path=path: ["audit", path, "--root", str(folder / "root")],
            codes=(2, 3),
        )


def _early(rng) -> Iterator[Case]:
    """A stage whose inputs are not there."""
    for stage in (
        "images",
        "masks",
        "triplets",
        "grounding_model",
        "grounding_scores",
        "segmenter",
        "real_bound",
        "benchmark_scores",
        "promotion",
        "report",
    ):
        profile = rng.choice(("micro", "ci"))
        yield Case(
            "commands",
            f"{stage} of {profile} at first",
            False,
            lambda folder, stage=stage, profile=profile: [
                stage,
                "--root",
                str(folder / "root"),
                "--profile",
                profile,
            ],
            names=("run `python -m ml",),
            codes=(3,),
        )
    yield Case(
        "commands",
        "summary at first",
        False,
        lambda folder: ["--root", str(folder / "root")],
        "orchestration.summary",
        codes=(3,),
    )
