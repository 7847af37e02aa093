"""Box masks put onto the picture at the box's exact position instead of at whole pixels."""

import torch
from torch.nn import functional
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes

PASTED_AT_ONCE = 16
"""Masks put onto the picture in one step: 100 of 1024x1024 pixels at once would take 1.6 GB."""


class SubpixelTransform(GeneralizedRCNNTransform):  # type: ignore[misc]  # it has no types
    """Pastes masks at the box's exact position; they come out binary, bool (n,1,H,W).

    torchvision rounds boxes to whole pixels of the original picture, which costs small objects
    their outline (docs/ablations.md#pasting-masks-below-the-pixel).
    """

    def postprocess(
        self,
        result: list[dict[str, torch.Tensor]],
        image_shapes: list[tuple[int, int]],
        original_image_sizes: list[tuple[int, int]],
    ) -> list[dict[str, torch.Tensor]]:
        if self.training:
            return result
        for found, shape, original in zip(result, image_shapes, original_image_sizes, strict=True):
            # Training targets are cut out by roi_align(aligned=False), whose pixel i is centred
            # at i instead of i + 0.5: a mask lies half an enlarged pixel beyond its box.
            shifted = resize_boxes(found["boxes"] + 0.5, shape, original)
            parts = zip(found["masks"].split(PASTED_AT_ONCE), shifted.split(PASTED_AT_ONCE),
                        strict=True)  # fmt: skip
            found["masks"] = torch.cat([paste(*part, original) > 0.5 for part in parts])
            found["boxes"] = resize_boxes(found["boxes"], shape, original)
        return result


def paste(masks: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Box masks onto the picture.

    masks: float (n,1,m,m) in 0..1, each spanning its box. boxes: float (n,4) x1,y1,x2,y2 in
    pixels, far edges exclusive. size: (H,W). Returns float (n,1,H,W), 0 outside the box.
    """
    height, width = size
    x1, y1, x2, y2 = boxes.to(masks.dtype)[:, :, None].unbind(1)
    centres_x = torch.arange(width, device=masks.device, dtype=masks.dtype) + 0.5
    centres_y = torch.arange(height, device=masks.device, dtype=masks.dtype) + 0.5
    across = (centres_x - x1) / (x2 - x1).clamp(min=1e-3) * 2 - 1  # (n,W), -1..1 inside the box
    down = (centres_y - y1) / (y2 - y1).clamp(min=1e-3) * 2 - 1  # (n,H)
    shape = (len(boxes), height, width)
    grid = torch.stack([across[:, None, :].expand(shape), down[:, :, None].expand(shape)], dim=-1)
    return functional.grid_sample(masks, grid, align_corners=False)
