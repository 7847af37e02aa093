"""Settings: every field of params.yaml with values of the wrong kind or size, keys with a typo,
profiles whose names are ways elsewhere; and sound ones that must arrive as they were written."""

import random
from collections.abc import Iterator
from pathlib import Path

import yaml

from ml.settings.profile import ROOT, load_params
from tests.fuzz.harness import Case

MICRO = yaml.safe_load((ROOT / "params.yaml").read_text())


def _leaves(values: dict, above: str = "") -> dict[str, object]:
    found = {}
    for name, value in values.items():
        found |= (
            _leaves(value, f"{above}{name}.")
            if isinstance(value, dict)
            else {f"{above}{name}": value}
        )
    return found


FIELDS = {name: value for name, value in _leaves(MICRO).items() if name != "profile"}
NULLABLE = (
    "diffusion.revision",
    "diffusion.variant",
    "detector.revision",
    "detector.weights",
    "prompts.texts",
    "segmenter.backbone_revision",
    "segmenter.crop_size",
    "benchmark.root",
    "grounding.paper.clip_norm",
)
NUMBERS = (
    "diffusion.steps",
    "diffusion.guidance_scale",
    "diffusion.batch_size",
    "segmenter.crop_size",
    "grounding.paper.clip_norm",
)
NO_ZERO = (
    "diffusion.steps",
    "diffusion.guidance_scale",
    "diffusion.batch_size",
    "detector.batch_size",
    "shards.size",
    "grounding.steps",
    "grounding.batch_size",
    "grounding.seeded.learning_rate",
    "grounding.paper.learning_rate",
    "grounding.width",
    "grounding.layers",
    "grounding.heads",
    "grounding.evaluate_every",
    "grounding.patience",
    "segmenter.width",
    "segmenter.queries",
    "segmenter.decoder_layers",
    "segmenter.heads",
    "segmenter.scale",
    "segmenter.steps",
    "segmenter.batch_size",
    "segmenter.learning_rate",
    "segmenter.feedforward",
    "benchmark.bootstrap",
    "benchmark.daam_thresholds",
    "triplets.validation_share",
    "prompts.sim_per_cell",
)
"""Of which none means nothing at all."""
ABOVE_ONE = {
    "detector.score_threshold",
    "prompts.plain_share",
    "prompts.attribute_share",
    "prompts.scene_share",
    "triplets.min_score",
    "triplets.min_area",
    "triplets.max_area",
    "triplets.validation_share",
    "synthetic.min_area",
    "synthetic.max_ignore",
    "segmenter.colour_jitter",
    "segmenter.ema_decay",
    "grounding.seeded.learning_rate",
    "grounding.paper.learning_rate",
    "segmenter.learning_rate",
}
"""Shares, and rates that only diverge."""


def cases(rng: random.Random) -> Iterator[Case]:
    while True:
        every = [*_values(rng), *_typos(rng), *_files(rng), *_names(rng)]
        yield from rng.sample(every, len(every))


def _asked(folder: Path, profile) -> list[str]:
    return [
        "--profile",
        str(profile),
        "--root",
        str(folder / "root"),
        "--write",
        str(folder / "root/run.yaml"),
    ]


def _profile(
    name: str, text: str | bytes, sound: bool, *names, check=None, file="yard.yaml", process=False
) -> Case:
    def prepare(folder: Path) -> list[str]:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())
        return _asked(folder, folder / file)

    return Case(
        "settings",
        f"{name}: {file}: {text[:90]!r}",
        sound,
        prepare,
        "orchestration.run_config",
        names=names,
        check=check,
        process=process,
    )


def _nested(field: str, value: object) -> str:
    for name in reversed(field.split(".")):
        value = {name: value}
    return yaml.safe_dump(value, allow_unicode=True)


def _values(rng) -> Iterator[Case]:
    for field, own in rng.sample(list(FIELDS.items()), len(FIELDS)):
        for value in rng.sample(_nonsense(rng, field, own), 2):
            yield _profile("value", _nested(field, value), False, "yard.yaml, line", field)


def _nonsense(rng, field: str, own: object) -> list[object]:
    """Values that mean nothing for a field, whatever its range is."""
    values: list[object] = [{"a": 1}, {}, [[]], "\x7f", ""]
    if field not in NULLABLE:
        values.append(None)
    if isinstance(own, bool):
        return [*values, 1, 0, "true", "yes please", -1.5]
    if isinstance(own, int | float) or field in NUMBERS:
        values += [
            float("nan"),
            float("inf"),
            -float("inf"),
            -1,
            -rng.uniform(1e-6, 9),
            1e30,
            True,
            str(own or 32),
            "many",
            [own],
            10**40,
        ]
        values += [0] if field in NO_ZERO else []
        values += [1 + rng.uniform(0.001, 5)] if field in ABOVE_ONE else []
        values += [2.5] if isinstance(own, int) or field == "segmenter.crop_size" else []
        return values
    if isinstance(own, list):
        bad = rng.choice((float("nan"), -1, None, "x", True, 10**6))
        return [*values, [], [bad, *own[1:]], own[0], [*own, own], ["x"] * len(own)]
    return [*values, 7, True, 1.5, ["x"], "a\nb", " ", "x" * 5000, "\u200b"]


def _typos(rng) -> Iterator[Case]:
    for field in rng.sample(list(FIELDS), 8):
        section, _, name = field.rpartition(".")
        place = rng.randrange(len(name))
        typo = rng.choice(
            (
                name[:place] + name[place + 1 :],
                name[:place] + "x" + name[place:],
                name.upper(),
                f"{name} ",
                name.replace("_", "-") + "-",
            )
        )
        full = f"{section}.{typo}" if section else typo
        yield _profile("typo", _nested(full, FIELDS[field]), False, "yard.yaml, line", full)
    section = rng.choice([name for name, values in MICRO.items() if isinstance(values, dict)])
    for value in (None, 7, [], "x"):
        yield _profile("section", yaml.safe_dump({section: value}), False, section)
    yield _profile("section typo", f"{section}s:\n  steps: 3\n", False, f"{section}s")
    yield _profile("moved", f"steps: {rng.randint(2, 9)}\n", False, "steps")
    yield _profile("twice", "seed: 1\nseed: 2\n", False, "line 2", "seed")
    yield _profile("number as key", "diffusion:\n  7: 3\n", False, "7")


def _files(rng) -> Iterator[Case]:
    for text in (
        "[]",
        "7",
        "seed: [",
        "seed:\t3",
        "a",
        "seed: 3\n--- \nseed: 4\n",
        "\x00",
        "!!python/name:os.system",
        "&a {seed: *a}",
        "seed: 0x10",
        "seed: 1:30",
        "seed: 1e3",
        "? {a: b}\n: 3",
        "{" * 2000,
        "seed: 3\n\x1b[31m",
        "- seed: 3",
        "<<: 3",
        "<<: {seeds: 3}",
        "seed: !!float nan",
        "seed: 2026-11-27",
    ):
        yield _profile("file", text, False, "yard.yaml")
    yield _profile(
        "bomb",
        "a: &a {x: 1}\n"
        + "".join(
            f"{b}: &{b} {{{', '.join(f'k{i}: *{a}' for i in range(9))}}}\n"
            for a, b in zip("abcdefghi", "bcdefghij", strict=True)
        ),
        False,
        "yard.yaml",
    )
    yield _profile("bytes", b"seed: \xff\xfe", False, "yard.yaml, line 1")
    yield _profile("UTF-16", "seed: 3".encode("utf-16"), False, "yard.yaml")
    yield _profile(
        "byte-order mark",
        b"\xef\xbb\xbfseed: 3\r\n",
        True,
        check=lambda folder, _: (
            None if load_params(str(folder / "yard.yaml")).seed == 3 else "another seed"
        ),
    )
    yield _profile("empty", rng.choice(("{}", "# nothing\n{}\n")), True)
    yield _profile(
        "only remarks", rng.choice(("", "# nothing\n", "---\n", "null\n", "~")), False, "yard.yaml"
    )
    for base in (
        "7",
        "[micro]",
        "nobody",
        "../yard",
        "''",
        "yard.yaml",
        "~",
        "/etc/passwd",
        "{a: b}",
        "micro.yaml",
    ):
        yield _profile("base", f"base: {base}\n", False, "yard.yaml")
    one, two = rng.sample(("sd15", "sd21", "sdxl", "ci"), 2)
    yield _profile("base", f"base: {one}\nseed: 3\n", True)
    yield _profile("two bases", f"base: {one}\nbase: {two}\n", False, "line 2")
    yield _profile(
        "pairs",
        rng.choice(
            (
                "triplets: {min_area: 0.5, max_area: 0.4}",
                "grounding: {width: 100, heads: 3}",
                "synthetic: {ignore_band: [0.6, 0.4]}",
                "segmenter: {width: 40}",
                "segmenter: {scale_range: [0.5, 2.0]}",
                "benchmark: {source: folder}",
                "benchmark: {root: somewhere}",
                "executor: {workers: 2}\ndiffusion: {device: 'cuda:1'}",
                "prompts: {train_one: 0, train_two: 0}",
            )
        ),
        False,
        "yard.yaml, line",
    )


def _names(rng) -> Iterator[Case]:
    for name in rng.sample(
        (
            "../yard",
            "/tmp/yard",
            "a/b",
            "a\\b",
            "",
            ".",
            "..",
            "real",
            "Foundation",
            "micro",
            "sd15",
            "x" * 65,
            "yard\n",
            " yard",
            "ÿard",
            "-yard",
            ".yard",
            "~",
            "$HOME",
            "a b",
            "a;b",
            "CON:",
            "ci",
        ),
        8,
    ):
        yield _profile("profile", yaml.safe_dump({"profile": name}), False, "profile")
    for value in (7, True, None, ["x"], {"a": 1}):
        yield _profile("profile", yaml.safe_dump({"profile": value}), False, "profile")
    for file in (
        "a b.yaml",
        "real.yaml",
        "sd15.yaml",
        "ci.yml",
        ".yaml",
        "üb.yaml",
        "-x.yaml",
        "x" * 70 + ".yaml",
        "params.yaml.yaml;.yaml",
        "foundation.yml",
    ):
        yield _profile("file's name", "seed: 3\n", False, file=file)
    yield _profile(
        "file's name", f"seed: {rng.randrange(99)}\n", True, file="sub.folder/yard-2.yml"
    )
