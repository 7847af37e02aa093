"""The phrase of a word, composed and found."""

import pytest

from ml.words.phrases import phrase, phrase_start, query_text, without_article


def test_a_phrase_has_the_right_article():
    assert phrase("aeroplane") == "an aeroplane"
    assert phrase("car", "orange") == "an orange car"
    assert phrase("aeroplane", "red") == "a red aeroplane"
    assert phrase("dining table") == "a dining table"
    assert query_text("aeroplane") == "a photograph of an aeroplane"


@pytest.mark.parametrize(
    "text, word, expected",
    [
        ("we see a small red car", "car", "a small red car"),
        ("Old dog in the snow", "dog", "Old dog"),
        ("next to wooden chairs and car", "car", "car"),
        ("one two three four five six car", "car", "car"),
    ],
)
def test_a_phrase_begins_at_its_article_or_its_adjectives(text, word, expected):
    start = text.index(word)
    assert text[phrase_start(text, start, 0) : start + len(word)] == expected


def test_a_phrase_never_reaches_into_the_word_before():
    text = "dog red car"
    assert text[phrase_start(text, text.index("car"), len("dog")) :] == "red car"


def test_what_a_phrase_names_has_no_article():
    assert without_article("The red car") == "red car"
    assert without_article("red car") == "red car"
    assert without_article("a") == "a"
