"""Rules for prompts, images, masks, triplets, the synthetic set and the benchmark."""

from ml.quality.rule import HUGE, PURPOSES, between, pair, together, unique, within
from ml.words.cells import CELLS

PROMPTS = (
    unique("keys_unique", "rows", "key", "no two prompts share a key"),
    unique("seeds_unique", "rows", "seed", "no two pictures start from the same noise"),
    within("purposes_known", "rows", "purpose", PURPOSES, "every prompt has a known purpose"),
    within("cells_known", "rows", "cell", list(CELLS), "every prompt has a known cell"),
    pair("counts_as_asked", "counts", "count", "expected", "each set is as large as asked for"),
    within("entities_in_vocabulary", "entities", "entity", "@classes", "only known classes"),
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
    pair("width_as_model", "rows", "width", "expected_side", "as wide as the model draws"),
    pair("height_as_model", "rows", "height", "expected_side", "as high as the model draws"),
    # Drawn scenes have std 22 to 73, entropy 3.5 to 6.2 bits, mean 149 to 228 (300 scenes).
    between("not_blank", "rows", "std", "@min_std", 128, "grey levels vary", mostly=0.98),
    between("entropy_in_range", "rows", "entropy", 1.5, 8, "neither flat nor noise", mostly=0.98),
    between("mean_in_range", "rows", "mean", 8, 248, "neither black nor white", mostly=0.98),
    unique("no_exact_duplicates", "rows", "sha256", "no picture twice"),
    # 2 % of drawn scenes from different seeds have a hash that close by chance (35 of 1,500).
    between(
        "few_near_duplicates",
        "total",
        "near_duplicate_share",
        0,
        0.15,
        "at most 15 % of the pictures nearly repeat an earlier one",
    ),
    within("entities_in_vocabulary", "entities", "entity", "@classes", "only known classes"),
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


MASKS = (
    together("one_row_per_entity", "rows", ["key", "entity"], "one verdict a picture and entity"),
    between("all_judged", "total", "missing", 0, 0, "every entity of every picture was looked for"),
    between("none_unasked", "total", "unasked", 0, 0, "no entity that the picture's prompt lacks"),
    within("roles_known", "rows", "role", ["labeller", "oracle"], "who judged is known"),
    within("labels_seen_only", "labels", "entity", "@seen", "the labeller uses seen classes only"),
    within("labels_never_sim", "labels", "purpose", ["train"], "no label on the sim set"),
    between("scores_in_range", "found", "score", "@score_threshold", 1, "above the threshold"),
    between(
        "areas_in_range",
        "found",
        "area",
        1e-4,
        0.98,
        "neither a speck nor the whole picture",
        mostly=0.98,
    ),
    within("found_have_masks", "found", "has_rle", [True], "what was found has a mask"),
    # Pictures that do not show what was asked, or a detector that does not know them: below half.
    between(
        "found_share",
        "total",
        "labels_found_share",
        0.5,
        1,
        "half or more of the training entities were found",
    ),
    between(
        "every_class_found",
        "classes",
        "share_of_even",
        0.1,
        10,
        "every seen class is found, at 0.1 times the even share or more",
    ),
)


TRIPLETS = (
    together("one_row_per_entity", "rows", ["key", "entity"], "one verdict a picture and entity"),
    within("subsets_known", "rows", "subset", ["train", "validation", "sim"], "known subsets"),
    within("reasons_known", "rows", "reason", "@reasons", "every reason is in the filter's table"),
    pair("rejected_with_reason", "rows", "accepted", "no_reason", "a reason exactly when rejected"),
    within("accepted_have_masks", "accepted", "has_rle", [True], "what was accepted has a mask"),
    between("accepted_areas", "accepted", "area", "@min_area", "@max_area", "areas as filtered"),
    within("labels_seen_only", "labels", "entity", "@seen", "training uses seen classes only"),
    within("entities_named_in_text", "rows", "named_in_text", [True], "the text holds the word"),
    between("yield_share", "total", "yield_share", 0.3, 1, "30 % or more were accepted"),
    between(
        "enough_per_class",
        "classes",
        "share_of_even",
        0.2,
        5,
        "every seen class has 0.2 times the even share of the accepted or more",
    ),
    between("two_per_class", "classes", "count", 2, HUGE, "two or more accepted a seen class"),
    between("validation_exists", "total", "validation", 1, HUGE, "something to stop early on"),
    between("sim_exists", "total", "sim", 1, HUGE, "something to score on"),
)


SYNTHETIC = (
    unique("keys_unique", "rows", "key", "no two pictures share a key"),
    unique("no_exact_duplicates", "rows", "sha256", "no picture twice"),
    within("no_overlap_flagged", "rows", "benchmark_overlap", [False], "no overlap was flagged"),
    between(
        "no_overlap_found",
        "total",
        "in_benchmark",
        0,
        0,
        "no picture is, or nearly is, one of the benchmark's (compared here again)",
    ),
    pair("width_as_model", "rows", "width", "expected_side", "as wide as the model draws"),
    pair("height_as_model", "rows", "height", "expected_side", "as high as the model draws"),
    between("not_blank", "rows", "std", "@min_std", 128, "grey levels vary", mostly=0.98),
    within("labels_fit", "rows", "label_fits", [True], "label maps are as large as the pictures"),
    within(
        "labels_named",
        "accepted",
        "labels_named",
        [True],
        "label maps hold the prompt's classes, background and ignored only",
    ),
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
