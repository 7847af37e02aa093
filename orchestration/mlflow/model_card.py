"""The model card of a registered version: what it is, from what, how good. Markdown."""

import html
import math
import re

from ml.pipeline.facts import flatten, paths
from ml.store.manifest import Manifest

MOST_DESCRIPTION = 5000  # characters of a version's description in a store's column

ABOUT = {
    "grounding": "Turns the features of a frozen diffusion model and a word into a mask, also for "
    "words that it was never trained on.\n\nInput: a table with `image` (PNG bytes) "
    "and `words` (words in the picture). Output: `masks`, a list of run-length "
    "masks (JSON of pycocotools), one a word.",
    "segmenter": "Labels every pixel of a picture with a class. Trained on pictures that a "
    "diffusion model drew and the grounding module labelled; no human drew a mask.\n\n"
    "Input: uint8 pictures (n,H,W,3), RGB. Output: uint8 label maps (n,H,W), 0 "
    "background, i+1 the i-th class of the vocabulary in alphabetical order.",
}
LIMITS = {
    "grounding": "Words name object classes; two objects of one class in a picture share a mask. "
    "Scores hold for pictures of the diffusion model it was trained with.",
    "segmenter": "Knows the vocabulary's classes only. The micro profile's figures are measured on "
    "drawn scenes and say nothing about photographs.",
}


def model_card(model: str, made: Manifest, scores: Manifest, per_class: bool = True) -> str:
    """Markdown; every number comes from the manifests, and class names are shown as typed."""
    lines = [f"# {model}", "", ABOUT[model], "", "## Scores", "", "| score | value |", "|---|---|"]
    lines += [
        f"| {cell('/'.join(path))} | {value:.2f} |"
        for path, value in _scores(scores)
        if "per_class" not in path
    ]
    if "benchmark" in scores.facts:
        lines += ["", f"Measured on: {cell(scores.facts['benchmark'])}."]
    if scores.facts.get("held_out_synthetic"):
        lines += [
            "",
            "There was **no real benchmark**: the truth is the grounding module's own "
            "labels of synthetic pictures, so nothing here is a score on photographs.",
        ]
    classes = [(path, value) for path, value in _scores(scores) if "per_class" in path]
    if per_class and classes:
        lines += ["", "## Classes", "", "| score | class | value |", "|---|---|---|"]
        lines += [
            f"| {cell('/'.join(p for p in path[:-1] if p != 'per_class'))} | "
            f"{cell(path[-1])} | {value:.2f} |"
            for path, value in classes
        ]
    lines += ["", "## Made from", "", "| input | sha256 |", "|---|---|"]
    lines += [f"| {cell(key)} | {cell(value)} |" for key, value in made.inputs.items()]
    lines += ["", "## Settings", "", "| setting | value |", "|---|---|"]
    lines += [f"| {cell(key)} | {cell(value)} |" for key, value in flatten(made.params).items()]
    lines += ["", "## Limits", "", LIMITS[model], "", f"Manifest sha256: `{made.digest}`", ""]
    return "\n".join(lines)


def describe_version(model: str, made: Manifest, scores: Manifest) -> str:
    """The card without its classes, at most as long as a version's description may be."""
    text = model_card(model, made, scores, per_class=False)
    rest = "\n\n(cut; the whole is `model_card.md` of the run)\n"
    return text if len(text) <= MOST_DESCRIPTION else text[: MOST_DESCRIPTION - len(rest)] + rest


def cell(value: object) -> str:
    """A user's text for a cell of a Markdown table: escaped, so that it is shown as typed."""
    line = " ".join(str(value).split())
    return re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", html.escape(line, quote=False))


def _scores(scores: Manifest) -> list[tuple[tuple[str, ...], float]]:
    return [
        (path, value)
        for path, value in paths(scores.facts).items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and "intervals" not in path
    ]
