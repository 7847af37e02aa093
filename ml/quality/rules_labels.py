"""Rules for the synthetic set."""

from ml.quality.rule import HUGE, between, unique, within
from ml.quality.rules_masks import lying
from ml.quality.rules_shared import (
    AS_LARGE_AS_MODEL,
    AS_PROMPTED,
    FEW_NEAR_DUPLICATES,
    NOT_BLANK,
    NOT_NOISE,
    WORDS_NAMED,
)

SYNTHETIC = (
    unique("keys_unique", "rows", "key", "no two pictures share a key"),
    unique("no_exact_duplicates", "rows", "sha256", "no picture twice"),
    between("all_made", "total", "missing", 0, 0, "every synthetic prompt has its picture"),
    AS_PROMPTED,
    FEW_NEAR_DUPLICATES,
    within("no_overlap_flagged", "rows", "benchmark_overlap", [False], "no overlap was flagged"),
    between(
        "no_overlap_found",
        "total",
        "in_benchmark",
        0,
        0,
        "no picture is nearly one of the benchmark's, mirrored or not (compared here again)",
    ),
    *AS_LARGE_AS_MODEL,
    NOT_BLANK,
    NOT_NOISE,
    within("labels_fit", "rows", "label_fits", [True], "label maps are as large as the pictures"),
    within(
        "labels_named",
        "accepted",
        "labels_named",
        [True],
        "label maps hold the prompt's classes, background and ignored only",
    ),
    within(
        "labels_masked",
        "accepted",
        "labels_masked",
        [True],
        "where a label map says a class, so does the mask of that class",
    ),
    within("facts_true", "rows", "facts_true", [True], "areas and ignored share are the pixels'"),
    between("labels_present", "accepted", "least_area", "@min_label", 1, "as the filter's"),
    between(
        "labels_not_everything",
        "accepted",
        "greatest_area",
        0,
        0.98,
        "no class fills the whole picture",
        mostly=0.98,
    ),
    within("masks_fine", "accepted", "fine", [True], "masks as fine as the pictures", mostly=0.9),
    *lying("total"),
    *WORDS_NAMED,
    between("ignored_per_picture", "accepted", "ignored", 0, "@max_ignore", "as the filter's"),
    between("ignored_on_average", "total", "mean_ignored", 0, 0.2, "20 % ignored at most"),
    between("yield_share", "total", "yield_share", 0.2, 1, "20 % or more were accepted"),
    between("every_class_present", "classes", "count", 1, HUGE, "no class is gone"),
    between(
        "no_class_dominates",
        "classes",
        "share_of_even",
        0,
        4,
        "no class has more than four times the even share",
    ),
)
