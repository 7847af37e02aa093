"""Public functions with any texts, arrays and addresses: what they say they return, or one clear
error. More inputs: `make fuzz`."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import ml
from ml.cli.own_words.classes import parse_classes
from ml.errors import shown
from ml.grounding.prompting import ask
from ml.images.photographs import open_picture
from ml.images.png import decode_png, encode_png
from ml.metrics.bootstrap import bootstrap_interval, paired_bootstrap
from ml.metrics.iou import binary_iou, confusion, harmonic_mean, iou_per_class, miou
from ml.metrics.protocol_one import cell_scores, class_mean_iou
from ml.settings.profile import load_params
from ml.store.registry_folder import model_folder, refuse_address
from ml.words.english import plurals, singular_of, with_article
from ml.words.left_out import without_phrase
from ml.words.phrases import phrase, phrase_of, query_text
from ml.words.spans import check_name, check_word, find, fold, named_in, occurrences, own_spans
from ml.words.spellings import canonical
from ml.words.texts import parse_text
from ml.words.vocabulary import load_vocabulary
from orchestration.mlflow.model_card import cell
from orchestration.mlflow.names import MAX_LENGTH, stored, typed
from orchestration.mlflow.tracking import mask, resolve
from tests.fuzz.given import TEXTS, VALUES, clear

VOC = load_vocabulary("voc-1")

# The door


@pytest.mark.parametrize(
    "opener",
    [
        ml.load_vocabulary,
        ml.load_segmenter,
        ml.GroundingModule.from_pretrained,
        ml.GroundedDiffusionPipeline.from_pretrained,
    ],
)
@given(name=TEXTS.filter(lambda text: "." not in text and "~" not in text and text.strip()))
def test_what_opens_nothing_says_so(opener, name, tmp_path_factory):
    assert clear(lambda: opener(name)) is None or name == "voc-1"


@given(value=VALUES)
def test_a_folder_is_a_path(value):
    clear(lambda: model_folder(value, "the test"))
    clear(lambda: refuse_address(str(value), "the test"))
    clear(lambda: ml.load_vocabulary(value))
    clear(lambda: load_params(value) if isinstance(value, str) else None)


# Words

SAID = st.one_of(
    TEXTS, st.lists(st.sampled_from(["a", "dog", "dogs", "red", ",", "bus's", "tv"])).map(" ".join)
)


@given(text=SAID, words=st.lists(SAID, max_size=4))
def test_words_are_found_where_they_stand(text, words):
    for hit in find(text, [fold(word) for word in words if word.strip()]):
        assert 0 <= hit.start < hit.end <= len(text)
    assert len(clear(lambda: occurrences(text, words)) or words) == len(words)
    assert len(clear(lambda: named_in(text, words)) or words) == len(words)
    for word in words:
        for start, end in clear(lambda word=word: own_spans(text, word, words)) or []:
            assert 0 <= start < end <= len(text)
        clear(lambda word=word: phrase_of(text, word, words))
        clear(lambda word=word: without_phrase(text, word))


@given(word=SAID)
def test_a_word_is_taken_or_refused(word):
    for check in (check_word, check_name):
        assert clear(lambda check=check: check(word)) in (None, word)
    for inflect in (plurals, singular_of, with_article, canonical, query_text, phrase):
        clear(lambda inflect=inflect: inflect(word))
    clear(lambda: parse_text(word, VOC))
    clear(lambda: ask([[word]]))
    found = clear(lambda: parse_classes(word))
    assert found is None or all(one == one.lower() for one in found)


@given(value=VALUES)
def test_what_is_no_word_is_refused(value):
    clear(lambda: check_word(value))
    clear(lambda: ask(value))
    clear(lambda: ask([["dog"]], prompts=[value]))


# Pictures and scores

ANY_ARRAY = arrays.arrays(
    st.sampled_from(["u1", "i8", "f4", "f8", "?", "u2"]),
    arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
)


@given(array=ANY_ARRAY, data=st.binary(max_size=40))
def test_a_picture_is_encoded_or_refused(array, data):
    found = clear(lambda: encode_png(array))
    assert found is None or np.array_equal(decode_png(found), array)
    clear(lambda: open_picture(data))
    clear(lambda: decode_png(data))


LABELS = arrays.arrays("u1", (4, 5), elements=st.sampled_from([0, 1, 2, 3, 255]))


@given(pred=LABELS, label=LABELS)
def test_confusions_count_every_pixel_that_is_not_ignored(pred, label):
    counts = clear(lambda: confusion(pred, label, 3))
    if counts is None:
        assert (pred[label != 255] > 3).any()
        return
    assert counts.sum() == (label != 255).sum()
    for values in (iou_per_class(counts), miou(counts, [1, 2])):
        assert all(math.isnan(v) or 0 <= v <= 1 for v in np.ravel(values))
    low, high = bootstrap_interval(lambda c: miou(c, [1, 2]), counts[None], 5, 0)
    assert math.isnan(low) or 0 <= low <= high <= 1
    assert paired_bootstrap(lambda c: miou(c, [1]), counts[None], counts[None], 5, 0)[0] in (
        0,
        None,
    ) or (math.isnan(miou(counts, [1])))


@given(one=ANY_ARRAY, other=ANY_ARRAY)
def test_masks_that_do_not_fit_are_refused(one, other):
    found = clear(lambda: binary_iou(one, other))
    assert found is None or math.isnan(found) or 0 <= found <= 1
    clear(lambda: confusion(one, other, 3))


SHARES = st.floats(0, 1)


@given(seen=SHARES, unseen=SHARES)
def test_a_harmonic_mean_lies_between(seen, unseen):
    found = float(harmonic_mean(seen, unseen))
    assert min(seen, unseen) - 1e-9 <= found <= max(seen, unseen) + 1e-9


@given(rows=st.lists(st.tuples(SHARES, st.sampled_from("ab"), st.sampled_from("xyz")), max_size=9))
def test_scores_of_masks_are_percentages(rows):
    ious, classes, keys = zip(*rows, strict=True) if rows else ((), (), ())
    found = clear(lambda: class_mean_iou(ious, classes))
    assert (found is None) == (not rows) and (found is None or 0 <= found <= 100.0001)
    if rows:
        total, interval, per_class = cell_scores(ious, classes, keys, 5)
        assert interval[0] <= interval[1] and set(per_class) == set(classes)


# Names and addresses

TAKEN = re.compile(r"[\w.\- /]{1,250}")
"""What MLflow takes as the key of a metric, by its own documentation."""


@given(parts=st.lists(TEXTS, min_size=1, max_size=3))
def test_any_name_is_stored_so_that_it_comes_back(parts):
    name = stored(*parts)
    assert TAKEN.fullmatch(name) and len(name) <= MAX_LENGTH
    assert not any(part in ("", ".", "..") or part != part.strip() for part in name.split("/"))
    assert "_xsha" in name or typed(name) == tuple(parts)


@given(uri=TEXTS, artifacts=TEXTS)
def test_an_address_is_used_or_refused(uri, artifacts, tmp_path_factory):
    found = clear(lambda: resolve(uri, artifacts, tmp_path_factory.getbasetemp()))
    assert found is None or "@" not in found[0].partition("://")[2].partition("/")[0]


@given(
    user=st.from_regex(r"[a-z]{1,8}", fullmatch=True),
    password=st.from_regex(r"[A-Z0-9:/?#]{6,12}", fullmatch=True),
)
def test_a_password_in_an_address_is_never_shown(user, password):
    for address in (
        f"https://{user}:{password}@server/x",
        f"postgresql+psycopg2://{user}:{password}@h/d",
    ):
        assert password not in mask(f"no answer from {address} at all")


@given(text=TEXTS)
def test_what_people_typed_is_shown_and_does_nothing(text):
    assert all(c.isprintable() or c == "\n" for c in shown(text))
    assert not re.search(r"(?<!\\)[*`|<>\[\]]", cell(text))
