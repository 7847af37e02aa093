"""How much of everything a run of the studies takes: counts of the full and of the quick size."""

from dataclasses import dataclass, replace

SPLITS = ("voc-1", "voc-2", "voc-3")
"""PASCAL-sim, the splits of the paper's Table 1."""

ZERO_SHOT = "voc-zs3"
"""The split of Protocol II."""

FRACTIONS = (0.02, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Of the denoising steps, counted from the last: the paper's timesteps 1, 5, 10, 20, 30, 40, 50 of
50. The first is the pipeline's own feature timestep."""


@dataclass(frozen=True)
class Size:
    """Counts of a run. Pictures of two objects: so many a pair of classes."""

    name: str
    seeds: int  # trainings of each row
    splits: tuple[str, ...]
    train_one: int  # generated, over all 20 classes
    train_two: int
    fixed: int  # training pictures where their number is held, one- and two-object ones
    sim_one: int  # a class, generated and judged
    sim_pair: int  # a pair
    sim_unseen_pair: int  # a pair of two unseen classes of one of SPLITS
    real_train: int  # drawn scenes to train on
    real_one: int  # a class, drawn, with exact truth
    real_pair: int
    real_unseen_pair: int
    synthetic: int  # pictures of each of Protocol II's sets
    absent_pictures: int  # asked for words that are not there
    same_class: int  # scenes of two objects of one class
    shard: int  # pictures a shard


SHARED = (
    "train_one",
    "train_two",
    "fixed",
    "sim_one",
    "sim_pair",
    "sim_unseen_pair",
    "real_train",
    "real_one",
    "real_pair",
    "real_unseen_pair",
)
"""Counts that every training and its scores depend on."""

FULL = Size("full", 3, SPLITS, 340, 760, 400, 8, 1, 5, 640, 5, 1, 4, 600, 40, 240, 40)

QUICK = replace(
    FULL,
    name="quick",
    seeds=2,
    splits=("voc-1",),
    train_one=40,
    train_two=80,
    fixed=24,
    sim_one=1,
    sim_pair=0,
    sim_unseen_pair=1,
    real_train=32,
    real_one=1,
    real_pair=0,
    real_unseen_pair=1,
    synthetic=40,
    absent_pictures=8,
    same_class=12,
    shard=40,
)

SIZES = {size.name: size for size in (FULL, QUICK)}
