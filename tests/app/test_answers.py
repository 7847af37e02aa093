"""Words as people type them."""

import pytest

from ml.app.answers import MOST_WORDS, words_in, words_of
from ml.words.vocabulary import load_vocabulary

VOC = load_vocabulary("voc-1")


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("dog, cat", ["dog", "cat"]),
        (" dining  table ;\nsofa,, ", ["dining table", "sofa"]),
        ("Ärger", ["Ärger"]),
    ],
)
def test_words_are_what_stands_between_commas_and_line_ends(typed, words):
    assert words_of(typed) == words


@pytest.mark.parametrize("typed", ["", " , ;\n", ",".join(f"w{i}" for i in range(MOST_WORDS + 1))])
def test_no_words_and_too_many_are_refused_in_one_sentence(typed):
    with pytest.raises(ValueError, match="word") as refused:
        words_of(typed)
    assert "\n" not in str(refused.value)


def test_a_prompts_own_words_are_found_as_they_are_written_a_class_once():
    assert words_in("a photo of a Dog and a TV monitor, dog", VOC) == ["Dog", "TV monitor"]
    with pytest.raises(ValueError, match="names no word of the vocabulary 'voc-1'"):
        words_in("a photograph of a zebra", VOC)
