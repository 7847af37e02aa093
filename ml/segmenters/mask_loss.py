"""MaskFormer's loss over a whole batch, with pixels that do not count.

The terms and the matching are those of arXiv 2107.06278 as transformers computes them (focal +
dice on masks, cross-entropy on classes, Hungarian matching; tests compare the two). Written again
for two reasons: theirs has no ignored pixels, so that an uncertain pixel would train every mask
to exclude it, and theirs loops over pictures, one Hungarian cost a picture and layer.
"""

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from ml.compute.weights import check_loss

IGNORED = 255
ALPHA, GAMMA = 0.25, 2.0  # of the focal loss
WEIGHT_MASK, WEIGHT_DICE = 20.0, 1.0  # MaskFormer's defaults
NO_OBJECT_WEIGHT = 0.1  # of a query that is matched to nothing


@dataclass(frozen=True)
class Targets:
    """One mask per label that is in a picture, background too, padded to the fullest picture.

    masks: float32 (B,K,H,W) of 0 and 1. classes: int64 (B,K), 0 background, -1 padding.
    counts: float32 (B,1,H,W), 1 where the pixel counts.
    """

    masks: Tensor
    classes: Tensor
    counts: Tensor


def make_targets(labels: Tensor) -> Targets:
    """labels: uint8 or int64 (B,H,W), 0..n and 255 where a pixel is ignored."""
    labels = labels.long()
    present = [row.nonzero()[:, 0] for row in _shown(labels)]
    size = max(1, *(len(row) for row in present))
    padded = [functional.pad(row, (0, size - len(row)), value=-1) for row in present]
    classes = torch.stack(padded)
    masks = (labels[:, None] == classes[:, :, None, None]).float()
    return Targets(masks, classes, (labels != IGNORED).float()[:, None])


def _shown(labels: Tensor) -> Tensor:
    """Which labels a picture holds: bool (B,256) of int64 (B,H,W), False for 255."""
    shown = torch.zeros(len(labels), 256, dtype=torch.bool, device=labels.device)
    shown.scatter_(1, labels.flatten(1), True)
    shown[:, IGNORED] = False
    return shown


def loss_sizes(labels: Tensor, queries: int) -> Tensor:
    """What a layer's two terms divide by: the weights of all queries, the number of masks.

    labels: uint8 or int64 (B,H,W). Returns float64 (2,); sizes of parts add up to the batch's.
    """
    masks = _shown(labels.long()).sum(1).double()
    matched = masks.clamp(max=queries)
    weights = matched + NO_OBJECT_WEIGHT * (queries - matched)
    return torch.stack([weights.sum(), masks.sum()])


def mask_loss(
    class_logits: Tensor,
    mask_logits: Tensor,
    targets: Targets,
    share: Tensor | None = None,
    class_weight: float = 1.0,
) -> Tensor:
    """The loss of all decoder layers, summed over layers: a scalar.

    class_logits: (L,B,Q,n+2), the last column is "no object". mask_logits: (L,B,Q,h,w), h and w
    may be smaller than the picture. share: (2,), when this is a part of a batch, its `loss_sizes`
    over the batch's, so that the losses of the parts add up to the batch's. class_weight: of the
    classes, in loss and matching, beside 20 for masks and 1 for dice. Always in float32: a sum over
    the pixels of a picture would not fit into float16.
    """
    with torch.autocast(mask_logits.device.type, enabled=False):
        return _mask_loss(class_logits.float(), mask_logits.float(), targets, share, class_weight)


def _mask_loss(
    class_logits: Tensor,
    mask_logits: Tensor,
    targets: Targets,
    share: Tensor | None,
    class_weight: float,
) -> Tensor:
    layer, picture, query, target = _match(
        class_logits.detach(), mask_logits.detach(), targets, class_weight
    )
    wanted = torch.full(
        class_logits.shape[:3], class_logits.shape[-1] - 1, device=class_logits.device
    )
    wanted[layer, picture, query] = targets.classes[picture, target]
    weight = torch.ones(class_logits.shape[-1], device=class_logits.device)
    weight[-1] = NO_OBJECT_WEIGHT
    layers = class_logits.shape[0]
    class_loss = sum(
        functional.cross_entropy(class_logits[i].flatten(0, 1), wanted[i].flatten(), weight)
        for i in range(layers)
    )
    truth = targets.masks[picture, target].flatten(1)
    counts = targets.counts[picture].flatten(1)
    chosen = mask_logits[layer, picture, query]
    chosen = functional.interpolate(chosen[:, None], targets.masks.shape[-2:], mode="bilinear")
    focal, dice = _focal_and_dice(chosen.flatten(1), truth, counts)
    masks = (targets.classes >= 0).sum().clamp(min=1)  # of one layer
    of_masks = (WEIGHT_MASK * focal + WEIGHT_DICE * dice) / masks
    if share is not None:
        class_loss, of_masks = class_loss * share[0], of_masks * share[1]
    return class_weight * class_loss + of_masks


def _focal_and_dice(logits: Tensor, truth: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over masks (M, pixels) of the mean focal loss and of the dice loss where it counts."""
    probability = logits.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    wrong = probability + truth - 2 * probability * truth  # 1 - p_t
    share = (1 - ALPHA) + (2 * ALPHA - 1) * truth
    focal = (share * wrong**GAMMA * entropy * counts).sum(1) / counts.sum(1).clamp(min=1)
    probability = probability * counts
    overlap = 2 * (probability * truth).sum(1)
    dice = 1 - (overlap + 1) / (probability.sum(1) + truth.sum(1) + 1)
    return focal.sum(), dice.sum()


def _match(
    class_logits: Tensor, mask_logits: Tensor, targets: Targets, class_weight: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The cheapest one-to-one assignment of queries to masks, in every layer and picture.

    Returns int64 vectors of one length: layer, picture, query and mask of every matched pair.
    Costs are taken at the resolution of the predicted masks. Raises NotFinite for outputs that are
    not finite.
    """
    layers, batch, queries, height, width = mask_logits.shape
    masks = functional.interpolate(targets.masks, (height, width), mode="nearest").flatten(2)
    counts = functional.interpolate(targets.counts, (height, width), mode="nearest").flatten(2)
    logits = mask_logits.flatten(3)
    probability = logits.sigmoid()
    positive = ALPHA * (1 - probability) ** GAMMA * functional.softplus(-logits)
    negative = (1 - ALPHA) * probability**GAMMA * functional.softplus(logits)
    inside, outside = masks.transpose(1, 2), ((1 - masks) * counts).transpose(1, 2)
    cost = (positive @ inside + negative @ outside) / counts.sum(-1).clamp(min=1)[..., None]
    cost = WEIGHT_MASK * cost
    sizes = (probability @ counts.transpose(1, 2)) + masks.sum(-1)[:, None]
    cost = cost + WEIGHT_DICE * (1 - (2 * probability @ inside + 1) / (sizes + 1))
    probable = class_logits.softmax(-1)
    wanted = targets.classes.clamp(min=0)[None, :, None].expand(layers, -1, queries, -1)
    costs = (cost - class_weight * probable.gather(3, wanted)).cpu().numpy()
    check_loss(float(costs.sum(dtype="float64")), "MaskFormer")  # the matching takes no NaN
    known = (targets.classes >= 0).sum(1).tolist()
    pairs = [
        (layer, picture, query, target)
        for layer in range(layers)
        for picture in range(batch)
        for query, target in zip(
            *linear_sum_assignment(costs[layer, picture, :, : known[picture]]), strict=True
        )
    ]
    found = torch.tensor(pairs, dtype=torch.int64, device=mask_logits.device).reshape(-1, 4)
    return found[:, 0], found[:, 1], found[:, 2], found[:, 3]
