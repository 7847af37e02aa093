"""Mask2Former for instances, through transformers.

`path` is a folder or a hub id such as "facebook/mask2former-swin-small-coco-instance".
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    Mask2FormerForUniversalSegmentation,
    PreTrainedConfig,
)

from ml.compute.weights import check_finite, load_whole
from ml.detectors.base import FINITE, Detector, Found
from ml.detectors.weights import load_weights
from ml.images.boxes import mask_box


class Preprocessor(Protocol):
    """What is used of an image processor of transformers."""

    size: Mapping[str, int]
    do_resize: bool

    def __call__(self, **options: Any) -> Mapping[str, torch.Tensor]: ...


class TransformersMask2Former(Detector):
    """Pictures are resized to a square, as the published checkpoints are used, so that a batch
    may hold pictures of any sizes and a mask always spans its whole picture (no padding).

    path: a folder (config.json, preprocessor_config.json, model.safetensors) or a hub id, at
    `revision`. weights: a file in place of the model.safetensors.
    """

    def __init__(
        self, path: str, *, weights: str | None, revision: str | None, device: str,
        score_threshold: float, batch_size: int,
    ) -> None:  # fmt: skip
        self.processor, self.model = load_mask2former(path, weights, revision)
        network: nn.Module = self.model  # torch's `to` has types
        network.eval().to(device)
        self.device = device
        self.names = label_names(self.model.config)
        self.size = input_size(path, self.processor)
        super().__init__(
            list(self.names.values()), score_threshold=score_threshold, batch_size=batch_size
        )

    @torch.inference_mode()
    def predict(self, images: Sequence[np.ndarray]) -> list[Found]:
        pixels = self.processor(images=images, size=self.size, do_pad=False, return_tensors="pt")
        output = self.model(pixel_values=pixels["pixel_values"].to(self.device))
        for logits in (output.class_queries_logits, output.masks_queries_logits):
            check_finite(logits, "what the detector's network says", FINITE)
        return [
            self._one(classes, masks, (image.shape[0], image.shape[1]))
            for classes, masks, image in zip(
                output.class_queries_logits.float().cpu(),
                output.masks_queries_logits.float().cpu(),
                images,
                strict=True,
            )
        ]

    def _one(
        self, class_logits: torch.Tensor, mask_logits: torch.Tensor, hw: tuple[int, int]
    ) -> Found:
        """class_logits: float32 (Q,K+1), the last class is "no object"; mask_logits: (Q,h,w).

        The paper's instance rule (arXiv 2112.01527): the Q best (query, class) pairs, each scored
        by its class probability times the mean mask probability inside its mask. Written out,
        because `post_process_instance_segmentation` assumes inputs of 384 pixels and resizes
        masks after they are binary.
        """
        probabilities = class_logits.softmax(-1)[:, :-1]
        scores, flat = probabilities.flatten().topk(len(class_logits))
        query = flat // probabilities.shape[1]
        labels = flat % probabilities.shape[1]
        kept = scores >= self.score_threshold  # mask scores only lower them: resize just these
        scores, query, labels = scores[kept], query[kept], labels[kept]
        if not len(query):  # `interpolate` refuses no masks at all
            none = np.zeros(0, np.float32)
            return np.zeros((0, *hw), bool), none, [], none.reshape(0, 4)
        logits = functional.interpolate(
            mask_logits[query][None], size=hw, mode="bilinear", align_corners=False
        )[0]
        masks = logits > 0
        inside = (logits.sigmoid() * masks).flatten(1).sum(1)
        scores = scores * inside / masks.flatten(1).sum(1).clamp(min=1)
        return (
            masks.numpy(),
            scores.numpy(),
            [self.names[int(i)] for i in labels],
            np.array([mask_box(mask) for mask in masks.numpy()], np.float32),
        )


def load_mask2former(
    path: str, weights: str | None, revision: str | None
) -> tuple[Preprocessor, Mask2FormerForUniversalSegmentation]:
    """(image processor, network) of an instance checkpoint, from safetensors only.

    Raises ValueError for another kind of checkpoint or weights that do not fit it, OSError,
    saying what to do, for files that are neither here nor at the hub.
    """
    where = {"revision": revision or "main"}
    try:
        config = AutoConfig.from_pretrained(path, **where)
        _refuse_other_kinds(path, config)
        processor: Preprocessor = AutoImageProcessor.from_pretrained(path, **where)
        kind = Mask2FormerForUniversalSegmentation
        if weights:
            model = load_whole(kind, f"detector.weights {weights!r}", None, config=config,
                               state_dict=load_weights(Path(weights)).tensors)  # fmt: skip
        else:
            model = load_whole(kind, f"detector.model {path!r}", path, config=config, **where)
    except FileNotFoundError:
        raise
    except OSError as error:
        message = " ".join(str(error).split())
        raise OSError(
            f"detector.model {path!r}: expected a folder with config.json, "
            "preprocessor_config.json and model.safetensors, or the hub id of one that can be "
            f"reached from here; got: {message} Without a network, bring the folder from a "
            "machine that has one (`hf download`) and set detector.model to it"
        ) from error
    except SafetensorError as error:
        raise ValueError(
            f"detector.model {path!r}: model.safetensors is damaged or half a download ({error}): "
            "delete it and get it again"
        ) from error
    return processor, model


def input_size(path: str, processor: Preprocessor) -> dict[str, int]:
    """The size that pictures are resized to: height and width, or a square of the shortest edge.

    Raises ValueError for a preprocessor_config.json that asks for something else.
    """
    size = dict(processor.size)
    square = size.get("shortest_edge")
    height, width = size.get("height", square), size.get("width", square)
    if height is None or width is None or not processor.do_resize:
        raise ValueError(
            f"detector.model {path!r}: its preprocessor_config.json has do_resize "
            f"{processor.do_resize} and size {size}: expected true, and height and width or "
            "shortest_edge"
        )
    return {"height": height, "width": width}


def label_names(config: PreTrainedConfig) -> dict[int, str]:
    """Label names by the network's index."""
    return {int(index): name for index, name in (config.id2label or {}).items()}


def _refuse_other_kinds(path: str, config: PreTrainedConfig) -> None:
    """No field of the configuration tells an instance checkpoint from a panoptic or semantic one;
    the labels do: those have sky, and COCO's panoptic ones "...-merged" stuff."""
    if config.model_type != "mask2former":
        raise ValueError(
            f"detector.model {path!r} is of type {config.model_type!r}: expected a Mask2Former "
            "trained for instances, such as facebook/mask2former-swin-small-coco-instance"
        )
    stuff = [name for name in label_names(config).values()
             if name.lower().startswith("sky") or name.endswith("-merged")]  # fmt: skip
    if stuff:
        raise ValueError(
            f"detector.model {path!r} was trained for panoptic or semantic segmentation: it "
            f"labels stuff ({', '.join(stuff[:3])}). Take its instance sibling ('...-instance')"
        )
