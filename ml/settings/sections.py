"""The sections of a profile: frozen dataclasses, a range beside each field."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from ml.settings.ranges import TEXT, Length, Pattern, Range

LabelsFormat = Literal["auto", "folder", "voc", "coco", "yolo-seg", "hf", "webdataset"]
"""Layouts of a user's own pictures with masks (`ml.datasets.own`)."""
PHOTO_SOURCES = ("voc2012", "coco2017", "folder")
"""Values of benchmark.source that read photographs from benchmark.root."""


Scheduler = Literal[
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
]
"""Of diffusers, that draw with Stable Diffusion. Each ends where the closed form of a known case
says (tests/diffusion/test_contract_schedulers.py)."""
SCHEDULERS: tuple[str, ...] = get_args(Scheduler)
FlowScheduler = Literal["FlowMatchEulerDiscreteScheduler"]
"""Of diffusers, that draw with models of rectified flow: Stable Diffusion 3 and FLUX."""
FLOW_SCHEDULERS: tuple[str, ...] = get_args(FlowScheduler)
Text = Annotated[str, TEXT]


Count = Annotated[int, Range(0, 10_000_000)]


Steps = Annotated[int, Range(1, 10_000_000)]


Batch = Annotated[int, Range(1, 65_536)]


Width = Annotated[int, Range(8, 16_384)]


Layers = Annotated[int, Range(1, 100)]


Heads = Annotated[int, Range(1, 256)]


Rate = Annotated[float, Range(0, 1, above=True)]


Share = Annotated[float, Range(0, 1)]


Percent = Annotated[float, Range(0, 100)]


Inside = Annotated[float, Range(0, 1, above=True, below=True)]


Device = Annotated[
    str, Pattern(r"auto|cpu|mps|(cuda|xpu|hpu|npu)(:\d{1,3})?", "auto, cpu, cuda, cuda:1, ...")
]


Address = Annotated[
    str, Pattern(r"auto|(ray://)?[A-Za-z0-9.-]+:\d{1,5}", "auto, host:port or ray://host:port")
]


@dataclass(frozen=True)
class DiffusionParams:
    model: Text  # folder or hub id of a diffusers pipeline (`ml.diffusion.backbones.kinds`)
    revision: Text | None  # pinned revision of a hub id, null for a folder
    variant: Text | None  # of the weights' files, e.g. fp16; null for the plain ones
    scheduler: Literal[
        Scheduler, FlowScheduler
    ]  # of diffusers; another than the model's own may be
    steps: Annotated[int, Range(2, 1000)]  # denoising steps a picture
    guidance_scale: Annotated[float, Range(1, 100, above=True)]  # 1 would be a batch of one half
    batch_size: Batch  # pictures sampled at once
    device: Device
    dtype: Literal["float32", "float16", "bfloat16"]
    attention_slicing: bool  # of a U-Net without fused attention: less memory, and slower
    vae_tiling: bool  # pictures coded in tiles: a quarter of the VAE's memory, other pixels
    t5_tokens: Annotated[int, Range(1, 512)] | None  # that T5 reads (SD 3, FLUX); null: diffusers'
    offload: Literal["none", "model", "sequential"]  # weights wait in main memory; not on a CPU
    quantise: Literal["int8"] | None  # of the denoiser's and T5's weights; other pixels


@dataclass(frozen=True)
class DetectorParams:
    backend: Literal["torchvision", "detectron2", "transformers"]
    model: Text  # folder, or the backend's own name of a COCO model
    revision: Text | None  # pinned revision of a hub id (transformers), else null
    weights: Text | None  # weight file on this machine, null for the published one of `model`
    score_threshold: Annotated[float, Range(0, 1, below=True)]  # detections below are dropped
    batch_size: Batch


@dataclass(frozen=True)
class PromptParams:
    train_one: Count  # one-object prompts of seen classes
    train_two: Count  # two-object prompts of seen classes
    sim_per_cell: Steps  # Protocol I prompts in each of its five cells
    synthetic_one: Count  # one-object prompts over all classes
    synthetic_two: Count  # two-object prompts over all classes
    plain_share: Share  # share of "a photograph of ...", the rest uses the other templates
    attribute_share: Share  # of train and synthetic prompts, whose things get "red", "wooden", ...
    scene_share: Share  # of train and synthetic prompts, which end in "in a warehouse", ...
    texts: Text | None  # the user's own prompts, a text file with one a line


@dataclass(frozen=True)
class ShardParams:
    size: Annotated[int, Range(1, 1_000_000)]  # samples a shard


@dataclass(frozen=True)
class ExecutorParams:
    """Where shards are made: how fast, never what. No stage's recipe has it, so
    that another executor goes on with what one has begun, and makes nothing finished again.

    One worker on this machine is this process itself. More need the extra `[ray]`: a Ray of this
    machine, which ends with the command, or a cluster that runs already (docs/cluster.md).
    """

    address: Address | None  # of a Ray cluster that runs; null: this machine
    workers: Annotated[int, Range(0, 1024)]  # making shards at once; 0: one a GPU, or on a
    # cluster as many as there is room for
    num_cpus: Annotated[float, Range(0, 1024, above=True)]  # of Ray's, that a worker takes
    num_gpus: Annotated[float, Range(0, 1)] | None  # that a worker takes; null: one where there
    # are any, on this machine a part of one where workers are more
    training_workers: Annotated[int, Range(1, 1024)]  # processes that share a training, one a GPU


@dataclass(frozen=True)
class CheckParams:
    """Which checks judge what was made. No stage's recipe has it: data that failed a check which is
    then left out is judged again, not made again."""

    placement: bool  # rules that hold masks against edges and heat maps (docs/checks.md); their
    # bounds were measured on the drawn world alone


@dataclass(frozen=True)
class TripletParams:
    min_score: Share  # detector score of an accepted mask
    min_area: Share  # of the picture
    max_area: Share  # of the picture
    min_std: Annotated[float, Range(0, 127)]  # grey levels; a flatter picture is blank
    duplicate_bits: Annotated[int, Range(0, 32)]  # hashes this close (of 64 bits) are repeats
    validation_share: Annotated[float, Range(0, 0.5, above=True, below=True)]

    # of the accepted training pictures, for early stopping
    labels: Text | None = None  # local folder of your own pictures with masks, that teach beside
    # the detector's (docs/own-labels.md)
    labels_format: LabelsFormat = "auto"  # of that folder; auto: found out


@dataclass(frozen=True)
class VariantParams:
    """How one variant of the grounding module is trained; what it is built of stands in
    `ml.grounding.config`."""

    learning_rate: Rate  # at its highest
    schedule: Literal["constant", "linear"]  # linear: falls to 0 at the last step
    warm_up: Count  # first steps, in which the rate rises from 0
    weight_decay: Share  # AdamW's; 0 is Adam
    clip_norm: Annotated[float, Range(0, 1000, above=True)] | None  # of gradients, null: never cut
    dice_weight: Annotated[float, Range(0, 100)]  # beside cross-entropy


@dataclass(frozen=True)
class GroundingParams:
    variant: Literal["paper", "seeded"]
    steps: Steps  # optimizer steps at most
    batch_size: Batch
    width: Width  # of the fusion transformer
    layers: Layers  # of the fusion transformer
    heads: Heads  # dividing the width
    evidence_timesteps: Annotated[list[Annotated[int, Range(0, 999)]], Length(1, 100)]
    # of 1000, where leave-one-out contrast is taken
    evaluate_every: Steps  # steps between validations; the last step has one in any case
    patience: Steps  # validations without a better mIoU before stopping
    precision: Literal["float32", "bfloat16"]  # of the training; bfloat16 is mixed
    paper: VariantParams
    seeded: VariantParams

    def training(self, variant: str | None = None) -> VariantParams:
        """The settings of a variant, by default of the one that is chosen."""
        chosen: VariantParams = getattr(self, variant or self.variant)
        return chosen


@dataclass(frozen=True)
class SyntheticParams:
    ignore_band: Annotated[list[Inside], Length(2, 2)]  # probabilities between become 255 (ignored)
    min_area: Share  # of the picture that an entity needs, else the picture is dropped
    max_ignore: Share  # a picture with a larger ignored share is dropped


@dataclass(frozen=True)
class SegmenterParams:
    architecture: Literal["maskformer", "segformer"]
    backbone: Text  # folder or hub id of an image classifier that never saw a mask
    backbone_revision: Text | None  # pinned revision of a hub id, null for a folder
    width: Width  # channels of the pyramid, the mask features and the decoder
    queries: Annotated[int, Range(1, 10_000)]  # masks it can find in a picture (maskformer)
    decoder_layers: Layers  # (maskformer)
    heads: Heads  # of the decoder's attention, dividing the width (maskformer)
    feedforward: Width  # inner width of a decoder layer (maskformer)
    class_weight: Annotated[float, Range(0, 1000, above=True)]  # of a query's class in the loss,
    # beside 20 for its mask and 1 for dice (maskformer)
    scale: Annotated[int, Range(1, 16)]  # pictures are enlarged so many times before the backbone
    crop_size: Annotated[int, Range(32, 4096)] | None  # side of the squares trained on, null for
    # whole pictures of one size
    scale_range: Annotated[list[Annotated[float, Range(0, 16, above=True)]], Length(2, 2)]
    # a picture is resized by a factor out of it before the crop
    colour_jitter: Share  # brightness, contrast and colour change by this at most, 0 = off
    steps: Steps
    batch_size: Batch  # of all processes together
    learning_rate: Rate  # AdamW
    warm_up: Count  # steps over which the rate rises from zero
    poly_power: Annotated[float, Range(0, 10)]  # the rate falls as (1 - step / steps) ** poly_power
    weight_decay: Share
    backbone_lr_factor: Annotated[float, Range(0, 10)]  # the backbone learns this much slower
    freeze_batch_norm: bool  # the backbone's, statistics and all; for small batches or many GPUs
    precision: Literal["float32", "float16", "bfloat16"]  # the others are mixed; float16: GPU only
    ema_decay: Annotated[float, Range(0, 1, below=True)]  # of the averaged weights that are kept,

    # 0 = keep the last


@dataclass(frozen=True)
class BenchmarkParams:
    source: Literal["drawn", "none", "voc2012", "coco2017", "folder"]  # folder: a user's own
    root: Text | None  # local folder of a real source in its own layout, null for drawn and none
    subset: Literal["official", "any"]  # official: whole; any: a part of a set, named as such
    bootstrap: Annotated[int, Range(1, 1_000_000)]  # resamples of the pictures
    daam_thresholds: Annotated[int, Range(1, 10_000)]  # candidates for DAAM's best threshold


@dataclass(frozen=True)
class PromotionParams:
    min_grounding: Percent  # absolute floor, mIoU % over the five cells of Protocol I
    min_segmenter: Percent  # absolute floor, harmonic mIoU % of Protocol II
    min_audited_precision: Percent | None  # that the masks of the synthetic set which people judged
    # must reach with their interval's lower bound; null: nobody needs to judge any
