"""Words taught by a few labelled pictures: drawn scenes with exact masks, the real micro diffusion
model, and a module that has seen dogs and cats alone."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ml import GroundedDiffusionPipeline
from ml.grounding.teaching import score, teach
from tests.builders.grounded import make_pipeline
from tests.builders.own_pictures import scenes_of

STEPS = 15
BUS, PAIR, *SEEN = scenes_of(("bus",), ("bus", "cat"), ("dog",), ("cat",), ("dog", "cat"))
IMAGES = [BUS.image, PAIR.image]
MASKS = [dict(zip(scene.classes, scene.masks, strict=True)) for scene in (BUS, PAIR)]


def weights(pipe: GroundedDiffusionPipeline) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in pipe.module.state_dict().items()}


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def soft(pipe: GroundedDiffusionPipeline, words: list[str]) -> np.ndarray:
    return np.stack(list(pipe.ground(PAIR.image, words).probabilities[0].values()))


@pytest.fixture(scope="module")
def base(door) -> GroundedDiffusionPipeline:
    masks = [dict(zip(scene.classes, scene.masks, strict=True)) for scene in SEEN]
    return teach(door, [scene.image for scene in SEEN], masks, "module", steps=40)


@pytest.fixture(scope="module")
def by_query(base) -> GroundedDiffusionPipeline:
    return teach(base, IMAGES[:1], MASKS[:1], "query", steps=STEPS)


def test_a_query_is_learned_and_nothing_else_changes(base, by_query):
    before = weights(base)
    assert by_query.module is base.module and same(weights(by_query), before)
    assert np.array_equal(soft(by_query, ["cat", "car"]), soft(base, ["cat", "car"]))
    assert not np.array_equal(soft(by_query, ["bus"]), soft(base, ["bus"]))
    assert not base.queries and list(by_query.queries) == ["bus"]


@pytest.mark.parametrize("what", ["query", "module"])
def test_one_picture_is_learned_and_twice_the_same(base, what):
    before, own = weights(base), (IMAGES[:1], MASKS[:1])
    taught, again = (teach(base, *own, what, steps=STEPS, seed=3) for _ in range(2))
    assert score(taught, *own)["bus"] > score(base, *own)["bus"]
    assert same(weights(base), before), "the given module was changed"
    assert same(weights(taught), weights(again)) and same(taught.queries, again.queries)
    assert np.array_equal(soft(taught, ["bus", "cat"]), soft(again, ["bus", "cat"]))


def test_the_module_learns_without_a_query(base):
    taught = teach(base, IMAGES, MASKS, "module", steps=2)
    assert not same(weights(taught), weights(base)) and not taught.queries


@pytest.mark.parametrize("what", ["query", "module"])
def test_the_papers_variant_learns(what):
    pipe = make_pipeline("paper")
    taught = teach(pipe, IMAGES, MASKS, what, steps=3)
    assert not np.array_equal(soft(taught, ["bus"]), soft(pipe, ["bus"]))


def test_the_score_is_that_of_the_masks(base):
    ious = []
    for image, masks in zip(IMAGES, MASKS, strict=True):
        found = base.ground(image, list(masks)).masks[0]["bus"]
        ious.append((found & masks["bus"]).sum() / (found | masks["bus"]).sum())
    assert score(base, IMAGES, MASKS)["bus"] == pytest.approx(100 * np.mean(ious))


def test_ignored_pixels_teach_nothing(base):
    """The same picture, with another object's mask wrongly drawn and ignored, and without it."""
    wrong = BUS.masks[0].copy()
    wrong[:20] = True
    ignored = wrong & ~BUS.masks[0]
    true = teach(base, IMAGES[:1], MASKS[:1], "query", steps=4, ignored=[ignored])
    other = teach(base, IMAGES[:1], [{"bus": wrong}], "query", steps=4, ignored=[ignored])
    assert same(true.queries, other.queries)


def test_learned_words_are_kept_in_the_folder(by_query, tmp_path):
    by_query.save_pretrained(tmp_path / "taught")
    assert json.loads((tmp_path / "taught/pipeline.json").read_text())["taught"] == ["bus"]
    again = GroundedDiffusionPipeline.from_pretrained(tmp_path / "taught")
    assert same(again.queries, by_query.queries)
    assert np.allclose(soft(again, ["bus"]), soft(by_query, ["bus"]), atol=1e-5)
    upper = again.ground(PAIR.image, ["Bus"]).probabilities[0]["Bus"]
    assert np.allclose(upper, soft(again, ["bus"])[0], atol=1e-5)
    more = teach(again, IMAGES[1:], [{"cat": MASKS[1]["cat"]}], "query", steps=1)
    assert sorted(more.queries) == ["bus", "cat"]
    assert torch.equal(more.queries["bus"], again.queries["bus"])


def test_folders_whose_queries_are_not_theirs_are_refused(by_query, tmp_path):
    by_query.save_pretrained(tmp_path / "taught")
    file = tmp_path / "taught/queries.safetensors"
    query = load_file(file)["bus"]
    for tensors in ({"cat": query}, {"bus": query[1:]}, {"bus": query * torch.inf}):
        save_file(tensors, file)
        with pytest.raises(ValueError, match=r"expected a query float32 \(64,\) of each of \['bus"):
            GroundedDiffusionPipeline.from_pretrained(tmp_path / "taught")
    file.unlink()
    with pytest.raises(ValueError, match="queries.safetensors is missing or damaged"):
        GroundedDiffusionPipeline.from_pretrained(tmp_path / "taught")


NONE = np.zeros((64, 64), bool)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (([], [], "query"), "at least one picture"),
        ((IMAGES, MASKS[:1], "query"), "masks: expected one for each of 2 pictures, got 1"),
        ((IMAGES[:1], [{}], "query"), "picture 0 has no mask"),
        ((IMAGES[:1], [{"bus": NONE}], "query"), "the mask of 'bus' has no pixel"),
        ((IMAGES[:1], [{"bus": BUS.masks[0][1:]}], "query"), r"bool \(64, 64\).*got bool \(63"),
        ((IMAGES[:1], [{"bus": BUS.masks[0] * 1}], "module"), "got int64"),
        ((IMAGES[:1], [{"": BUS.masks[0]}], "query"), "at least one letter"),
        ((IMAGES[:1], MASKS[:1], "both"), "what: expected query or module"),
        ((IMAGES[:1], MASKS[:1], "query", 0), "steps: expected"),
    ],
)
def test_what_cannot_teach_is_refused(base, arguments, match):
    first, steps = arguments[:3], arguments[3] if arguments[3:] else None
    with pytest.raises(ValueError, match=match):
        teach(base, *first, steps=steps)
