"""Losses, batches, resume and learning, on features made by hand."""

import dataclasses

import numpy as np
import pytest
import torch

from ml.compute import precision as cpu_precision
from ml.grounding.config import VARIANTS, make_config
from ml.grounding.features import collate
from ml.grounding.losses import competition_loss, dice_loss, paper_loss, permitted_labels
from ml.grounding.module import GroundingModule
from ml.grounding.progress import write_curve
from ml.grounding.schedule import batch_indices, learning_rate
from ml.grounding.training import train
from ml.settings.profile import load_params

CHANNELS = {8: 6, 16: 6}
PARAMS = dataclasses.replace(
    load_params().grounding,
    precision="float32",
    width=32,
    layers=1,
    heads=2,
    batch_size=8,
    steps=12,
    evaluate_every=4,
    patience=9,
)
PARAMS = dataclasses.replace(
    PARAMS,
    **{
        name: dataclasses.replace(PARAMS.training(name), learning_rate=3e-3, schedule="linear")
        for name in VARIANTS
    },
)


class Toy:
    """Two rectangles of random looks, whose look fills the features; evidence is exact."""

    def __init__(self, count: int, seed: int):
        rng = np.random.default_rng(seed)
        self.masks = np.zeros((count, 2, 32, 32), bool)
        self.fine = np.zeros((count, 6, 16, 16), np.float32)
        self.present = np.ones((count, 2), bool)
        for i in range(count):
            for word, left in enumerate(rng.permutation([0, 16])):
                y, x = 2 * rng.integers(0, 4), left + 2 * rng.integers(0, 2)
                h, w = 2 * rng.integers(4, 9, 2)
                self.masks[i, word, y : y + h, x : min(x + w, left + 16)] = True
            small = self.masks[i, :, ::2, ::2]
            self.fine[i] = rng.normal(0, 0.1, (6, 16, 16))
            for word in range(2):
                self.fine[i, :, small[word]] += rng.normal(0, 1, 6) + 1
        self.text = rng.normal(0, 1, (count, 2, 5)).astype(np.float32)  # says nothing

    def __len__(self) -> int:
        return len(self.masks)

    def counts(self, index):
        return 2, int(self.present[index].sum())

    def batch(self, indices):
        fine = torch.from_numpy(self.fine[list(indices)])
        features = {8: torch.nn.functional.avg_pool2d(fine, 2), 16: fine}
        exact = self.masks[:, :, None, ::2, ::2].astype(np.float32)
        return collate(
            features,
            [torch.from_numpy(self.text[i]) for i in indices],
            [exact[i] for i in indices],
            [self.masks[i] for i in indices],
            [self.present[i] for i in indices],
            torch.device("cpu"),
        )


ENTITIES = [["dog", "cat"]] * 200


def make_module(variant: str) -> GroundingModule:
    torch.manual_seed(1)
    return GroundingModule(make_config(PARAMS, CHANNELS, 5, 32, 60, variant))


def test_mixed_precision_learns_what_float32_learns(monkeypatch):
    monkeypatch.setattr(cpu_precision, "computes_bfloat16", lambda device: True)  # or emulated
    source, curves = Toy(48, 0), {}
    for precision in ("float32", "bfloat16"):
        module = make_module("seeded")
        params = dataclasses.replace(PARAMS, precision=precision)
        curves[precision] = train(module, source, Toy(16, 1), ENTITIES, params, seed=0).curve
        assert all(p.dtype == torch.float32 for p in module.parameters())
    losses = [[row["loss"] for row in curve] for curve in curves.values()]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


def test_dice_by_hand():
    probability = torch.tensor([[[[1.0, 0.5], [0.0, 0.0]], [[0.3, 0.3], [0.3, 0.3]]]])
    masks = torch.tensor([[[[1, 1], [0, 0]], [[1, 1], [1, 1]]]], dtype=torch.bool)
    # first word: overlap 1.5, sizes 1.5 + 2, so 1 - (3 + 1) / (3.5 + 1); the second is not present
    loss = dice_loss(probability, masks, torch.tensor([[True, False]]))
    assert loss.item() == pytest.approx(1 - 4 / 4.5)
    assert dice_loss(probability, masks, torch.tensor([[False, False]])).item() == 0


def test_paper_loss_skips_words_without_a_mask():
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 1] = 50.0  # would cost 50 a pixel if its missing mask were taken as empty
    masks = torch.zeros(1, 2, 2, 2, dtype=torch.bool)
    masks[0, 0, 0] = True
    loss = paper_loss(logits, masks, torch.tensor([[True, False]]), 0.0)
    assert loss.item() == pytest.approx(np.log(2), abs=1e-6)


def test_permitted_labels():
    masks = torch.zeros(1, 3, 1, 4, dtype=torch.bool)
    masks[0, 0, 0, :2] = True
    masks[0, 1, 0, 1:3] = True
    present, valid = torch.tensor([[True, True, False]]), torch.ones(1, 3, dtype=torch.bool)
    found = permitted_labels(masks, present, valid)[0, :, 0].T.int().tolist()
    # under one mask; under two; under one; free, where the word without a mask may be
    assert found == [[0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [1, 0, 0, 1]]
    padded = permitted_labels(masks, present, torch.tensor([[True, True, False]]))
    assert padded[0, :, 0, 3].tolist() == [True, False, False, False]


def test_competition_loss_is_cross_entropy_when_all_is_known():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 4, 4))
    masks = torch.stack([labels == 1, labels == 2], dim=1)
    known = torch.ones(2, 2, dtype=torch.bool)
    loss = competition_loss(logits, masks, known, known, 0.0)
    assert loss.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item())


def test_a_missing_mask_leaves_its_pixels_to_either():
    """Where the word without a mask may be, moving from background to it costs nothing."""
    masks = torch.zeros(1, 2, 1, 2, dtype=torch.bool)
    masks[0, 0, 0, 0] = True
    present, valid = torch.tensor([[True, False]]), torch.ones(1, 2, dtype=torch.bool)
    background = torch.tensor([[-9.0, 9.0, -9.0], [9.0, -9.0, -9.0]]).T.reshape(1, 3, 1, 2)
    word = torch.tensor([[-9.0, 9.0, -9.0], [-9.0, -9.0, 9.0]]).T.reshape(1, 3, 1, 2)
    wrong = torch.tensor([[-9.0, 9.0, -9.0], [-9.0, 9.0, -9.0]]).T.reshape(1, 3, 1, 2)
    costs = [
        competition_loss(x, masks, present, valid, 0.0).item() for x in (background, word, wrong)
    ]
    assert costs[0] == pytest.approx(0, abs=1e-6) and costs[1] == pytest.approx(0, abs=1e-6)
    assert costs[2] > 8


def test_paper_loss_sums_over_words_and_averages_over_pictures():
    masks = torch.zeros(2, 2, 2, 2, dtype=torch.bool)
    present = torch.tensor([[True, True], [False, False]])
    loss = paper_loss(torch.zeros(2, 2, 2, 2), masks, present, 0.0)
    assert loss.item() == pytest.approx(2 * np.log(2) / 2, abs=1e-6)
    parts = [
        paper_loss(torch.zeros(1, 2, 2, 2), masks[i : i + 1], present[i : i + 1], 0.0, 2)
        for i in range(2)
    ]
    assert sum(parts).item() == pytest.approx(loss.item())


def test_padding_and_missing_masks_give_finite_gradients():
    module = make_module("seeded").train()
    toy = Toy(4, 0)
    toy.present[0] = False
    batch = toy.batch(range(4))
    batch.valid[1, 1] = batch.present[1, 1] = False
    logits = module(batch.features, batch.text, batch.valid, batch.evidence)
    competition_loss(logits, batch.masks, batch.present, batch.valid, 0.5).backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


def test_every_epoch_shows_every_sample_once():
    shown = [i for step in range(7) for i in batch_indices(14, 4, seed=3, step=step)]
    assert sorted(shown[:14]) == sorted(shown[14:]) == list(range(14))
    assert shown[:14] != shown[14:]


def test_learning_rate_rises_then_falls_to_zero():
    own = dataclasses.replace(PARAMS.seeded, learning_rate=1.0, schedule="linear", warm_up=20)
    rates = [learning_rate(own, step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 20) and np.argmax(rates) == 19
    assert rates[50] == pytest.approx(0.5) and rates[100] == 0


def test_a_constant_rate_stays():
    own = dataclasses.replace(PARAMS.paper, learning_rate=1e-5, schedule="constant", warm_up=0)
    assert {learning_rate(own, step, 100) for step in range(101)} == {1e-5}


def test_papers_training_is_plain_adam_on_summed_cross_entropy():
    """Three steps by hand: torch's Adam, a BCE for each word with a mask, summed, by pictures."""
    own = dataclasses.replace(
        PARAMS.paper,
        learning_rate=1e-3,
        schedule="constant",
        warm_up=0,
        weight_decay=0.0,
        clip_norm=None,
        dice_weight=0.0,
    )
    params = dataclasses.replace(PARAMS, steps=3, evaluate_every=3, batch_size=4, paper=own)
    source = Toy(12, 0)
    source.present[::3, 1] = False
    trained, by_hand = make_module("paper"), make_module("paper")
    train(trained, source, Toy(4, 1), ENTITIES, params, seed=0)
    adam = torch.optim.Adam(by_hand.parameters(), lr=1e-3)
    for step in range(3):
        by_hand.train()
        batch = source.batch(batch_indices(12, 4, 0, step))
        logits = by_hand(batch.features, batch.text, batch.valid)
        loss = sum(
            torch.nn.functional.binary_cross_entropy_with_logits(
                logits[i, word], batch.masks[i, word].float()
            )
            for i in range(4)
            for word in range(2)
            if batch.present[i, word]
        )
        adam.zero_grad()
        (loss / 4).backward()
        adam.step()
    for (name, ours), theirs in zip(trained.named_parameters(), by_hand.parameters(), strict=True):
        if not name.endswith("conv1.bias"):  # its gradient is rounding, which Adam makes a step of
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4, msg=name)


def test_resumed_training_gives_the_same_weights(tmp_path):
    source, validation = Toy(20, 0), Toy(6, 1)
    whole = make_module("seeded")
    straight = train(whole, source, validation, ENTITIES, PARAMS, seed=0)
    cut, file = make_module("seeded"), tmp_path / ".progress" / "training.pt"
    train(cut, source, validation, ENTITIES, PARAMS, 0, file, stop_after=6)  # saved at 4
    again = make_module("seeded")
    resumed = train(again, source, validation, ENTITIES, PARAMS, 0, file)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert resumed.curve == straight.curve
    assert [row["step"] for row in resumed.curve] == [4, 8, 12]
    write_curve(tmp_path / "curve.csv", resumed.curve)
    assert (tmp_path / "curve.csv").read_text().splitlines()[0] == "step,loss,val_miou"


def test_patience_ends_the_training_with_the_best_weights(monkeypatch):
    scores, weights = iter([10.0, 50.0, 40.0, 50.0, 90.0]), []

    def score(module, *_):
        weights.append({k: v.clone() for k, v in module.state_dict().items()})
        return next(scores)

    monkeypatch.setattr("ml.grounding.training.validation_miou", score)
    module = make_module("seeded")
    progress = train(
        module,
        Toy(8, 0),
        Toy(4, 1),
        ENTITIES,
        dataclasses.replace(PARAMS, steps=40, patience=2),
        seed=0,
    )
    assert (progress.step, progress.best_step, progress.best_miou) == (16, 8, 50.0)
    assert all(torch.equal(v, weights[1][k]) for k, v in module.state_dict().items())


def test_exact_evidence_finds_words_whose_text_says_nothing():
    """What the seed is for. Fresh rectangles, looks and texts; only the evidence tells them apart.

    The paper's variant must fail: with random text it cannot know which is which.
    """
    params = dataclasses.replace(
        PARAMS,
        steps=300,
        evaluate_every=300,
        **{
            name: dataclasses.replace(PARAMS.training(name), learning_rate=5e-3)
            for name in VARIANTS
        },
    )
    source, validation = Toy(800, 0), Toy(24, 9)
    seeded = train(make_module("seeded"), source, validation, ENTITIES, params, seed=0)
    assert seeded.best_miou > 90
    paper = train(
        make_module("paper"),
        source,
        validation,
        ENTITIES,
        dataclasses.replace(params, steps=100),
        seed=0,
    )
    assert paper.best_miou < 70


def test_no_pictures_is_an_error():
    with pytest.raises(ValueError, match="validation_share"):
        train(make_module("seeded"), Toy(4, 0), Toy(0, 0), [], PARAMS, seed=0)


@pytest.mark.parametrize("competition", [False, True])
def test_ignored_pixels_teach_nothing(competition):
    """Neither their mask nor the logits there change the loss, and no gradient comes from them."""
    torch.manual_seed(0)
    logits = torch.randn(2, 2 + competition, 8, 8, requires_grad=True)
    masks, present = torch.rand(2, 2, 8, 8) > 0.5, torch.ones(2, 2, dtype=torch.bool)
    ignored = torch.zeros(2, 8, 8, dtype=torch.bool)
    ignored[0, :3] = True

    def loss(logits, masks, ignored):
        if competition:
            return competition_loss(logits, masks, present, present, 0.5, ignored=ignored)
        return paper_loss(logits, masks, present, 0.5, ignored=ignored)

    value = loss(logits, masks, ignored)
    value.backward()
    assert not logits.grad[0, :, :3].any() and logits.grad[0, :, 3:].any()
    other, turned = logits.detach().clone(), masks.clone()
    other[0, :, :3] += torch.randn(2 + competition, 3, 8)
    turned[0, :, :3] ^= True
    assert torch.allclose(loss(other, turned, ignored), value)
    nothing = torch.zeros_like(ignored)
    assert torch.equal(loss(logits, masks, nothing), loss(logits, masks, None))
    assert not torch.allclose(loss(logits, masks, None), value)
