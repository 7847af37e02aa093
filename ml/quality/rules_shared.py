"""Rules that several stages share: of pictures, and of the words that their texts hold."""

from ml.quality.rule import between, pair, within

AS_PROMPTED = within(
    "as_prompted",
    "rows",
    "as_prompted",
    [True],
    "text, words, seed and all else that was asked are those of the prompt of that key",
)
FEW_NEAR_DUPLICATES = between(
    "few_near_duplicates",
    "total",
    "near_duplicate_share",
    0,
    0.15,
    "at most 15 % of the pictures nearly repeat an earlier one",
)
"""2 % of drawn scenes from different seeds have a hash that close by chance (35 of 1,500)."""
AS_LARGE_AS_MODEL = (
    pair("width_as_model", "rows", "width", "expected_side", "as wide as the model draws"),
    pair("height_as_model", "rows", "height", "expected_side", "as high as the model draws"),
)
NOT_BLANK = between("not_blank", "rows", "std", "@min_std", 128, "grey levels vary", mostly=0.98)
NOT_NOISE = between("not_noise", "rows", "whiteness", 0, 0.5, "neighbours are alike", mostly=0.98)
"""White noise has 1, whatever its levels; drawn scenes have 0.005 to 0.09 (2,600 pictures)."""
WORDS_NAMED = (
    within(
        "entities_named_in_text",
        "entities",
        "named_in_text",
        [True],
        "the text holds the word of every entity",
    ),
    within(
        "words_mean_entities",
        "entities",
        "word_means_entity",
        [True],
        "every word is one of its class's synonyms",
    ),
)
