"""The prompts of a run: balance, uniqueness, articles, cells, and what a poor vocabulary gets."""

import dataclasses
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from ml.settings.sections import PromptParams
from ml.words.balance import balanced_pairs, balanced_singles
from ml.words.cells import cell_of
from ml.words.english import with_article
from ml.words.prompts import make_prompts
from ml.words.vocabulary import Vocabulary, load_vocabulary
from ml.words.wording import OTHERS, PLAIN, template_of

WANTED = PromptParams(
    train_one=100,
    train_two=200,
    sim_per_cell=31,
    synthetic_one=90,
    synthetic_two=150,
    plain_share=0.6,
    attribute_share=0,
    scene_share=0,
    texts=None,
)


@pytest.fixture(scope="module")
def voc():
    return load_vocabulary("voc-1")


@pytest.fixture(scope="module")
def prompts(voc):
    return make_prompts(voc, WANTED, seed=0)[0]


def tiny(seen, unseen=(), **words) -> Vocabulary:
    classes = (*seen, *unseen)
    return Vocabulary(
        "tiny",
        tuple(seen),
        tuple(unseen),
        {name: tuple(words.get(name, [name])) for name in classes},
    )


def test_counts_keys_and_seeds(prompts):
    counts = Counter((p["purpose"], len(p["entities"])) for p in prompts)
    assert counts == {
        ("train", 1): 100,
        ("train", 2): 200,
        ("sim", 1): 62,
        ("sim", 2): 93,
        ("synthetic", 1): 90,
        ("synthetic", 2): 150,
    }
    assert len({p["key"] for p in prompts}) == len({p["seed"] for p in prompts}) == len(prompts)
    assert all(0 <= p["seed"] < 2**32 for p in prompts)  # torch's CPU generator drops the rest
    for purpose in ("train", "sim", "synthetic"):
        keys = [p["key"] for p in prompts if p["purpose"] == purpose]
        assert keys == sorted(keys) == [f"{purpose}-{i:06d}" for i in range(len(keys))]


def test_train_names_only_seen_classes(prompts, voc):
    named = {e for p in prompts if p["purpose"] == "train" for e in p["entities"]}
    assert named == set(voc.seen)


def test_cells(prompts, voc):
    for p in prompts:
        unseen = sum(e in voc.unseen for e in p["entities"])
        cell = {
            (1, 0): "one_seen",
            (1, 1): "one_unseen",
            (2, 0): "two_seen",
            (2, 1): "two_mixed",
            (2, 2): "two_unseen",
        }[len(p["entities"]), unseen]
        assert p["cell"] == cell == cell_of(p["entities"], voc.unseen)
    sim = Counter(p["cell"] for p in prompts if p["purpose"] == "sim")
    assert set(sim.values()) == {31} and len(sim) == 5


def test_each_set_is_balanced_over_its_classes(prompts, voc):
    """Counts of two classes differ by one at most, in one-object and in two-object sets alike."""
    sets = {}
    for p in prompts:
        cell = p["cell"] if p["purpose"] == "sim" else len(p["entities"])
        sets.setdefault((p["purpose"], cell), Counter()).update(p["entities"])
    assert len(sets) == 9
    for (purpose, cell), counts in sets.items():
        groups = [voc.seen, voc.unseen] if cell == "two_mixed" else [set(counts)]
        for group in groups:
            values = [counts[name] for name in group]
            assert max(values) - min(values) <= 1, (purpose, cell, counts)
    assert set(sets["synthetic", 2]) == set(voc.classes)


@pytest.mark.parametrize("size, count", [(2, 7), (3, 10), (5, 31), (15, 500), (20, 190)])
def test_pairs_differ_and_come_back_late(size, count):
    names = [f"c{i}" for i in range(size)]
    pairs = balanced_pairs(np.random.default_rng(3), names, names, count)
    assert len(pairs) == count and all(a != b for a, b in pairs)
    counts = Counter(name for pair in pairs for name in pair)
    assert max(counts.values()) - min(counts[n] for n in names) <= 1
    used = Counter(map(frozenset, pairs))
    possible = len(list(combinations(names, 2)))
    assert len(used) >= min(count, possible) * 0.9
    assert max(used.values()) <= -(-count // possible) + 1
    if count >= 30:  # neither of two classes is always named first
        ordered = Counter(a < b for a, b in pairs)
        assert min(ordered.values()) > 0.2 * count


def test_mixed_pairs_take_one_of_each_side():
    pairs = balanced_pairs(np.random.default_rng(0), ["a", "b", "c"], ["x", "y"], 30)
    assert all(len({"a", "b", "c"} & set(pair)) == 1 for pair in pairs)
    counts = Counter(name for pair in pairs for name in pair)
    assert counts == {"a": 10, "b": 10, "c": 10, "x": 15, "y": 15}
    assert set(Counter(map(frozenset, pairs)).values()) == {5}


def test_singles_are_balanced_at_every_prefix():
    drawn = balanced_singles(np.random.default_rng(0), "abcde", 23)
    for end in range(1, 24):
        counts = Counter(drawn[:end])
        assert max(counts.values()) - min(counts[c] for c in "abcde") <= 1
    assert balanced_singles(np.random.default_rng(0), "abc", 0) == []


def test_words_and_templates(prompts, voc):
    """60 % of a set are plain with the first word; sim prompts all are, as in the paper."""
    seen_templates, other_words = set(), set()
    plain = Counter()
    for p in prompts:
        template = template_of(p)
        seen_templates.add(template)
        for entity, word, words in zip(p["entities"], p["words"], p["phrases"], strict=True):
            assert word in voc.words[entity] and words == with_article(word) and words in p["text"]
            if word != voc.words[entity][0]:
                other_words.add(word)
        is_plain = template == PLAIN[len(p["entities"])]
        plain[p["purpose"], len(p["entities"]), is_plain] += 1
        if is_plain:
            assert p["words"] == [voc.words[e][0] for e in p["entities"]]
        assert template.format(**dict(zip("AB", p["phrases"], strict=False))) == p["text"]
    assert seen_templates == {*PLAIN.values(), *OTHERS[1], *OTHERS[2]}
    assert {"airplane", "couch", "television", "motorcycle"} <= other_words
    assert not plain["sim", 1, False] and not plain["sim", 2, False]
    assert plain["train", 1, True] == 60 and plain["train", 2, True] == 120
    assert plain["synthetic", 1, True] == 54 and plain["synthetic", 2, True] == 90


@pytest.mark.parametrize(
    "word, article",
    [
        ("aeroplane", "an"),
        ("dining table", "a"),
        ("tv monitor", "a"),
        ("umbrella", "an"),
        ("unicycle", "a"),
        ("unicorn", "a"),
        ("uniform", "a"),
        ("union flag", "a"),
        ("user", "a"),
        ("ukulele", "a"),
        ("utensil", "a"),
        ("european bison", "a"),
        ("one-way sign", "a"),
        ("hourglass", "an"),
        ("horse", "a"),
        ("x-ray", "an"),
        ("oven", "an"),
        ("onion", "an"),
        ("usher", "an"),
        ("Apple", "an"),
        ("urn", "an"),
        ("uninhabited island", "an"),
    ],
)
def test_articles(word, article):
    assert with_article(word) == f"{article} {word}"


def test_the_same_seed_gives_the_same_prompts_and_another_does_not(prompts, voc):
    assert make_prompts(voc, WANTED, seed=0)[0] == prompts
    other = make_prompts(voc, WANTED, seed=1)[0]
    assert [p["entities"] for p in other] != [p["entities"] for p in prompts]
    assert not {p["seed"] for p in other} & {p["seed"] for p in prompts}


def test_more_of_one_purpose_leaves_the_others_alone(prompts, voc):
    more = make_prompts(voc, dataclasses.replace(WANTED, synthetic_two=400), seed=0)[0]
    kept = [p for p in prompts if p["purpose"] != "synthetic"]
    assert [p for p in more if p["purpose"] != "synthetic"] == kept


def test_a_count_of_nothing_asks_nothing_of_the_vocabulary():
    none = dataclasses.replace(WANTED, sim_per_cell=0, synthetic_one=0, synthetic_two=0)
    prompts, left_out = make_prompts(tiny(["cat", "dog"]), none, 0)
    assert left_out == {} and {p["purpose"] for p in prompts} == {"train"}


def test_cells_without_enough_unseen_classes_are_left_out():
    prompts, left_out = make_prompts(tiny(["cat", "dog"], ["car"]), WANTED, 0)
    assert set(left_out) == {"two_unseen"} and "has 1 of the 2" in left_out["two_unseen"]
    assert {p["cell"] for p in prompts if p["purpose"] == "sim"} == {
        "one_seen",
        "one_unseen",
        "two_seen",
        "two_mixed",
    }
    none = make_prompts(tiny(["cat", "dog"]), WANTED, 0)[1]
    assert set(none) == {"one_unseen", "two_mixed", "two_unseen"}


@pytest.mark.parametrize(
    "vocabulary, change, match",
    [
        (tiny(["cat"], ["dog"]), {}, "train_two is 200.*has 1 of the 2"),
        (tiny(["cat", "dog"]), {"train_one": -1}, "train_one: expected 0 or more, got -1"),
        (tiny(["cat", "dog"]), {"plain_share": 1.5}, "plain_share: expected 0..1"),
        (tiny(["cat", "dog"], dog=["cat"]), {}, "cannot be told apart"),
        (tiny(["bear", "cub"], cub=["bear cub"]), {}, "'bear cub'.*cannot be told apart"),
    ],
)
def test_bad_input_is_refused(vocabulary, change, match):
    with pytest.raises(ValueError, match=match):
        make_prompts(vocabulary, dataclasses.replace(WANTED, **change), 0)


def test_words_that_only_end_alike_are_fine():
    """ "a dog" is not in "a hot dog", nor "a bike" in "a motorbike": both can be found again."""
    words = tiny(["dog", "hotdog", "bicycle", "motorbike"], hotdog=["hot dog"], bicycle=["bike"])
    prompts = make_prompts(words, dataclasses.replace(WANTED, plain_share=0.0), 0)[0]
    for p in prompts:
        assert all(p["text"].count(each) == 1 for each in p["phrases"])
