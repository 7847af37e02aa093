"""The stage table: the graph that Dagster, DVC and `python -m ml` have in common.

Read it from top to bottom: a stage reads folders of stages above it only. A stage's work is
`ml/pipeline/stages/<name>.py`, its settings are the named sections of the profile.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Stage:
    """One row of the table.

    Name, version, the settings of `sections`, inputs and models make up the recipe (`recipe_of`)
    that decides whether a folder is up to date. The labels only say how a stage is shown; they are
    no part of any recipe, so that rewording one makes nothing again.
    """

    name: str  # of the asset, the module, the DVC stage and the folder
    inputs: tuple[str, ...]  # stages whose folders it reads
    sections: tuple[str, ...]  # fields of Params that it reads, or "field.subfield"
    version: int  # raised when the same inputs give another output
    models: tuple[str, ...] = ()  # Params fields (section.field) that name a foundation model
    heavy: bool = False  # wants the GPU at full size
    photo_part: str | None = None  # of the photographs that it reads, when `benchmark:` names some
    trains: bool = False  # may run in several processes at once (ml.compute.processes)

    # Labels: what a catalogue shows of the stage.
    description: str = ""  # one sentence
    group: str = ""  # box of the graph view; the boxes' arrows form no cycle
    kinds: tuple[str, ...] = ()  # what it is made with and of: pytorch, parquet, ...


# fmt: off
STAGES = (
    Stage(
        name="benchmark",
        inputs=(),
        sections=("vocabulary", "benchmark.source", "benchmark.subset"),
        version=1,
        photo_part="test",
        description="The frozen test pictures with exact label maps: drawn from seeds of their "
                    "own, or real.",
        group="data", kinds=("python", "parquet"),
    ),
    Stage(
        name="prompts",
        inputs=(),
        sections=("seed", "vocabulary", "prompts", "shards"),
        version=1,
        description="What to draw: one- and two-object prompts, balanced over classes, each with "
                    "its own seed.",
        group="data", kinds=("python", "parquet"),
    ),
    Stage(
        name="images",
        inputs=("prompts",),
        sections=("seed", "diffusion", "shards"),
        version=2,
        models=("diffusion.model",),
        heavy=True,
        description="Pictures of the training and sim prompts, with the latent before the last "
                    "step and DAAM.",
        group="data", kinds=("pytorch", "parquet"),
    ),
    Stage(
        name="masks",
        inputs=("images",),
        sections=("vocabulary", "detector"),
        version=1,
        models=("detector.model", "detector.weights"),
        heavy=True,
        description="What the detector found of each entity: labels of seen classes, an oracle on "
                    "the sim set.",
        group="data", kinds=("pytorch", "parquet"),
    ),
    Stage(
        name="triplets",
        inputs=("images", "masks"),
        sections=("vocabulary", "triplets"),
        version=1,
        description="Accepted {picture, mask, word}, and the rejected ones with the reason.",
        group="data", kinds=("python", "parquet"),
    ),
    Stage(
        name="grounding_model",
        inputs=("images", "triplets"),
        sections=("seed", "vocabulary", "diffusion", "grounding"),
        version=3,
        models=("diffusion.model",),
        heavy=True,
        trains=True,
        description="The module that turns diffusion features and a word into a mask, trained on "
                    "seen classes.",
        group="grounding", kinds=("pytorch",),
    ),
    Stage(
        name="grounding_scores",
        inputs=("images", "triplets", "grounding_model"),
        sections=("vocabulary", "diffusion", "benchmark.bootstrap", "benchmark.daam_thresholds"),
        version=2,
        models=("diffusion.model",),
        heavy=True,
        description="Protocol I: mIoU on pictures never trained on, seen and unseen words, beside "
                    "DAAM.",
        group="evaluation", kinds=("pytorch",),
    ),
    Stage(
        name="synthetic_dataset",
        inputs=("prompts", "grounding_model", "benchmark"),
        sections=("seed", "vocabulary", "diffusion", "shards", "synthetic"),
        version=1,
        models=("diffusion.model",),
        heavy=True,
        description="New pictures over all classes that the diffusion model and the module "
                    "labelled themselves.",
        group="segmentation", kinds=("pytorch", "parquet"),
    ),
    Stage(
        name="segmenter",
        inputs=("synthetic_dataset",),
        sections=("seed", "vocabulary", "segmenter", "benchmark.source"),
        version=1,
        models=("segmenter.backbone",),
        heavy=True,
        trains=True,
        description="The segmenter, trained on the synthetic set alone.",
        group="segmentation", kinds=("pytorch",),
    ),
    Stage(
        name="real_bound",
        inputs=("synthetic_dataset", "benchmark"),
        sections=("seed", "vocabulary", "segmenter", "benchmark.source", "benchmark.subset"),
        version=1,
        models=("segmenter.backbone",),
        heavy=True,
        trains=True,
        photo_part="train",
        description="The same segmenter trained on as many real pictures with true labels: the "
                    "upper bound.",
        group="segmentation", kinds=("pytorch",),
    ),
    Stage(
        name="benchmark_scores",
        inputs=("benchmark", "synthetic_dataset", "segmenter", "real_bound"),
        sections=("seed", "vocabulary", "benchmark.source", "benchmark.bootstrap"),
        version=1,
        heavy=True,
        description="Protocol II: mIoU over seen, unseen, harmonic, with intervals, on the frozen "
                    "benchmark.",
        group="evaluation", kinds=("pytorch",),
    ),
    Stage(
        name="promotion",
        inputs=("grounding_scores", "benchmark_scores"),
        sections=("promotion",),
        version=1,
        description="Registers both models as challengers; the gate's verdict moves the champion "
                    "alias.",
        group="release", kinds=("mlflow",),
    ),
    Stage(
        name="report",
        inputs=("prompts", "images", "masks", "triplets", "grounding_model", "grounding_scores",
                "synthetic_dataset", "segmenter", "real_bound", "benchmark", "benchmark_scores",
                "promotion"),
        sections=("profile",),
        version=4,
        description="One self-contained HTML page: pictures, masks, curves and tables of the "
                    "whole run.",
        group="release", kinds=("python", "html"),
    ),
)
# fmt: on


STAGE = {stage.name: stage for stage in STAGES}


@dataclass(frozen=True)
class Output:
    """What a stage's `run` returns; the files are in its folder already."""

    facts: dict = field(default_factory=dict)  # JSON-able counts and scores
    rows: dict[str, int] = field(default_factory=dict)  # by shard file
