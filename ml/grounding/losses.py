"""Losses of the grounding module. A word without an accepted mask is not trained on.

Masks are bool (B,N,H,W), `present` bool (B,N): words whose mask was accepted. `valid` bool (B,N):
words that are no padding. `words`, `pictures`: what the sum is divided by; by default the number of
present words, of pictures. `ignored` bool (B,H,W): pixels that count in no loss, None for none. For
a part of a batch the whole batch's numbers are passed, so that the parts' losses add up to the
batch's.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

DICE_SMOOTHING = 1.0
"""Pixels; keeps the loss of a word with a few pixels from jumping."""


def dice_loss(
    probability: Tensor,
    masks: Tensor,
    present: Tensor,
    words: int | None = None,
    ignored: Tensor | None = None,
) -> Tensor:
    """Mean over the present words of 1 - (2 |p m| + s) / (|p| + |m| + s); 0 when there is none.

    probability: float (B,N,H,W) in 0..1.
    """
    m = masks.float()
    if ignored is not None:
        probability = probability * ~ignored[:, None]
        m = m * ~ignored[:, None]
    overlap = (probability * m).sum((-2, -1))
    size = probability.sum((-2, -1)) + m.sum((-2, -1))
    loss = 1 - (2 * overlap + DICE_SMOOTHING) / (size + DICE_SMOOTHING)
    return (loss * present).sum() / _count(present, words)


def _count(present: Tensor, words: int | None) -> Tensor | int:
    return present.sum().clamp(min=1) if words is None else max(1, words)


def paper_loss(
    logits: Tensor,
    masks: Tensor,
    present: Tensor,
    dice_weight: float,
    pictures: int | None = None,
    ignored: Tensor | None = None,
) -> Tensor:
    """Binary cross-entropy, mean over the pixels of a word, summed over a picture's present words,
    mean over pictures; plus Dice, which is not the authors'. logits: (B,N,H,W).

    A word whose mask is missing or empty is left out: as an empty target it would teach that
    the word is nowhere (docs/ablations.md#words-without-an-accepted-mask).
    """
    pictures = len(logits) if pictures is None else pictures
    each = F.binary_cross_entropy_with_logits(logits, masks.float(), reduction="none")
    if ignored is not None:
        each = each * ~ignored[:, None]
    bce = (each.mean((-2, -1)) * present).sum() / pictures
    if not dice_weight:
        return bce
    return bce + dice_weight * dice_loss(logits.sigmoid(), masks, present, pictures, ignored)


def permitted_labels(masks: Tensor, present: Tensor, valid: Tensor) -> Tensor:
    """Which of background and words each pixel may be: bool (B,N+1,H,W), background first.

    A pixel under masks may be any of their words. Every other pixel may be background, or any
    word of the picture whose mask is missing, since nothing says where it ends.
    """
    covered = masks & present[..., None, None]
    free = ~covered.any(1, keepdim=True)
    unknown = (valid & ~present)[..., None, None] & free
    return torch.cat([free, covered | unknown], dim=1)


def competition_loss(
    logits: Tensor,
    masks: Tensor,
    present: Tensor,
    valid: Tensor,
    dice_weight: float,
    words: int | None = None,
    share: float = 1.0,
    ignored: Tensor | None = None,
) -> Tensor:
    """-log of the probability of the permitted labels, averaged over pixels, plus Dice.

    logits: (B,N+1,H,W), background first. With every mask there and no overlap this is softmax
    cross-entropy; where several labels are permitted, only their sum counts. share:
    of the batch's pictures, in a part of it.
    """
    log_p = logits.log_softmax(1)
    allowed = permitted_labels(masks, present, valid)
    permitted = log_p.masked_fill(~allowed, -torch.inf).logsumexp(1)
    if ignored is not None:  # any label is right there: log of 1
        permitted = permitted.masked_fill(ignored, 0)
    dice = dice_loss(log_p.exp()[:, 1:], masks, present, words, ignored)
    return -permitted.mean() * share + dice_weight * dice
