"""Segmenters: models from a picture to a label map, behind one literal table.

An architecture is a module with `build`, `load`, `sizes`, `loss`, `label_scores` and `backbone_of`,
named as its transformers `model_type`, so that a saved folder says which one it is. Training and
prediction (`training.py`) are the same for all of them.
"""

from pathlib import Path
from types import ModuleType

from torch import nn

from ml.segmenters import maskformer, segformer
from ml.store.reading import read_object

ARCHITECTURES: dict[str, ModuleType] = {"maskformer": maskformer, "segformer": segformer}


def architecture(name: str) -> ModuleType:
    """The module of an architecture. Raises ValueError for an unknown name."""
    if name not in ARCHITECTURES:
        raise ValueError(
            f"unknown segmenter.architecture {name!r}: expected one of {sorted(ARCHITECTURES)}"
        )
    return ARCHITECTURES[name]


def load_segmenter(folder: Path) -> nn.Module:
    """A trained segmenter from its folder, in eval mode; `config.id2label` names its labels.

    Raises ValueError when the folder holds no segmenter.
    """
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise ValueError(
            f"no segmenter in {folder}: expected config.json and model.safetensors, "
            "as the stage 'segmenter' leaves them in its folder `model`"
        )
    return architecture(read_object(file).get("model_type")).load(folder)
