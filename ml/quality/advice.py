"""What to do about a failed check, in a sentence or two of Markdown."""

from ml.quality.rules import DOCS, LIMITS, RULES
from ml.settings.params import Params

PICTURES = {
    "benchmark": "benchmark",
    "images": "images",
    "masks": "images",
    "triplets": "images",
    "synthetic_dataset": "synthetic_dataset",
}
"""The stage that holds the pictures of a judged stage's rows."""


def advice(stage: str, name: str, params: Params) -> str:
    """What to do about the failed check `name` of a stage: what to look at, the command that makes
    the stage again, and the settings on which the rule's bounds depend."""
    (rule,) = [rule for rule in RULES[stage] if rule.name == name]
    limits = [v[1:] for v in rule.arguments.values() if isinstance(v, str) and v.startswith("@")]
    settings = [LIMITS[limit] for limit in limits if limit in LIMITS]
    if rule.placement:
        settings.append(LIMITS["placement"])
    look = "the offending pictures" if stage in PICTURES else "what was observed"
    file = params.file or f"profiles/{params.profile}.yaml"
    own = file in (f"profiles/{params.profile}.yaml", "params.yaml")
    again = f"python -m ml {stage} --profile {params.profile if own else file} --force"
    text = f"Look at {look}. If the data is wrong, mend its cause and make it again: `{again}`. "
    if not settings:
        return text + f"This rule has no setting; what it demands stands in {DOCS}#{stage}."
    named = " or ".join(f"`{setting}`" for setting in dict.fromkeys(settings))
    return text + (
        f"If it is right and the bound does not fit it, change {named} in `{file}`; the next run "
        "judges it anew."
    )
