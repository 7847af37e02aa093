"""A segmenter as users of transformers have it: its image processor, for `transformers.pipeline`.

The saved folder has none, because the size that pictures are enlarged to depends on theirs. Not
here: the labels of the benchmark, which `ml.segmenters.prediction` makes.
"""

from typing import Any

from transformers import MaskFormerImageProcessor, PreTrainedModel, SegformerImageProcessor
from transformers.image_processing_utils import BaseImageProcessor

PROCESSORS: dict[str, type[BaseImageProcessor]] = {
    "maskformer": MaskFormerImageProcessor,
    "segformer": SegformerImageProcessor,
}
RESIZED_ONLY: dict[str, dict[str, Any]] = {"maskformer": {"size_divisor": 1}, "segformer": {}}
"""Of a class of transformers, what keeps it from padding."""


def image_processor(model: PreTrainedModel, size: tuple[int, int]) -> BaseImageProcessor:
    """What brings pictures to the form that a segmenter was trained on.

    The label maps of `transformers.pipeline` are close to ours, not the same: transformers enlarges
    finished scores where we enlarge the logits, which moves one or two pixels in a hundred, at the
    edges of objects. Call the pipeline with `subtask="semantic"`: without it transformers takes a
    MaskFormer for a panoptic model and leaves objects out.

    Args:
        model: from `load_segmenter`.
        size: (H, W) in pixels that pictures are resized to before the model's own enlargement: that
            of the pictures it was trained on (64x64 for the micro model). Label maps come back at
            each picture's own size.

    Returns:
        The image processor for `transformers.pipeline("image-segmentation", ...)`.

    Raises:
        ValueError: a model that is none of ours, or a size below 1.

    Examples:
        >>> import transformers
        >>> from ml import load_segmenter
        >>> from ml.segmenters.processor import image_processor
        >>> model = load_segmenter(segmenter_folder)
        >>> segment = transformers.pipeline(
        ...     "image-segmentation", model=model, image_processor=image_processor(model, (64, 64))
        ... )
        >>> found = segment(picture, subtask="semantic")
        >>> {entry["mask"].size for entry in found} == {picture.size}
        True
        >>> {entry["label"] for entry in found} <= set(model.config.id2label.values())
        True
    """
    kind, config = model.config.model_type, model.config
    if kind not in PROCESSORS or not hasattr(config, "picture_scale"):
        raise ValueError(
            f"expected a segmenter from load_segmenter ({', '.join(PROCESSORS)}), got {kind!r}"
        )
    if min(size) < 1:
        raise ValueError(f"size: expected (height, width) of 1 pixel or more, got {size}")
    height, width = (side * config.picture_scale for side in size)
    mean = getattr(config, "pixel_mean", None)
    normalised = {"image_mean": mean, "image_std": config.pixel_std} if mean else {}
    return PROCESSORS[kind](
        do_resize=True,
        size={"height": height, "width": width},
        do_rescale=True,
        do_normalize=bool(mean),
        **normalised,
        **RESIZED_ONLY[kind],
    )
