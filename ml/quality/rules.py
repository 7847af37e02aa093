"""The rules of every stage, as literal tables of Great Expectations' expectations.

A rule names a table of `ml.quality.tables`, an expectation of GX and its arguments; a value "@name"
is a bound that depends on the settings (`bounds`). A verdict holds for its rules, bounds and
SETTINGS; raise SUITE_VERSION when the tables come to mean something else. GX is not imported here:
the names of the checks are needed where it is not installed. `python -m ml.quality.rules` prints
docs/checks.md.
"""

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
    vocabulary, filters = load_vocabulary(params.vocabulary), params.triplets
    limits = {
        "classes": list(vocabulary.classes),
        "seen": list(vocabulary.seen),
        "min_std": filters.min_std,
        "min_score": filters.min_score,
        "min_area": filters.min_area,
        "max_area": filters.max_area,
        "score_threshold": params.detector.score_threshold,
        "min_label": params.synthetic.min_area,
        "max_ignore": params.synthetic.max_ignore,
        "placement": params.checks.placement,
    }
    if stage == "triplets":  # the stage's module imports torch
        from ml.pipeline import labelled_rows
        from ml.pipeline.stages.triplets import REASONS

        limits["reasons"] = ["", *REASONS]
        limits["own_reasons"] = ["", *labelled_rows.REASONS]
    return limits


def explained() -> str:
    """docs/checks.md: every stage's checks with what they demand."""
    lines = [
        "# The checks between the stages",
        "",
        "Written by `python -m ml.quality.rules`. A failed check stops the graph before "
        "the next stage that reads the data, in the same run and in any later one. Its entry "
        "in the Dagster UI, and `data/<profile>/quality/index.html`, name what was observed, "
        "what was expected and the pictures or classes that break it.",
        "",
        "What to do: look at the named pictures (the stage's contact sheet, or its shards). "
        "If the data is wrong, mend its cause and make the stage again (`python -m ml <stage> "
        "--force`). If the data is right and a bound that comes from the profile (*@name*) is "
        "too narrow for it, change that setting: the data is judged anew at the next run.",
        "",
        "Checks with *checks.placement* hold masks against edges and heat maps. Their bounds were "
        "measured on the drawn world alone: `checks: {placement: false}`, which the profiles of "
        "Stable Diffusion have, leaves them out.",
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
