"""Rules for prompts, images and the benchmark."""

from ml.quality.rule import HUGE, PURPOSES, between, pair, unique, within
from ml.quality.rules_shared import (
    AS_LARGE_AS_MODEL,
    AS_PROMPTED,
    FEW_NEAR_DUPLICATES,
    NOT_BLANK,
    NOT_NOISE,
    WORDS_NAMED,
)
from ml.words.cells import CELLS

PROMPTS = (
    unique("keys_unique", "rows", "key", "no two prompts share a key"),
    unique("seeds_unique", "rows", "seed", "no two pictures start from the same noise"),
    within("purposes_known", "rows", "purpose", PURPOSES, "every prompt has a known purpose"),
    within("cells_known", "rows", "cell", list(CELLS), "every prompt has a known cell"),
    pair("counts_as_asked", "counts", "count", "expected", "each set is as large as asked for"),
    within(
        "captions_plain",
        "rows",
        "caption_fault",
        [""],
        "captions hold no invisible characters, markup or formulas, and 1000 letters at most",
    ),
    within("entities_in_vocabulary", "entities", "entity", "@classes", "only known classes"),
    *WORDS_NAMED,
    within("training_classes_seen", "train", "entity", "@seen", "training names seen classes only"),
    # Made balanced, so far off means a broken generator; 0.5 leaves room for sets of 3 a class.
    between(
        "training_balanced",
        "train classes",
        "share_of_even",
        0.5,
        2,
        "every seen class has 0.5 to 2 times the even share of the training entities",
    ),
    between(
        "synthetic_balanced",
        "synthetic classes",
        "share_of_even",
        0.5,
        2,
        "every class has 0.5 to 2 times the even share of the synthetic entities",
    ),
    between("sim_classes_present", "sim classes", "count", 1, HUGE, "Protocol I asks every class"),
)


IMAGES = (
    unique("keys_unique", "rows", "key", "no two pictures share a key"),
    between("all_made", "total", "missing", 0, 0, "every training and sim prompt has its picture"),
    between("none_unasked", "total", "unasked", 0, 0, "no picture without its prompt"),
    AS_PROMPTED,
    *AS_LARGE_AS_MODEL,
    # Drawn scenes have std 22 to 73, entropy 3.5 to 6.2 bits, mean 149 to 228 (300 scenes).
    NOT_BLANK,
    between("entropy_in_range", "rows", "entropy", 1.5, 8, "neither flat nor noise", mostly=0.98),
    NOT_NOISE,
    between("mean_in_range", "rows", "mean", 8, 248, "neither black nor white", mostly=0.98),
    within(
        "latents_sound",
        "rows",
        "latent_sound",
        [True],
        "latents are finite, not of one value, and all of one shape",
    ),
    within("heat_sound", "rows", "heat_sound", [True], "a heat map a word, of finite numbers"),
    unique("no_exact_duplicates", "rows", "sha256", "no picture twice"),
    FEW_NEAR_DUPLICATES,
    within("entities_in_vocabulary", "entities", "entity", "@classes", "only known classes"),
    *WORDS_NAMED,
)


BENCHMARK = (
    unique("keys_unique", "rows", "key", "no two pictures share a key"),
    # Published photo collections repeat a picture here and there; the drawn one is `frozen`.
    between(
        "no_exact_duplicates",
        "total",
        "repeated_share",
        0,
        0.01,
        "at most 1 % of the pictures are there twice",
    ),
    pair("row_count", "total", "rows", "published", "as many as were published, or listed"),
    pair(
        "frozen",
        "rows",
        "pixels",
        "published",
        "pixels (and drawn labels) are those that were published, or read",
    ),
    within("labels_fit", "rows", "label_fits", [True], "label maps are as large as the pictures"),
    within(
        "labels_known",
        "rows",
        "labels_known",
        [True],
        "labels are the vocabulary's, background or ignored, and the entities are those labels",
    ),
    within("not_blank", "rows", "blank", [False], "grey levels vary", mostly=0.98),
    within(
        "every_class_present",
        "classes",
        "missing",
        [""],
        "no class that the benchmark labels is missing",
    ),
)
