"""The stage table: the graph that Dagster, DVC and `python -m ml` have in common."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Stage:
    name: str  # of the asset, the module, the DVC stage and the folder
    inputs: tuple[str, ...]  # stages whose folders it reads
    sections: tuple[str, ...]  # fields of Params that it reads, or "field.subfield"
    version: int  # raised when the same inputs give another output
    models: tuple[str, ...] = ()  # Params fields (section.field) that name a foundation model
    heavy: bool = False  # wants the GPU at full size
    real_part: str | None = None  # of the real data that it reads, when `benchmark:` names some
    trains: bool = False  # may run in several processes at once (ml.compute.processes)


STAGES = (
    Stage(
        "benchmark", (), ("vocabulary", "benchmark.source", "benchmark.subset"), 1, real_part="test"
    ),
    Stage("prompts", (), ("seed", "vocabulary", "prompts", "shards"), 1),
    Stage(
        "images",
        ("prompts",),
        ("seed", "diffusion", "shards"),
        2,
        models=("diffusion.model",),
        heavy=True,
    ),
    Stage(
        "masks",
        ("images",),
        ("vocabulary", "detector"),
        1,
        models=("detector.model", "detector.weights"),
        heavy=True,
    ),
    Stage("triplets", ("images", "masks"), ("vocabulary", "triplets"), 1),
    Stage(
        "grounding_model",
        ("images", "triplets"),
        ("seed", "vocabulary", "diffusion", "grounding"),
        3,
        models=("diffusion.model",),
        heavy=True,
        trains=True,
    ),
    Stage(
        "grounding_scores",
        ("images", "triplets", "grounding_model"),
        ("vocabulary", "diffusion", "benchmark.bootstrap", "benchmark.daam_thresholds"),
        2,
        models=("diffusion.model",),
        heavy=True,
    ),
    Stage(
        "synthetic_dataset",
        ("prompts", "grounding_model", "benchmark"),
        ("seed", "vocabulary", "diffusion", "shards", "synthetic"),
        1,
        models=("diffusion.model",),
        heavy=True,
    ),
    Stage(
        "segmenter",
        ("synthetic_dataset",),
        ("seed", "vocabulary", "segmenter", "benchmark.source"),
        1,
        models=("segmenter.backbone",),
        heavy=True,
        trains=True,
    ),
    Stage(
        "real_bound",
        ("synthetic_dataset", "benchmark"),
        ("seed", "vocabulary", "segmenter", "benchmark.source", "benchmark.subset"),
        1,
        models=("segmenter.backbone",),
        heavy=True,
        trains=True,
        real_part="train",
    ),
    Stage(
        "benchmark_scores",
        ("benchmark", "synthetic_dataset", "segmenter", "real_bound"),
        ("seed", "vocabulary", "benchmark.source", "benchmark.bootstrap"),
        1,
        heavy=True,
    ),
    Stage("promotion", ("grounding_scores", "benchmark_scores"), ("promotion",), 1),
    Stage(
        "report",
        (
            "prompts",
            "images",
            "masks",
            "triplets",
            "grounding_model",
            "grounding_scores",
            "synthetic_dataset",
            "segmenter",
            "real_bound",
            "benchmark",
            "benchmark_scores",
            "promotion",
        ),
        ("profile",),
        3,
    ),
)


STAGE = {stage.name: stage for stage in STAGES}


@dataclass(frozen=True)
class Output:
    """What a stage's `run` hands back; the files are in its folder already."""

    facts: dict = field(default_factory=dict)  # JSON-able counts and scores
    rows: dict[str, int] = field(default_factory=dict)  # by shard file
