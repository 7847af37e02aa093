"""Rules for trained models and their scores."""

from ml.quality.rule import HUGE, Rule, between, pair

# A loss that is not a number, or that rose, means a broken training; 1.0 allows the shortest runs.
MODEL = (
    Rule(
        "loss_finite",
        "loss",
        "ExpectColumnValuesToNotBeNull",
        {"column": "loss"},
        "the loss is a number at every step",
    ),
    between(
        "loss_fell",
        "total",
        "last_to_first_loss",
        -HUGE,
        1,
        "the last quarter's loss is below the first quarter's",
    ),
    pair(
        "weights_written",
        "total",
        "weights",
        "expected_weights",
        "safetensors weights exist where a model was trained",
    ),
)


# Chance: a mask over the whole picture has an IoU of the object's area, 10 to 20 %.
GROUNDING_SCORES = (
    between("scores_in_range", "scores", "value", 0, 100, "scores are percentages"),
    between(
        "above_chance",
        "total",
        "ours/one_seen",
        20,
        100,
        "one seen object is segmented better than by taking the whole picture",
    ),
)


# Chance: labels thrown at random over 21 classes reach an IoU below 1 %.
BENCHMARK_SCORES = (
    between("scores_in_range", "scores", "value", 0, 100, "scores are percentages"),
    between("above_chance", "total", "synthetic/checked", 1.5, 100, "better than random labels"),
    between(
        "bound_above_chance",
        "models",
        "score",
        1.5,
        100,
        "every model that was scored, the bound too, is better than random labels",
    ),
)
