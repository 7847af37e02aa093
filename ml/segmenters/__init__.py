"""Segmenters: models from a picture to a label map, behind one literal table.

An architecture is a module with `build`, `load`, `sizes`, `loss`, `label_scores` and `backbone_of`,
named as its transformers `model_type`, so that a saved folder says which one it is. Training and
prediction (`training.py`) are the same for all of them.
"""

from pathlib import Path
from types import ModuleType

from transformers import PreTrainedModel

from ml.segmenters import maskformer, segformer
from ml.store.reading import read_object
from ml.store.registry_folder import downloaded, refuse_address

ARCHITECTURES: dict[str, ModuleType] = {"maskformer": maskformer, "segformer": segformer}


def architecture(name: str) -> ModuleType:
    """The module of an architecture. Raises ValueError for an unknown name."""
    if name not in ARCHITECTURES:
        raise ValueError(
            f"unknown segmenter.architecture {name!r}: expected one of {sorted(ARCHITECTURES)}"
        )
    return ARCHITECTURES[name]


def load_segmenter(folder: Path | str) -> PreTrainedModel:
    """Opens a trained segmenter, a model of transformers.

    Args:
        folder: of the stage `segmenter` (`data/<profile>/segmenter`), its `model` inside, or a
            registered model that was downloaded.

    Returns:
        The model on the CPU, in eval mode; `config.id2label` names its labels, 0 is background.
        With `ml.segmenters.processor.image_processor` it goes into `transformers.pipeline`.

    Raises:
        ValueError: an address of the model registry, a folder without a segmenter, or a damaged
            one.

    Examples:
        >>> from ml import load_segmenter
        >>> model = load_segmenter(segmenter_folder)
        >>> model.config.id2label[0], model.training
        ('background', False)
    """
    refuse_address(str(folder), "load_segmenter")
    place = downloaded(Path(folder))
    if not (place / "config.json").is_file() and (place / "model").is_dir():
        place = place / "model"
    file = place / "config.json"
    if not file.is_file():
        raise ValueError(
            f"no segmenter in {folder}: expected config.json and model.safetensors, "
            "as the stage 'segmenter' leaves them in its folder `model`"
        )
    kind = read_object(file).get("model_type")
    model: PreTrainedModel = architecture(kind if isinstance(kind, str) else repr(kind)).load(place)
    return model
