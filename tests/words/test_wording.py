"""Prompts with attributes, scenes and the user's own texts: every phrase can be found again, the
counts and balances hold, and a text that could not be used is refused with its line number."""

import dataclasses
import re
from collections import Counter

import pytest

from ml.pipeline.runner import run_stage
from ml.pipeline.stages.prompts import facts_of, text_facts
from ml.settings.profile import load_params
from ml.settings.sections import PromptParams
from ml.store.shards import read_shards
from ml.words.balance import balanced_pairs
from ml.words.left_out import without_phrase
from ml.words.prompts import make_prompts
from ml.words.texts import parse_text, read_texts
from ml.words.vocabulary import Vocabulary, load_vocabulary
from ml.words.wording import (
    AGES,
    LIVING_ATTRIBUTES,
    OWN_TEXT,
    PLAIN,
    SCENES,
    THING_ATTRIBUTES,
    template_of,
    usable,
)
from orchestration import expectations

WANTED = PromptParams(
    train_one=60,
    train_two=90,
    sim_per_cell=12,
    synthetic_one=100,
    synthetic_two=200,
    plain_share=0.5,
    attribute_share=0.4,
    scene_share=0.6,
    texts=None,
)


def words(seen, unseen=(), **own) -> Vocabulary:
    classes = (*seen, *unseen)
    return Vocabulary(
        "mine",
        tuple(seen),
        tuple(unseen),
        {name: tuple(own.get(name.replace(" ", "_"), [name])) for name in classes},
    )


YARD = words(
    ["car", "dog", "person", "sofa"], ["forklift", "hard hat", "pallet"], sofa=["sofa", "couch"]
)


@pytest.fixture(scope="module")
def prompts():
    return make_prompts(YARD, WANTED, seed=0)[0]


def adjectives(prompt) -> list[str]:
    """What stands between the article and the word of each phrase, "" for nothing."""
    return [
        re.fullmatch(rf"an? (.*?) ?{re.escape(word)}", phrase)[1]
        for word, phrase in zip(prompt["words"], prompt["phrases"], strict=True)
    ]


def scene_of(prompt) -> str:
    return next((scene for scene in SCENES if prompt["text"].endswith(scene)), "")


def test_shares_are_met_exactly_and_only_outside_the_sim_set(prompts):
    dressed, placed = Counter(), Counter()
    for prompt in prompts:
        set_ = prompt["purpose"], len(prompt["entities"])
        found = adjectives(prompt)
        assert all(found) or not any(found)  # all things of a prompt, or none
        dressed[set_] += bool(found[0])
        placed[set_] += bool(scene_of(prompt))
    for set_, count in {
        ("train", 1): 60,
        ("train", 2): 90,
        ("synthetic", 1): 100,
        ("synthetic", 2): 200,
    }.items():
        assert (dressed[set_], placed[set_]) == (0.4 * count, 0.6 * count)
    assert not dressed["sim", 1] + dressed["sim", 2] + placed["sim", 1] + placed["sim", 2]


def test_attributes_fit_the_thing(prompts):
    seen = Counter()
    for prompt in prompts:
        for entity, adjective in zip(prompt["entities"], adjectives(prompt), strict=True):
            living = entity in ("dog", "person")
            assert not adjective or adjective in (LIVING_ATTRIBUTES if living else THING_ATTRIBUTES)
            seen[adjective] += 1
    assert {"red", "metal", "small", "young"} <= set(seen) and set(AGES) <= set(seen)


def test_article_fits_the_adjective(prompts):
    phrases = {phrase for prompt in prompts for phrase in prompt["phrases"]}
    assert any(phrase.startswith("an old ") for phrase in phrases)
    assert not any(re.match(r"a [aeio]|an [^aeiou]", phrase) for phrase in phrases)


def test_every_phrase_can_be_left_out(prompts):
    """What the leave-one-out contrast does with each phrase; the rest still names the others."""
    for prompt in prompts:
        for i, phrase in enumerate(prompt["phrases"]):
            rest = without_phrase(prompt["text"], phrase)
            assert prompt["words"][i] not in rest and rest.endswith(scene_of(prompt))
            assert all(other in rest for j, other in enumerate(prompt["phrases"]) if j != i)
    assert (
        without_phrase("a photograph of a red forklift in a warehouse", "a red forklift")
        == "a photograph in a warehouse"
    )


def test_no_share_gives_the_prompts_without_them(prompts):
    """Turning the details on changes the wording only: classes, seeds and keys stay."""
    bare = make_prompts(YARD, dataclasses.replace(WANTED, attribute_share=0, scene_share=0), 0)[0]
    for one, other in zip(bare, prompts, strict=True):
        assert [one[k] for k in ("key", "entities", "seed", "cell", "words")] == [
            other[k] for k in ("key", "entities", "seed", "cell", "words")
        ]
        assert template_of(one) == template_of(other) != OWN_TEXT


def test_details_that_name_a_class_are_left_out():
    mine = words(["warehouse", "plastic", "kitchen"])
    assert not {"in a warehouse", "in a kitchen"} & set(usable(SCENES, mine))
    assert "plastic" not in usable(THING_ATTRIBUTES, mine) and "in a park" in usable(SCENES, mine)


@pytest.mark.parametrize(
    "vocabulary, change, match",
    [
        (words(["panda", "red panda"]), {}, "'red panda'.*attribute_share makes of 'panda'"),
        (words(["hat", "small hat rack"]), {}, "'small hat rack'.*makes of 'hat'"),
        (YARD, {"attribute_share": 1.1}, "prompts.attribute_share: expected 0..1, got 1.1"),
        (YARD, {"scene_share": -1}, "prompts.scene_share: expected 0..1"),
    ],
)
def test_bad_shares_and_words_are_refused(vocabulary, change, match):
    with pytest.raises(ValueError, match=match):
        make_prompts(vocabulary, dataclasses.replace(WANTED, **change), 0)


def test_a_word_that_starts_with_an_attribute_never_gets_it_twice():
    found = make_prompts(words(["red panda", "car"]), WANTED, 0)[0]
    assert not any("red red" in prompt["text"] for prompt in found)


# The user's own texts


@pytest.mark.parametrize(
    "text, entities, phrases",
    [
        ("a red forklift in a warehouse", ["forklift"], ["a red forklift"]),
        (
            "An old, dusty Forklift beside the pallet",
            ["forklift", "pallet"],
            ["dusty Forklift", "the pallet"],
        ),
        (
            "photo of a person wearing a yellow hard hat, studio",
            ["person", "hard hat"],
            ["a person", "a yellow hard hat"],
        ),
        ("red forklift, wide angle", ["forklift"], ["red forklift"]),
        ("a very big and heavy forklift", ["forklift"], ["heavy forklift"]),
        ("forklift carrying a pallet", ["forklift", "pallet"], ["forklift", "a pallet"]),
        (
            "many years ago somebody left this big forklift here",
            ["forklift"],
            ["this big forklift"],
        ),
        ("a COUCH", ["sofa"], ["a COUCH"]),
        ("a carpet under a car", ["car"], ["a car"]),  # "car" in "carpet" is no word
    ],
)
def test_what_a_text_names(text, entities, phrases):
    found = parse_text(text, YARD)
    assert (list(found.entities), list(found.phrases)) == (entities, phrases)
    for phrase in found.phrases:
        assert without_phrase(text, phrase) != text
    assert all(
        word in YARD.words[entity] for entity, word in zip(found.entities, found.words, strict=True)
    )


@pytest.mark.parametrize(
    "text, match",
    [
        ("a photograph of a tree", "names no class; expected a word of one of car, dog, forklift"),
        ("a car, a dog and a sofa", r"names 3 classes \(car, dog, sofa\), expected 2 at most"),
        ("a sofa beside a couch", "names 'sofa' more than once"),
        ("two forklifts", "names 'forklifts'; write the singular 'forklift'"),
        ("a dog among pallets", "names 'pallets'; write the singular"),
        ("word " * 41 + "car", "has 42 words, expected 40 at most"),
    ],
)
def test_texts_that_could_not_be_used(text, match):
    with pytest.raises(ValueError, match=match):
        parse_text(text, YARD)


def test_a_word_within_another_is_told_apart():
    """The first "hat" of the text is the hard hat's, and not taken for the class."""
    both = words(["hat", "hard hat"])
    assert parse_text("a hard hat and a hat", both).entities == ("hard hat", "hat")
    assert parse_text("a hat and a hard hat", both).entities == ("hat", "hard hat")


def test_file_errors_name_each_line(tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("# mine\na red forklift\n\na tree\ntwo dogs\n")
    with pytest.raises(
        ValueError,
        match=r"2 of its lines(.|\n)*line 4: 'a tree' names no class"
        r"(.|\n)*line 5: .*singular 'dog'",
    ):
        read_texts(str(file), YARD)
    file.write_text("# nothing\n")
    with pytest.raises(ValueError, match="holds no prompt"):
        read_texts(str(file), YARD)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_texts(str(file), YARD)
    with pytest.raises(ValueError, match="no file .*none.txt; expected a text file"):
        read_texts(str(tmp_path / "none.txt"), YARD)
    file.write_text("\n".join(["a tree"] * 12))
    with pytest.raises(ValueError, match="and 2 more"):
        read_texts(str(file), YARD)


LINES = [
    "a red forklift at dawn",
    "a muddy dog",
    "a dog beside a pallet",
    "a car near a dog",
    "the hard hat of a person",
]


def test_texts_take_places_within_the_counts():
    texts = [parse_text(line, YARD, i) for i, line in enumerate(LINES)]
    found = make_prompts(YARD, WANTED, 0, texts)[0]
    count = Counter((p["purpose"], len(p["entities"])) for p in found)
    assert count == {
        ("train", 1): 60,
        ("train", 2): 90,
        ("sim", 1): 24,
        ("sim", 2): 36,
        ("synthetic", 1): 100,
        ("synthetic", 2): 200,
    }
    used = Counter((p["purpose"], p["text"]) for p in found if p["text"] in LINES)
    assert used == {("synthetic", line): 1 for line in LINES} | {
        ("train", "a muddy dog"): 1,
        ("train", "a car near a dog"): 1,
    }  # seen classes alone
    for p in found:
        if p["text"] in LINES:
            assert template_of(p) == ("{A} near {B}" if "near" in p["text"] else OWN_TEXT)
    facts = text_facts(found, texts)
    assert facts["lines"] == 5 and facts["lines_unused"] == 0
    assert facts["used"]["synthetic"] == {
        "car": 1,
        "dog": 3,
        "forklift": 1,
        "hard hat": 1,
        "pallet": 1,
        "person": 1,
    }


def test_texts_about_one_class_do_not_unbalance_the_set():
    """Of 300 lines about one pair, only what fits the even share is used; the rest is reported."""
    texts = [parse_text(f"a forklift beside a pallet number {i}", YARD, i) for i in range(300)]
    found = make_prompts(YARD, WANTED, 0, texts)[0]
    two = [p for p in found if p["purpose"] == "synthetic" and len(p["entities"]) == 2]
    counts = Counter(e for p in two for e in p["entities"])
    assert len(two) == 200 and max(counts.values()) - min(counts.values()) <= 1
    assert counts["forklift"] in (57, 58)  # 400 / 7
    assert text_facts(found, texts)["lines_unused"] == 300 - 57


def test_pairs_even_out_what_was_taken():
    import numpy as np

    drawn = balanced_pairs(np.random.default_rng(0), "abcd", "abcd", 10, [("b", "a")] * 4)
    counts = Counter("".join(map("".join, drawn)))
    assert counts["a"] + 4 + counts["b"] + 4 + counts["c"] + counts["d"] == 28
    assert {counts["a"] + 4, counts["b"] + 4, counts["c"], counts["d"]} == {7}


def test_checks_pass_on_such_prompts(tmp_path, monkeypatch):
    """Great Expectations' rules on prompts, with attributes, scenes and texts all on."""
    texts = tmp_path / "texts.txt"
    texts.write_text("a muddy Dog\na red sofa near a tv monitor\n")
    base = load_params("ci")
    params = dataclasses.replace(
        base,
        prompts=dataclasses.replace(
            base.prompts, attribute_share=0.5, scene_share=0.5, texts=str(texts)
        ),
        diffusion=dataclasses.replace(base.diffusion, model="not/here"),
    )  # micro reads 24 tokens
    report = run_stage("prompts", params, tmp_path)
    verdict = expectations.validate("prompts", params, expectations.Workspace(tmp_path, "ci"))
    assert verdict.passed, verdict.failures
    rows = read_shards(tmp_path / "data" / "ci" / "prompts")
    assert {"a muddy Dog", "a red sofa near a tv monitor"} <= set(rows.text)
    assert report.facts["texts"] == {
        "lines": 2,
        "lines_unused": 0,
        "used": {"train": {}, "synthetic": {"dog": 1, "sofa": 1, "tvmonitor": 1}},
    }
    # Another content under the same name is another recipe.
    texts.write_text("a muddy Dog\n")
    assert not run_stage("prompts", params, tmp_path).cached
    assert run_stage("prompts", params, tmp_path).cached


def test_the_studies_prompts_are_what_they_were():
    """The defaults leave the prompts of the studies, which were once the micro profile's, to the
    last letter as they were before attributes, scenes and texts existed (digest of the commit
    before)."""
    from ml.store.files import sha256_json

    params, vocabulary = load_params("paper"), load_vocabulary("voc-1")
    found = make_prompts(vocabulary, params.prompts, params.seed)[0]
    assert (
        sha256_json([[p["text"], p["seed"], p["phrases"]] for p in found])
        == "2a8d7079f38c4c6dab4533e07bea4c3dbde67a067e6259c50f71e1c5188be177"
    )
    assert set(facts_of(found, vocabulary)["templates"]["sim"]) == set(PLAIN.values())
