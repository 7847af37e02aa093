"""Protocol II of the studies: what each segmenter learns from, prompts, labels, resuming."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex
from transformers import CLIPTokenizer

from ml.diffusion.tokens import word_positions
from ml.drawn_world.benchmark import benchmark_scenes
from ml.drawn_world.captions import PLACES
from ml.drawn_world.world import draw_scene, scene_seed
from ml.foundation.tokenizer import MAX_LENGTH
from ml.settings.profile import ROOT
from ml.studies import (
    prompt_sets,
    segmenter_data,
    segmenter_models,
    segmenters,
    sizes,
    synthetic_labels,
    zero_shot,
)
from ml.studies.blocks import Cell, Picture, Table
from ml.studies.study_run import StudyRun, open_run
from ml.words.vocabulary import load_vocabulary
from tests.builders.tiny import tiny_pipeline

MODELS = {model.name: model for model in zero_shot.chosen(None)}
VOCABULARY = load_vocabulary(sizes.ZERO_SHOT)
UNSEEN = {VOCABULARY.label(name) for name in VOCABULARY.unseen}


def test_composition_of_each_model():
    found = {
        name: segmenter_models.composition(sizes.FULL, model) for name, model in MODELS.items()
    }
    total = sizes.FULL.synthetic
    half, quarter = total // 2, total // 4
    assert found == {
        "a": {"one": total},
        "b": {"two": total},
        "c": {"one": half, "two": half},
        "d": {"one": half, "two": half, "seen": half},
        "e": {"rich_one": half, "rich_two": half, "seen": half},
        "bound": {"every": total},
        "quarter": {"one": total // 8, "two": total // 8},
        "half": {"one": quarter, "two": quarter},
        "twice": {"one": total, "two": total},
    }
    assert segmenter_models.sets_of([MODELS["bound"]]) == []
    assert segmenter_models.sets_of([MODELS["e"]]) == ["rich"]
    assert segmenter_models.sets_of(MODELS.values()) == ["synthetic", "rich"]


def test_unknown_row():
    with pytest.raises(ValueError, match="no row 'F'"):
        zero_shot.chosen("F")
    assert [m.name for m in zero_shot.chosen("A: one object")] == ["a"]


@pytest.mark.parametrize("source", ["seen", "every"])
def test_real_scenes(source):
    """60 scenes: the labels are those of the scene itself, half of them of one object."""
    images, labels = segmenter_data.drawn_part(source, 60, 0)
    assert images.shape == (60, 64, 64, 3) and labels.shape == (60, 64, 64)
    shown = [set(np.unique(label).tolist()) - {0} for label in labels]
    assert Counter(map(len, shown)) == {1: 30, 2: 30}
    assert bool(set().union(*shown) & UNSEEN) == (source == "every")
    totals = Counter(value for own in shown for value in own)
    assert len(totals) == (15 if source == "seen" else 20)
    assert max(totals.values()) - min(totals.values()) <= 2
    start = {"seen": 300_000, "every": 320_000}[source]
    names = tuple(VOCABULARY.classes[value - 1] for value in sorted(shown[1]))
    again = [
        draw_scene(scene_seed("paper", start + 1), classes=order) for order in (names, names[::-1])
    ]
    same = [scene for scene in again if np.array_equal(scene.image, images[1])]
    assert len(same) == 1
    for name, mask in zip(same[0].classes, same[0].masks, strict=True):
        assert np.array_equal(labels[1] == VOCABULARY.label(name), mask)


def test_real_scenes_are_no_benchmark_copies(monkeypatch):
    """A seed that is the benchmark's own would be found, and left out."""
    frozen = next(iter(benchmark_scenes()))
    monkeypatch.setattr(
        segmenter_data,
        "draw_scene",
        lambda seed, classes: frozen if seed % 2 else draw_scene(seed, classes=classes),
    )
    images, _ = segmenter_data.drawn_part("every", 6, 0)
    assert len(images) == 3


def test_rich_prompts():
    size = replace(sizes.QUICK, synthetic=400)
    prompts = prompt_sets.rich_prompts(size, 0)
    assert prompts == prompt_sets.rich_prompts(size, 0) != prompt_sets.rich_prompts(size, 1)
    assert [len(p["entities"]) for p in prompts] == [1] * 200 + [2] * 200
    counts = Counter(name for p in prompts for name in p["entities"])
    assert set(counts.values()) == {30}
    assert len({p["seed"] for p in prompts}) == 400
    others = prompt_sets.synthetic_prompts(size, 0) + prompt_sets.judged_prompts(sizes.QUICK, 0)
    assert not {p["seed"] for p in prompts} & {p["seed"] for p in others}
    known = prompt_sets.all_classes().words
    for prompt in prompts:
        assert len(set(prompt["entities"])) == len(prompt["entities"])
        for entity, word, phrase in zip(
            *(prompt[k] for k in ("entities", "words", "phrases")), strict=True
        ):
            assert word in known[entity]
            assert phrase.endswith(word) and f" {phrase} " in f" {prompt['text']} "
    texts = [p["text"] for p in prompts]
    assert sum(any(place in text for place in PLACES.values()) for text in texts) > 200
    assert sum(" left of " in text for text in texts) > 15
    assert (
        sum(
            len(p.split()) > 2 + (w.count(" "))
            for q in prompts
            for p, w in zip(q["phrases"], q["words"], strict=True)
        )
        > 200
    )  # with a colour


def test_rich_prompts_are_of_known_words():
    """Each word is one token of the micro checkpoint, and no prompt is cut off."""
    tokenizer = CLIPTokenizer.from_pretrained(
        ROOT / "data" / "foundation" / "micro" / "diffusion" / "tokenizer"
    )
    for prompt in prompt_sets.rich_prompts(replace(sizes.QUICK, synthetic=400), 0):
        ids = tokenizer(prompt["text"]).input_ids
        assert len(ids) == len(prompt["text"].split()) + 2 <= MAX_LENGTH


class _Answer(torch.nn.Module):
    """A module that finds the left part for the first word, the right for the second."""

    def __init__(self, split: int, sure: float) -> None:
        super().__init__()
        self.split, self.sure = split, sure
        self.config = type("Config", (), {"competition": True})()

    def forward(self, features, text, valid, evidence):
        logits = torch.zeros(*valid.shape, 64, 64)
        logits[:, 0, :, : self.split] = self.sure
        if valid.shape[1] > 1:
            logits[:, 1, :, 48:] = self.sure
        background = torch.full_like(logits[:, :1], self.sure / 2)
        return torch.cat([background, logits.masked_fill(~valid[:, :, None, None], -1e4)], 1)


def _records():
    """A picture of a sheep and one of a dog and a cat, as `label` looks at them."""
    from ml.studies.records import Record

    common = dict(
        key="",
        cell="",
        subset="",
        seed=0,
        size=(64, 64),
        shard=None,
        row=0,
        pictures=None,
        latent=np.zeros((6, 16, 16), np.float32),
        timestep=1,
        latents=None,
        sources=(),
        timesteps=(),
        truth_rles=(),
        place=0,
    )
    return [
        Record(
            text=text,
            entities=names,
            words=words,
            phrases=(),
            rles=("",) * len(words),
            daam=np.zeros((len(words), 16, 16), np.float32),
            evidence=np.ones((len(words), 1, 16, 16), np.float32),
            **common,
        )
        for text, names, words in (
            ("a sheep", ("sheep",), ("sheep",)),
            ("a dog and a cat", ("dog", "cat"), ("dog", "cat")),
        )
    ]


def test_labels_of_pictures():
    """The first module finds columns 0..31 and 48..63, the second has nothing to say, the third is
    never sure; a copy of a benchmark picture is rejected before all else."""
    modules = [_Answer(32, 20.0), _Answer(0, 20.0), _Answer(32, 0.1)]
    synthetic = open_run("quick").params.synthetic
    maps, reasons = synthetic_labels.label(
        _records(), [False, False], tiny_pipeline(), modules, synthetic
    )
    sheep, dog, cat = (VOCABULARY.label(name) for name in ("sheep", "dog", "cat"))
    assert maps.shape == (3, 2, 64, 64) and maps.dtype == np.uint8
    assert (maps[0, 0, :, :32] == sheep).all() and (maps[0, 0, :, 32:] == 0).all()
    assert (maps[0, 1, :, :32] == dog).all() and (maps[0, 1, :, 32:48] == 0).all()
    assert (maps[0, 1, :, 48:] == cat).all()
    assert reasons.tolist()[0] == ["", ""]
    assert reasons.tolist()[1] == ["entity too small"] * 2
    assert (maps[2] == 255).all()
    _, reasons = synthetic_labels.label(
        _records(), [True, False], tiny_pipeline(), modules[:1], synthetic
    )
    assert reasons.tolist() == [["benchmark overlap", ""]]


def _stored_labels(run: StudyRun, monkeypatch, rejected: set[int]) -> None:
    """60 + 60 pictures whose grey level is their place and whose label is their seed + 1."""
    sets = {name: segmenter_models.prompts_of(run, name) for name in ("synthetic", "rich")}

    class Plain:
        size = (64, 64)

        def __init__(self, place, prompt):
            self.entities = prompt["entities"]
            self.image = np.full((64, 64, 3), place, np.uint8)

    monkeypatch.setattr(
        segmenter_data,
        "pictures_of",
        lambda _, name: [Plain(i, prompt) for i, prompt in enumerate(sets[name])],
    )
    for name in sets:
        for path, recipe, places in synthetic_labels.labelling(run, name):
            path.parent.mkdir(parents=True, exist_ok=True)
            maps = np.stack([np.full((len(places), 64, 64), s + 1, np.uint8) for s in range(2)])
            reasons = np.array([["too uncertain" if k in rejected else "" for k in places]] * 2)
            np.savez_compressed(path, maps=maps, reasons=reasons)
            run.sign(path, recipe)


@pytest.fixture
def run(tmp_path, monkeypatch):
    own = StudyRun(replace(sizes.QUICK, synthetic=60), tmp_path)
    monkeypatch.setattr(synthetic_labels, "PART", 50)  # parts do not end where the sets do
    _stored_labels(own, monkeypatch, {0, 1, 2, 60, 119})
    return own


@pytest.mark.parametrize(
    ("name", "synthetic", "real"),
    [
        ("a", [*range(3, 60)], 0),
        ("b", [*range(61, 119)], 0),
        ("c", [*range(3, 30), *range(61, 90)], 0),
        ("d", [*range(3, 30), *range(61, 90)], 30),
        ("e", [*range(3, 60)], 30),
        ("quarter", [*range(3, 7), *range(61, 67)], 0),
        ("twice", [*range(3, 60), *range(61, 119)], 0),
        ("bound", [], 60),
    ],
)
def test_training_pictures(run, name, synthetic, real):
    """The accepted pictures of each source with the labels of the seed's own module."""
    for seed in (0, 1):
        images, labels = segmenter_data.training_pictures(run, MODELS[name], seed)
        assert images.shape == (len(synthetic) + real, 64, 64, 3) and images.dtype == np.uint8
        assert labels.shape == images.shape[:3] and labels.dtype == np.uint8
        count = len(synthetic)
        assert images[:count, 0, 0, 0].tolist() == synthetic
        assert (labels[:count] == seed + 1).all()
        if name in ("d", "e"):
            assert not set(np.unique(labels[count:]).tolist()) & UNSEEN


def test_more_pictures_than_there_are(run):
    with pytest.raises(ValueError, match="'one' has 60 pictures, 61 were asked for"):
        segmenter_data.synthetic_part(run, "one", 61, 0)


def test_make_trains_once_and_blocks_read_it(run, monkeypatch, capsys):
    """A tiny training of one row: its figures against torchmetrics, and no second training."""
    run = StudyRun(replace(sizes.QUICK, synthetic=12), run.root)
    few = replace(run.params.segmenter, steps=2)
    monkeypatch.setitem(run.__dict__, "params", replace(run.params, segmenter=few))
    kept = {}
    original = segmenters.predict_each
    monkeypatch.setattr(
        segmenters,
        "predict_each",
        lambda model, images: kept.setdefault(
            len(kept), [((np.array(image).sum(2) // 40) % 21).astype(np.uint8) for image in images]
        ),
    )
    only = "real bound: all classes labelled"
    zero_shot.make(run, only)
    assert capsys.readouterr().out.count("zero-shot-bound-seed") == 2
    assert not list((run.folder / "progress").glob("*"))
    zero_shot.make(run, only)
    assert "zero-shot" not in capsys.readouterr().out and len(kept) == 2
    table, picture, *rest = zero_shot.blocks(run)
    assert isinstance(table, Table) and isinstance(picture, Picture) and not rest
    cells = table.rows[0].cells
    truth = torch.tensor(
        np.stack([segmenters.label_maps([s], VOCABULARY)[0] for s in benchmark_scenes()])
    ).long()
    metric = MulticlassJaccardIndex(21, average="none")
    each = 100 * metric(torch.tensor(np.stack(kept[0])).long(), truth).numpy()
    seen = np.mean([each[VOCABULARY.label(c)] for c in VOCABULARY.seen])
    unseen = np.mean([each[VOCABULARY.label(c)] for c in VOCABULARY.unseen])
    assert cells["background"].value == pytest.approx(each[0], abs=1e-3)
    assert cells["seen"].value == pytest.approx(seen, abs=1e-3)
    assert cells["unseen"].value == pytest.approx(unseen, abs=1e-3)
    assert cells["harmonic"].value == pytest.approx(2 * seen * unseen / (seen + unseen), abs=1e-3)
    assert cells["pictures"].value == 12 and cells["seen"].spread == 0
    assert original is not segmenters.predict_each


def test_blocks_without_results(tmp_path):
    with pytest.raises(ValueError, match="make it first"):
        zero_shot.blocks(StudyRun(sizes.QUICK, tmp_path))


def test_worth_making():
    points = [(250, Cell(40.0, 1.0)), (500, Cell(50.0, 1.0)), (1000, Cell(50.5, 1.0))]
    said = zero_shot.worth_making(points)
    assert "+10.0 up to 500, +0.5 up to 1000" in said and "About 500 pictures" in said
    still = zero_shot.worth_making(points[:2])
    assert "more than 500 pictures may be worth" in still
    noisy = [(250, Cell(40.0, 3.0)), (500, Cell(43.0, 3.0))]  # within sqrt(18) = 4.2
    assert "About 250 pictures" in zero_shot.worth_making(noisy)
    assert "40.0 %" in zero_shot.worth_making(points[:1])


def test_words_are_found_in_the_text():
    """Each phrase's word stands in the encoded prompt."""
    pipe = tiny_pipeline()
    for prompt in prompt_sets.rich_prompts(replace(sizes.QUICK, synthetic=20), 3):
        assert all(len(word_positions(pipe, prompt["text"], word)) for word in prompt["words"])
