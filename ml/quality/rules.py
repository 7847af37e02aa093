"""The rules of every stage, as literal tables of Great Expectations' expectations.

A rule names a table of `ml.quality.tables`, an expectation of GX and its arguments; a value "@name"
is a bound that depends on the settings (`bounds`). A verdict holds for its rules, bounds and
SETTINGS; raise SUITE_VERSION when the tables come to mean something else. GX is not imported here:
the names of the checks are needed where it is not installed. `python -m ml.quality.rules` prints
docs/checks.md.
"""

import functools
import sys

from ml.errors import exit_path
from ml.quality.rules_data import BENCHMARK, IMAGES, PROMPTS
from ml.quality.rules_labels import SYNTHETIC
from ml.quality.rules_masks import MASKS, TRIPLETS
from ml.quality.rules_models import BENCHMARK_SCORES, GROUNDING_SCORES, MODEL
from ml.settings.params import Params
from ml.words.vocabulary import load_vocabulary

SUITE_VERSION = 4


DOCS = "docs/checks.md"


# What bounds and tables read, of any stage; a verdict under other ones is judged again.
SETTINGS = (
    "vocabulary",
    "prompts",
    "triplets",
    "benchmark.source",
    "benchmark.subset",
    "checks.placement",
    "diffusion.model",
    "detector.score_threshold",
    "synthetic.max_ignore",
    "synthetic.min_area",
)


LIMITS = {
    "classes": "vocabulary",
    "seen": "vocabulary",
    "min_std": "triplets.min_std",
    "min_score": "triplets.min_score",
    "min_area": "triplets.min_area",
    "max_area": "triplets.max_area",
    "score_threshold": "detector.score_threshold",
    "min_label": "synthetic.min_area",
    "max_ignore": "synthetic.max_ignore",
    "placement": "checks.placement",
}
"""The setting that a bound "@name" depends on."""


RULES = {
    "benchmark": BENCHMARK,
    "prompts": PROMPTS,
    "images": IMAGES,
    "masks": MASKS,
    "triplets": TRIPLETS,
    "grounding_model": MODEL,
    "grounding_scores": GROUNDING_SCORES,
    "synthetic_dataset": SYNTHETIC,
    "segmenter": MODEL,
    "real_bound": MODEL,
    "benchmark_scores": BENCHMARK_SCORES,
}


def bounds(stage: str, params: Params) -> dict[str, object]:
    """What "@name" stands for in the stage's rules."""
    limits: dict[str, object] = {
        name: functools.reduce(getattr, at.split("."), params) for name, at in LIMITS.items()
    }
    vocabulary = load_vocabulary(params.vocabulary)
    limits |= {"classes": list(vocabulary.classes), "seen": list(vocabulary.seen)}
    if stage == "triplets":  # the stage's module imports torch
        from ml.pipeline import labelled_rows
        from ml.pipeline.stages.triplets import REASONS

        limits["reasons"] = ["", *REASONS]
        limits["own_reasons"] = ["", *labelled_rows.REASONS]
    return limits


def explained() -> str:
    """docs/checks.md: every stage's checks with what they demand."""
    lines = [
        "# Read the checks",
        "",
        "A failed check stops the graph before the next stage that reads the data, in the same run "
        "and in any later one. It names what was observed, what was expected, and the pictures or "
        "classes that break it: in `data/<profile>/quality/index.html`, and at its entry in the "
        "Dagster UI.",
        "",
        "1. Look at the named pictures: in the stage's contact sheet, or its shards.",
        "2. **The data is wrong**: mend its cause and make the stage again, with `--force`.",
        "3. **The data is right**, and a bound that comes from the profile (*@name* below) is too "
        "narrow for it: change that setting. The data is judged anew at the next run.",
        "",
        "<!-- run: tests/quality/test_quality.py -->",
        "```sh",
        ".venv/bin/python -m ml masks --profile ci --force",
        "make ui                                             # the verdicts beside the pictures",
        "```",
        "",
        "Checks with *checks.placement* hold masks against edges and heat maps. Their bounds were "
        "measured on the drawn world alone: `checks: {placement: false}`, which the profiles of "
        "Stable Diffusion have, leaves them out. What the checks notice of data that was spoiled "
        "on purpose, and what not: [Spoiled data](poison.md).",
        "",
        "This page is written by `python -m ml.quality.rules`. *of*: the table of values that a "
        "check is about, such as every row, or one value a class.",
        "",
    ]
    for stage, rules in RULES.items():
        lines += [f"## {stage}", "", "| check | of | demands |", "|---|---|---|"]
        for rule in rules:
            limits = [
                f"{key} {value}"
                for key, value in rule.arguments.items()
                if isinstance(value, str) and value.startswith("@")
            ]
            if rule.placement:
                limits.append("checks.placement")
            lines.append(
                f"| `{rule.name}` | {rule.table} | "
                f"{'; '.join([rule.says, *(f'*{limit}*' for limit in limits)])} |"
            )
        lines.append("")
    return "\n".join(lines)


@exit_path
def main() -> None:
    print(explained(), end="")


if __name__ == "__main__":
    sys.exit(main())
