"""The model card of a registered version: what it is, from what, how good. Markdown."""

from ml.manifest import Manifest
from orchestration.metadata import flatten

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


def model_card(name: str, model: Manifest, scores: Manifest) -> str:
    """Markdown; every number is taken from the manifests."""
    lines = [f"# {name}", "", ABOUT[name], "", "## Scores", "", "| score | value |", "|---|---|"]
    lines += [f"| {key} | {value:.2f} |" for key, value in flatten(scores.facts).items()
              if isinstance(value, int | float) and not isinstance(value, bool)
              and "per_class" not in key
              and "intervals" not in key]
    if "benchmark" in scores.facts:
        lines += ["", f"Measured on: {scores.facts['benchmark']}."]
    if scores.facts.get("held_out_synthetic"):
        lines += ["", "There was **no real benchmark**: the truth is the grounding module's own "
                  "labels of synthetic pictures, so nothing here is a score on photographs."]
    lines += ["", "## Made from", "", "| input | sha256 |", "|---|---|"]
    lines += [f"| {key} | `{value}` |" for key, value in model.inputs.items()]
    lines += ["", "## Settings", "", "| setting | value |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in flatten(model.params).items()]
    lines += ["", "## Limits", "", LIMITS[name], "", f"Manifest sha256: `{model.digest}`", ""]
    return "\n".join(lines)
