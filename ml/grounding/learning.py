"""A grounding module taught by a few labelled pictures of a user's own words.

Two ways, both on the frozen diffusion model's features of these pictures: the text query of each
word alone is fitted, and every weight and every other word's query stay as they are; or the
module's weights are trained on, which moves every word a little. What each is worth, and what the
second costs the words that are not taught, is measured by the study `few_labels`. Not here: the
training of a module from nothing (`training.py`), pictures and masks as a user has them
(`teaching.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ml.compute.gradients import backward_in_parts
from ml.compute.losses import Losses
from ml.diffusion.pipeline import device_of
from ml.grounding.features import Batch, FeatureSource
from ml.grounding.module import GroundingModule
from ml.grounding.schedule import batch_indices
from ml.grounding.training import TEXT_DROPOUT, compute_loss
from ml.words.spans import fold

QUERY, MODULE = "query", "module"
WAYS = (QUERY, MODULE)
QUERY_STEPS, QUERY_RATE = 100, 0.02
MODULE_STEPS, MOST_STEPS = 30, 300
"""Steps of the module: so many and one more for each labelled picture, up to the most."""
CAREFUL_RATE, MODULE_RATE, MANY = 0.0001, 0.0003, 20
"""Learning rates of the module for fewer than MANY labelled pictures, and for others. All of these
numbers were chosen on drawn scenes that the study `few_labels` does not judge by: with 5 pictures
more steps or the higher rate spoil pairs of words, with 100 fewer and the lower one learn less."""
BATCH = 8
"""Pictures a step, or all where there are fewer."""
DICE_WEIGHT = {"paper": 0.0, "seeded": 0.5}
"""By variant, as their own trainings have it."""
CLIP_NORM = 1.0

Forward = Callable[[Batch, Sequence[int], int], Tensor]
"""(batch, places of its pictures, step) -> logits."""


def usual_steps(what: str, pictures: int) -> int:
    """Of the optimiser, for so many labelled pictures. what: of WAYS."""
    return QUERY_STEPS if what == QUERY else min(MODULE_STEPS + pictures, MOST_STEPS)


def usual_rate(what: str, pictures: int) -> float:
    """The learning rate, which falls linearly to 0. what: of WAYS."""
    if what == QUERY:
        return QUERY_RATE
    return CAREFUL_RATE if pictures < MANY else MODULE_RATE


class Queries(nn.Module):
    """A query for each word, float32 (D,), learned in place of its text embedding."""

    def __init__(self, start: Mapping[str, Tensor]) -> None:
        super().__init__()
        own = {fold(word): query.clone() for word, query in start.items()}
        self.row = {word: place for place, word in enumerate(own)}
        self.table = nn.Parameter(torch.stack(list(own.values())))

    def put(self, words: Sequence[Sequence[str]], text: Tensor) -> Tensor:
        """Text (B,N,D) with the learned queries in it. words: of each picture."""
        rows = [
            torch.cat([self.table[[self.row[fold(word)] for word in own]], text[i, len(own) :]])
            for i, own in enumerate(words)
        ]
        return torch.stack(rows)

    def by_word(self) -> dict[str, Tensor]:
        """word, folded (`ml.words.spans.fold`) -> float32 (D,), on the CPU."""
        return {word: self.table[row].detach().cpu().clone() for word, row in self.row.items()}


def learn_queries(
    module: GroundingModule,
    source: FeatureSource,
    *,
    steps: int | None = None,
    rate: float | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Word, folded (`ml.words.spans.fold`) -> query float32 (D,), for every word of the source's
    pictures, fitted to their masks from the word's text embedding; the module stays as it is.

    The module answers as it does when it is used, the evidence's prior included. steps, rate: by
    default the usual ones. Equal arguments give equal queries. Raises NotFinite for a loss that is
    none.
    """
    words = dict.fromkeys(word for sample in source.samples for word in sample.words)
    learner = Queries(dict(zip(words, source.words(list(words)), strict=True)))
    learner.to(device_of(source.pipe))
    frozen = deepcopy(module).requires_grad_(False).eval()

    def forward(batch: Batch, places: Sequence[int], step: int) -> Tensor:
        text = learner.put([source.samples[i].words for i in places], batch.text)
        logits: Tensor = frozen(batch.features, text, batch.valid, batch.evidence)
        return logits

    _descend(learner, frozen, source, forward, QUERY, steps, rate, seed)
    return learner.by_word()


def learn_module(
    module: GroundingModule,
    source: FeatureSource,
    *,
    steps: int | None = None,
    rate: float | None = None,
    seed: int = 0,
) -> GroundingModule:
    """A copy of the module, trained on with the source's pictures, in eval mode.

    As in its own training, the seeded variant is shown most words without their text, so that it
    goes on finding them by their evidence. steps, rate: by default the usual ones. Equal
    arguments give equal weights. Raises NotFinite for a loss that is none.
    """
    learner = deepcopy(module).requires_grad_(True).train()

    def forward(batch: Batch, places: Sequence[int], step: int) -> Tensor:
        text = batch.text
        if learner.config.competition:
            kept = [_kept(seed, step, place, text.shape[1]) for place in places]
            text = text * torch.from_numpy(np.stack(kept)).to(text.device)[..., None]
        logits: Tensor = learner(batch.features, text, batch.valid, batch.evidence)
        return logits

    _descend(learner, learner, source, forward, MODULE, steps, rate, seed)
    return learner.eval()


def _kept(seed: int, step: int, place: int, words: int) -> np.ndarray:
    """bool (words,): which words of a picture keep their text in a step."""
    return np.random.default_rng([seed, 2, step, place]).random(words) >= TEXT_DROPOUT


def _descend(
    learner: nn.Module,
    module: GroundingModule,
    source: FeatureSource,
    forward: Forward,
    what: str,
    steps: int | None,
    rate: float | None,
    seed: int,
) -> None:
    """Changes the learner's parameters so that the module's masks meet the source's. what: of WAYS,
    whose usual steps and rate are the default."""
    steps = steps or usual_steps(what, len(source))
    rate = rate or usual_rate(what, len(source))
    optimizer = torch.optim.Adam(learner.parameters(), rate)
    losses = Losses(type(learner).__name__)
    size = most = min(BATCH, len(source))
    for step in tqdm(range(steps), desc="teaching", unit="step"):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps)
        indices = batch_indices(len(source), size, seed, step)
        present = sum(source.counts(i)[1] for i in indices)
        loss_of = partial(_loss, module, source, forward, step, indices, present)
        loss, most = backward_in_parts(learner, range(size), most, loss_of)
        losses.add(loss)
        torch.nn.utils.clip_grad_norm_(learner.parameters(), CLIP_NORM)
        optimizer.step()
    losses.taken()


def _loss(
    module: GroundingModule,
    source: FeatureSource,
    forward: Forward,
    step: int,
    indices: Sequence[int],
    present: int,
    rows: Sequence[int],
) -> Tensor:
    """The share of some rows of a step's batch in its loss. present: masks of the whole batch."""
    places = [indices[row] for row in rows]
    batch = source.batch(places)
    logits = forward(batch, places, step)
    dice = DICE_WEIGHT[module.config.variant]
    return compute_loss(module, logits, batch, dice, present, len(rows) / len(indices))
