"""Every setting that changes a result, as frozen dataclasses read from `params.yaml`.

`params.yaml` is the micro profile and names every field; a file of `profiles/` overrides some of
them, and may build upon another one (`base: sd15`). Nothing else (no global, no environment
variable) changes what a stage writes. Reading and checking belong here; what a setting does
belongs to its stage.
"""

import dataclasses
import functools
import types
import typing
from dataclasses import dataclass
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
INSTALLED = HERE / "defaults"  # params.yaml and profiles/ of a wheel; in a checkout there is none
ROOT = Path.cwd() if INSTALLED.is_dir() else HERE.parent
REAL_SOURCES = ("voc2012", "coco2017", "folder")  # of benchmark.source
EXECUTION = {"execution": True}
"""Marks a field that changes how fast a result is made and nothing in it: no part of a recipe."""
PRECISIONS = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class DiffusionParams:
    model: str  # folder or hub id that StableDiffusionPipeline.from_pretrained takes
    revision: str | None  # pinned revision of a hub id, null for a folder
    variant: str | None  # of the weights' files, e.g. fp16; null for the plain ones
    scheduler: str  # class name in diffusers, e.g. DDIMScheduler
    steps: int  # denoising steps a picture
    guidance_scale: float  # classifier-free guidance, > 1
    batch_size: int  # pictures sampled at once
    device: str  # auto, cpu, cuda, cuda:1, ...
    dtype: str  # float32, float16 or bfloat16
    attention_slicing: bool  # less memory where there is no fused attention, and slower
    vae_tiling: bool  # pictures coded in tiles: a quarter of the VAE's memory, other pixels


@dataclass(frozen=True)
class DetectorParams:
    backend: str  # torchvision, detectron2 or transformers
    model: str  # folder, or the backend's own name of a COCO model
    revision: str | None  # pinned revision of a hub id (transformers), else null
    weights: str | None  # weight file on this machine, null for the published one of `model`
    score_threshold: float  # detections below are dropped, 0..1
    batch_size: int


@dataclass(frozen=True)
class PromptParams:
    train_one: int  # one-object prompts of seen classes
    train_two: int  # two-object prompts of seen classes
    sim_per_cell: int  # Protocol I prompts in each of its five cells
    synthetic_one: int  # one-object prompts over all classes
    synthetic_two: int  # two-object prompts over all classes
    plain_share: float  # share of "a photograph of ...", the rest uses the other templates
    attribute_share: float  # of train and synthetic prompts, whose things get "red", "wooden", ...
    scene_share: float  # of train and synthetic prompts, which end in "in a warehouse", ...
    texts: str | None  # the user's own prompts, a text file with one a line


@dataclass(frozen=True)
class ShardParams:
    size: int  # samples a shard
    processes: int = dataclasses.field(metadata=EXECUTION)  # making shards; 0: one a GPU


@dataclass(frozen=True)
class TripletParams:
    min_score: float  # detector score of an accepted mask, 0..1
    min_area: float  # share of the picture
    max_area: float  # share of the picture
    min_std: float  # grey levels; a flatter picture is blank
    duplicate_bits: int  # difference hashes this close (of 64 bits) are repeats
    validation_share: float  # of the accepted training pictures, for early stopping


@dataclass(frozen=True)
class GroundingParams:
    variant: str  # paper or seeded
    steps: int  # optimizer steps at most
    batch_size: int
    learning_rate: float  # AdamW, linear decay
    width: int  # of the fusion transformer
    layers: int  # of the fusion transformer
    heads: int
    evidence_timesteps: list[int]  # of 1000, where leave-one-out contrast is taken
    dice_weight: float  # beside cross-entropy
    evaluate_every: int  # steps between validations
    patience: int  # validations without a better mIoU before stopping
    precision: str  # of the training: float32, or mixed with bfloat16


@dataclass(frozen=True)
class SyntheticParams:
    ignore_band: list[float]  # probabilities between these become 255 (ignored)
    min_area: float  # share of the picture an entity needs, else the picture is dropped
    max_ignore: float  # a picture with a larger ignored share is dropped


@dataclass(frozen=True)
class SegmenterParams:
    architecture: str  # maskformer or segformer
    backbone: str  # folder or hub id of an image classifier that never saw a mask
    backbone_revision: str | None  # pinned revision of a hub id, null for a folder
    width: int  # channels of the pyramid, the mask features and the decoder
    queries: int  # masks that it can find in a picture (maskformer)
    decoder_layers: int  # (maskformer)
    heads: int  # of the decoder's attention (maskformer)
    feedforward: int  # inner width of a decoder layer (maskformer)
    scale: int  # pictures are enlarged so many times before the backbone
    crop_size: int | None  # side of the squares trained on, null for whole pictures of one size
    scale_range: list[float]  # a picture is resized by a factor out of it before the crop
    colour_jitter: float  # brightness, contrast and colour change by this share at most, 0 = off
    steps: int
    batch_size: int  # of all processes together
    learning_rate: float  # AdamW
    poly_power: float  # the rate falls as (1 - step / steps) ** poly_power
    weight_decay: float
    backbone_lr_factor: float  # the backbone learns this much slower
    freeze_batch_norm: bool  # the backbone's, statistics and all; for small batches or many GPUs
    precision: str  # float32, or mixed with float16 (GPU only) or bfloat16
    ema_decay: float  # of the averaged weights that are kept, 0 = keep the last


@dataclass(frozen=True)
class BenchmarkParams:
    source: str  # drawn, voc2012, coco2017, folder (a user's own), or none
    root: str | None  # local folder of a real source in its own layout, null for drawn and none
    subset: str  # official: a published set must be whole; any: a part of it is named as such
    bootstrap: int  # resamples of the pictures
    daam_thresholds: int  # candidates for DAAM's best threshold


@dataclass(frozen=True)
class PromotionParams:
    min_grounding: float  # absolute floor, mIoU % over the five cells of Protocol I
    min_segmenter: float  # absolute floor, harmonic mIoU % of Protocol II


@dataclass(frozen=True)
class Params:
    profile: str  # also the folder under data/
    seed: int
    vocabulary: str  # name in ml/vocabularies or path of a YAML file
    diffusion: DiffusionParams
    detector: DetectorParams
    prompts: PromptParams
    shards: ShardParams
    triplets: TripletParams
    grounding: GroundingParams
    synthetic: SyntheticParams
    segmenter: SegmenterParams
    benchmark: BenchmarkParams
    promotion: PromotionParams

    def section(self, name: str) -> object:
        """The value of a field ("benchmark") or of one of its fields ("benchmark.source") as plain
        data (dict, str or int), as it goes into a manifest; fields marked EXECUTION left out."""
        value = functools.reduce(getattr, name.split("."), self)
        if not dataclasses.is_dataclass(value):
            return value
        execution = {f.name for f in dataclasses.fields(value) if "execution" in f.metadata}
        return {k: v for k, v in dataclasses.asdict(value).items() if k not in execution}


def load_params(profile: str = "micro", root: Path = ROOT) -> Params:
    """Settings of a profile: `params.yaml`, overridden by `profiles/<profile>.yaml`.

    `profile` may also be the path of a YAML file. A file with `base: other` overrides that
    profile instead of `params.yaml`. Raises ValueError naming the file and the field for an
    unknown profile, bases that go in a circle, an unknown or missing field, or a value of the
    wrong type.
    """
    base_file = _shipped(Path(root), "params.yaml")
    values = _read_yaml(base_file)
    for file, override in _chain(profile, values.get("profile"), Path(root)):
        values = _merge(values, {"profile": file.stem} | override, str(file))
    params = _build(Params, values, str(base_file))
    check_params(params)
    return params


def _shipped(root: Path, name: str) -> Path:
    """A file of the root, or the one that a wheel has where the root has none."""
    own = root / name
    return INSTALLED / name if not own.is_file() and (INSTALLED / name).is_file() else own


def find_file(name: str) -> Path:
    """A user's file by its path from the current folder, else from the checkout.

    The path is returned as it is when neither is there.
    """
    return next((p for p in (Path(name), ROOT / name) if p.is_file()), Path(name))


def _chain(profile: str, default: str, root: Path) -> list[tuple[Path, dict]]:
    """The files of a profile and of those it builds upon, in the order in which they override."""
    chain: list[tuple[Path, dict]] = []
    while profile != default:
        file = _profile_file(profile, default, root, chain[0][0] if chain else None)
        if any(file.resolve() == other.resolve() for other, _ in chain):
            way = " -> ".join([str(file), *(str(other) for other, _ in chain)])
            raise ValueError(f"`base:` goes in a circle: {way}; one of them must build upon "
                             f"{default!r} (leave `base:` out)")
        own = _read_yaml(file)
        profile = own.pop("base", default)
        if not isinstance(profile, str):
            raise ValueError(f"{file}: base: expected the name of a profile, got {profile!r}")
        chain.insert(0, (file, own))
    return chain


def _profile_file(profile: str, default: str, root: Path, named_by: Path | None) -> Path:
    file = Path(profile) if profile.endswith((".yaml", ".yml")) else None
    file = file or _shipped(root, f"profiles/{profile}.yaml")
    if not file.is_file():
        known = sorted(p.stem for p in (root / "profiles").glob("*.yaml")
                       if "." not in p.stem)  # ci.run.yaml is Dagster's, not a profile
        asked = f" (the base of {named_by})" if named_by else ""
        raise ValueError(
            f"unknown profile {profile!r}{asked}: expected {default!r}, one of {known} "
            f"or the path of a YAML file; no file {file}"
        )
    return file


def check_params(params: Params) -> None:
    """Raises ValueError for values that would only fail, or mislead, an hour later."""
    band, segmenter, benchmark = params.synthetic.ignore_band, params.segmenter, params.benchmark
    real = benchmark.source in REAL_SOURCES
    rules = [
        ("diffusion.guidance_scale", params.diffusion.guidance_scale, "> 1: the features need both "
         "halves of the guided batch", params.diffusion.guidance_scale > 1),
        ("diffusion.steps", params.diffusion.steps, "at least 2", params.diffusion.steps >= 2),
        ("diffusion.dtype", params.diffusion.dtype, "float32, float16 or bfloat16",
         params.diffusion.dtype in ("float32", "float16", "bfloat16")),
        ("detector.backend", params.detector.backend, "torchvision, detectron2 or transformers",
         params.detector.backend in ("torchvision", "detectron2", "transformers")),
        ("detector.score_threshold", params.detector.score_threshold, "within 0..1",
         0 <= params.detector.score_threshold <= 1),
        ("grounding.variant", params.grounding.variant, "paper or seeded",
         params.grounding.variant in ("paper", "seeded")),
        ("grounding.precision", params.grounding.precision, "float32 or bfloat16",
         params.grounding.precision in ("float32", "bfloat16")),
        ("grounding.evidence_timesteps", params.grounding.evidence_timesteps, "within 0..999",
         all(0 <= t <= 999 for t in params.grounding.evidence_timesteps)),
        ("synthetic.ignore_band", band, "[low, high] with 0 <= low <= high <= 1",
         len(band) == 2 and 0 <= band[0] <= band[1] <= 1),
        ("shards.size", params.shards.size, "at least 1", params.shards.size >= 1),
        ("shards.processes", params.shards.processes, "0 (one a GPU) or more",
         params.shards.processes >= 0),
        ("diffusion.device", params.diffusion.device, "auto, cuda or cpu, with no number, when "
         "shards.processes is not 1: each takes a GPU of its own",
         params.shards.processes == 1 or ":" not in params.diffusion.device),
        ("segmenter.precision", segmenter.precision, " or ".join(PRECISIONS),
         segmenter.precision in PRECISIONS),
        ("segmenter.heads", segmenter.heads, f"a divisor of segmenter.width {segmenter.width}",
         segmenter.heads >= 1 and segmenter.width % segmenter.heads == 0),
        ("segmenter.crop_size", segmenter.crop_size, "null or at least 32",
         segmenter.crop_size is None or segmenter.crop_size >= 32),
        ("segmenter.scale_range", segmenter.scale_range, "[low, high] with 0 < low <= high, and "
         "[1, 1] where segmenter.crop_size is null", len(segmenter.scale_range) == 2
         and 0 < segmenter.scale_range[0] <= segmenter.scale_range[1]
         and (segmenter.crop_size is not None or segmenter.scale_range == [1, 1])),
        ("segmenter.colour_jitter", segmenter.colour_jitter, "within 0..1",
         0 <= segmenter.colour_jitter <= 1),
        ("segmenter.ema_decay", segmenter.ema_decay, "within 0..1, below 1",
         0 <= segmenter.ema_decay < 1),
        ("triplets.validation_share", params.triplets.validation_share, "within 0..0.5",
         0 < params.triplets.validation_share < 0.5),
        ("benchmark.source", benchmark.source, f"drawn, none or one of {', '.join(REAL_SOURCES)}",
         real or benchmark.source in ("drawn", "none")),
        ("benchmark.root", benchmark.root, "the folder of the real pictures" if real else
         f"null with benchmark.source {benchmark.source}", bool(benchmark.root) == real),
        ("benchmark.subset", benchmark.subset, "official or any",
         benchmark.subset in ("official", "any")),
    ]
    for field, value, expected, holds in rules:
        if not holds:
            raise ValueError(f"{field}: expected {expected}, got {value!r}; change it in the "
                             f"profile {params.profile!r}")


def _read_yaml(file: Path) -> dict:
    try:
        values = yaml.safe_load(file.read_text())
    except FileNotFoundError as error:
        raise ValueError(f"no parameter file {file}: run from a checkout of the project") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file}: expected a mapping of settings, got {type(values).__name__}")
    return values


def _merge(base: dict, override: dict, where: str) -> dict:
    merged = dict(base)
    for key, value in override.items():
        if key not in base:
            raise ValueError(f"{where}: unknown setting {key!r}; known here: {sorted(base)}")
        both = isinstance(base[key], dict) and isinstance(value, dict)
        merged[key] = _merge(base[key], value, where) if both else value
    return merged


def _build(cls: type, values: dict, where: str):
    if not isinstance(values, dict):
        raise ValueError(f"{where}: expected a mapping for {cls.__name__}, got {values!r}")
    hints = typing.get_type_hints(cls)
    unknown, missing = sorted(set(values) - set(hints)), sorted(set(hints) - set(values))
    if unknown or missing:
        raise ValueError(f"{where}: unknown settings {unknown}, missing settings {missing}")
    built = {}
    for name, hint in hints.items():
        value, place = values[name], f"{where}: {name}"
        if dataclasses.is_dataclass(hint):
            built[name] = _build(hint, value, place)
        else:
            built[name] = _check_type(value, hint, place)
    return cls(**built)


def _check_type(value, hint, place: str):
    origin = typing.get_origin(hint)
    if origin is list:
        if not isinstance(value, list):
            raise ValueError(f"{place}: expected a list, got {value!r}")
        return [_check_type(item, typing.get_args(hint)[0], place) for item in value]
    allowed = typing.get_args(hint) if origin is types.UnionType else (hint,)
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in allowed)
        raise ValueError(f"{place}: expected {names}, got {value!r}")
    return value
