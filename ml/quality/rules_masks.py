"""Rules for masks and triplets."""

from ml.quality.rule import HUGE, Rule, between, pair, placed, together, within


def lying(table: str) -> tuple[Rule, ...]:
    """Rules on where masks lie in their pictures (`ml.quality.edges.placement`)."""
    return placed(
        # Sound sets have 1.0, whatever their size; moved by 1 of 64 pixels they have 0.7 to 0.8.
        between(
            "masks_in_place",
            table,
            "in_place",
            0.9,
            1,
            "moved by no offset do all masks together fit the edges of the pictures much better",
        ),
        # Sound sets have 0.3 to 1.5 % at their most common offset.
        between(
            "masks_not_moved_alike",
            table,
            "moved_alike",
            0,
            0.05,
            "at most 5 % of the masks would fit better moved by one and the same offset",
        ),
        # Sound sets have 91 to 95 %, masks of other pictures 5 to 10 %. The wide bound is for
        # photographs, where not every outline is an edge.
        between(
            "masks_on_edges",
            table,
            "on_edges",
            0.6,
            1,
            "60 % of the masks fit the edges of their pictures best where they are",
        ),
    )


MASKS = (
    together("one_row_per_entity", "rows", ["key", "entity"], "one verdict a picture and entity"),
    between("all_judged", "total", "missing", 0, 0, "every entity of every picture was looked for"),
    between("none_unasked", "total", "unasked", 0, 0, "no entity that the picture's prompt lacks"),
    within(
        "as_pictured", "rows", "as_pictured", [True], "word, purpose and cell are the picture's"
    ),
    within("masks_fit", "rows", "fits", [True], "masks are as large as their pictures"),
    within("areas_true", "rows", "area_true", [True], "areas are those of the masks"),
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
    # A mask of a thing follows its outline; none of 4,000 is made of squares.
    within(
        "masks_fine",
        "found",
        "fine",
        [True],
        "masks are not enlarged from 32 rows or fewer",
        mostly=0.9,
    ),
    *lying("total"),
    *placed(
        # 19 of the micro model's 20 classes have 0.94 or more; masks of other pictures have 0.5.
        between(
            "heat_finds_classes",
            "heat classes",
            "median",
            0.7,
            1,
            "in nine of ten classes a word's heat map is hotter in its masks than beside them",
            mostly=0.9,
        ),
        # The next two rules look at such classes alone; where most are none, all are in doubt.
        between(
            "heat_places_classes",
            "heat classes",
            "median",
            0.9,
            1,
            "in six of ten classes the heat maps find the masks clearly",
            mostly=0.6,
        ),
        # In classes with a median above 0.9 no sound mask of 1,900 is below 0.8.
        between(
            "masks_hot",
            "placed",
            "inside",
            0.7,
            1,
            "where the heat maps find a class, its masks are hotter than what is beside them",
            mostly=0.95,
        ),
        # 99 % of the sound masks in pictures of two things. Words are known to share heat in larger
        # models, so that a tenth may be wrong.
        within(
            "masks_hottest_for_own_word",
            "pairs",
            "own_hottest",
            [True],
            "in pictures of two things a mask is hotter for its own word than for the other",
            mostly=0.9,
        ),
    ),
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
    between("all_judged", "total", "missing", 0, 0, "every mask of the masks' stage was judged"),
    within("as_masked", "rows", "as_masked", [True], "mask, word and score are the masks' stage's"),
    within("as_pictured", "rows", "as_pictured", [True], "text and facts are the picture's"),
    between("one_subset", "total", "in_two_subsets", 0, 0, "no picture is in two subsets"),
    within("subsets_known", "rows", "subset", ["train", "validation", "sim"], "known subsets"),
    within("reasons_known", "rows", "reason", "@reasons", "every reason is in the filter's table"),
    pair("rejected_with_reason", "rows", "accepted", "no_reason", "a reason exactly when rejected"),
    within("accepted_have_masks", "accepted", "has_rle", [True], "what was accepted has a mask"),
    between("accepted_areas", "accepted", "area", "@min_area", "@max_area", "areas as filtered"),
    between("accepted_scores", "accepted", "score", "@min_score", 1, "scores as filtered"),
    between("accepted_not_blank", "accepted", "std", "@min_std", 128, "grey levels as filtered"),
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
    # Of a user's own pictures with masks; a set without any passes.
    within(
        "own_reasons_known", "own", "reason", "@own_reasons", "own masks: a reason of the table"
    ),
    pair(
        "own_rejected_with_reason", "own", "accepted", "no_reason", "a reason exactly when rejected"
    ),
    within("own_classes_taught", "own", "only_taught", [True], "own masks are of no unseen class"),
    within("own_as_pictured", "own", "as_pictured", [True], "text and facts are the own picture's"),
    within("own_masks_fit", "own", "fits", [True], "own masks are as large as their pictures"),
    within("own_areas_true", "own", "area_true", [True], "areas are those of the own masks"),
    within("own_named_in_text", "own", "named_in_text", [True], "the text holds the word"),
    within("own_keys_apart", "own", "generated_key", [False], "no key is a generated picture's"),
    within("own_have_masks", "own accepted", "has_rle", [True], "what was accepted has a mask"),
    between("own_areas", "own accepted", "area", "@min_area", "@max_area", "areas as filtered"),
    between("own_not_blank", "own accepted", "std", "@min_std", 128, "grey levels as filtered"),
    within(
        "own_not_benchmark",
        "own accepted",
        "in_benchmark",
        [False],
        "no own picture is nearly one of the benchmark's (compared here again)",
    ),
)
