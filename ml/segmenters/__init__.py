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
from ml.store.registry_folder import model_folder

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

    In `transformers.pipeline("image-segmentation", ...)` pass it as an object, with
    `ml.segmenters.processor.image_processor(model, size)`: the saved folder holds no
    `preprocessor_config.json`, so that the folder's path as `model=` fails. `size` is (H, W) of the
    pictures it was trained on. Call the pipeline with `subtask="semantic"`: without it transformers
    takes a MaskFormer for a panoptic model and leaves objects out.

    Args:
        folder: of the stage `segmenter` (`data/<profile>/segmenter`), its `model` inside, or a
            registered model that was downloaded.

    Returns:
        The model on the CPU, in eval mode; `config.id2label` names its labels, 0 is background.

    Raises:
        ValueError: an address of the model registry, what is no folder's path, a folder that is not
            there, one without a segmenter, or a damaged one.

    Examples:
        >>> from ml import load_segmenter
        >>> model = load_segmenter(segmenter_folder)
        >>> model.config.id2label[0], model.training
        ('background', False)
        >>> import transformers
        >>> from ml.segmenters.processor import image_processor
        >>> segment = transformers.pipeline(
        ...     "image-segmentation", model=model, image_processor=image_processor(model, (64, 64))
        ... )
        >>> found = segment(picture, subtask="semantic")
        >>> {entry["mask"].size for entry in found} == {picture.size}
        True
    """
    place = model_folder(folder, "load_segmenter")
    if not (place / "config.json").is_file() and (place / "model").is_dir():
        place = place / "model"
    file = place / "config.json"
    kind = read_object(file).get("model_type") if file.is_file() else None
    if not isinstance(kind, str):
        raise ValueError(
            f"no segmenter in {folder}: expected config.json and model.safetensors, "
            "as the stage 'segmenter' leaves them in its folder `model`"
        )
    model: PreTrainedModel = architecture(kind).load(place)
    return model
