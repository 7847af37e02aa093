"""The methods that Protocol I compares: row labels, names in raw rows, specifications."""

from dataclasses import replace

from ml.studies.specs import Spec

TRAINED = {
    "our default": "seeded",
    "the paper's module": "paper",
    "the paper's module, our upsampling": "paper-upsampled",
}
"""Row label -> method in the raw rows."""

SPECS = {
    "seeded": Spec(),
    "paper": Spec(variant="paper"),
    "paper-upsampled": Spec(variant="paper", learned_upsampling=True),
}
"""Method -> what is trained. Features of 16x16 are the micro world's limit: the authors' bilinear
masks are coarser there than their method is, so that the fair opponent has our upsampling too."""

BASELINES = {
    "DAAM, best threshold": "daam",
    "DAAM, threshold 0.4": "daam-0.4",
    "contrast alone": "contrast",
    "OVAM, attribution prompts": "ovam-attribution",
    "OVAM, optimised queries": "ovam-optimised",
}
"""Row label -> method in the raw rows."""


def spec_of(method: str, split: str) -> Spec:
    """What is trained for a method of TRAINED on a split."""
    return replace(SPECS[method], vocabulary=split)
