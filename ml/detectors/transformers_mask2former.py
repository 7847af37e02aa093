"""Mask2Former for instances, through transformers.

`path` is a folder or a hub id such as "facebook/mask2former-swin-small-coco-instance".
"""

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoImageProcessor, Mask2FormerForUniversalSegmentation

from ml.detectors.base import Detector


class TransformersMask2Former(Detector):
    """Pictures are squeezed to a square, as the published checkpoints are used, so that a batch
    may hold pictures of any sizes and a mask always spans its whole picture (no padding)."""

    def __init__(self, path: str, *, score_threshold: float, device: str, batch_size: int):
        self.processor = AutoImageProcessor.from_pretrained(path)
        self.model = Mask2FormerForUniversalSegmentation.from_pretrained(path).eval().to(device)
        self.device = device
        self.names = self.model.config.id2label
        size = dict(self.processor.size)
        side = size.get("height") or size.get("shortest_edge") or 384
        self.size = {"height": side, "width": side}
        super().__init__(
            list(self.names.values()), score_threshold=score_threshold, batch_size=batch_size
        )

    @torch.inference_mode()
    def predict(self, images: list[np.ndarray]) -> list[tuple]:
        pixels = self.processor(images=images, size=self.size, do_pad=False, return_tensors="pt")
        output = self.model(pixel_values=pixels["pixel_values"].to(self.device))
        return [
            self._one(classes, masks, image.shape[:2])
            for classes, masks, image in zip(
                output.class_queries_logits.float().cpu(),
                output.masks_queries_logits.float().cpu(),
                images,
                strict=True,
            )
        ]

    def _one(self, class_logits: torch.Tensor, mask_logits: torch.Tensor, hw: tuple) -> tuple:
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


def mask_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """x1,y1,x2,y2 around a mask bool (H,W), far edges exclusive; zeros for an empty mask."""
    if not mask.any():
        return 0, 0, 0, 0
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
