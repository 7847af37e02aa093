"""Folders that hold a grounding model, opened: written by `save_pretrained`, left by the stage
`grounding_model`, or downloaded from the model registry.

Not here: how they are written (`saving.py`), and the files of the diffusion model itself
(`ml.diffusion.checkpoint`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ml.compute.devices import find_device
from ml.diffusion.backbones.kinds import backbone_of
from ml.diffusion.checkpoint import find_checkpoint
from ml.diffusion.features import channels_of
from ml.diffusion.loading import load_pipeline, read_pipeline, set_scheduler
from ml.diffusion.pipeline import Pipeline
from ml.diffusion.saving import quantise
from ml.diffusion.tokens import text_width
from ml.errors import ManifestError
from ml.grounding.learned import load_queries
from ml.grounding.module import GroundingModule
from ml.settings.params import neutral
from ml.settings.profile import ROOT
from ml.settings.sections import FLOW_SCHEDULERS, SCHEDULERS, DiffusionParams
from ml.store.files import say
from ml.store.folder_digest import sha256_folder
from ml.store.manifest import NAME as MANIFEST
from ml.store.manifest import Manifest, read_manifest
from ml.store.reading import read_object
from ml.store.registry_folder import model_folder

REFERENCE = "pipeline.json"
DTYPES = ("float32", "float16", "bfloat16")
STAGE = "grounding_model"
OF_SOME = ("quantise", "t5_tokens", "distilled_guidance", "default_sample_size")
"""Fields that only some models have: they are left out where there is nothing to say."""


@dataclass(frozen=True)
class Reference:
    """What `pipeline.json` says. Steps and guidance are those to draw with by default."""

    diffusion: str  # a folder, absolute or beside the file, or a hub id
    batch_size: int
    revision: str | None = None
    variant: str | None = None
    scheduler: str | None = None
    dtype: str | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    quantise: str | None = None  # how the weights were
    t5_tokens: int | None = None  # that T5 reads, where there is one
    distilled_guidance: float | None = None  # that the passes of such a model are told
    default_sample_size: int | None = None  # side of the latent, where no file of the model says it
    taught: list[str] = field(default_factory=list)  # words with a learned query


@dataclass(frozen=True)
class Opened:
    """A diffusion pipeline and its grounding module, and how pictures are drawn with them."""

    pipe: Pipeline
    module: GroundingModule
    batch_size: int
    steps: int | None
    guidance_scale: float | None
    queries: Mapping[str, Tensor] = field(default_factory=dict)  # learned ones, by word
    hub: tuple[str, str | None, str | None] | None = None
    """Hub id, revision and variant of the diffusion model; None of one that is a folder."""


def open_model(folder: Path | str, device: str) -> Opened:
    """What a folder of one of the three layouts holds, on a device; float32 on a CPU.

    Raises ValueError for an address of the registry, a folder that is not there or any other, a
    damaged one, or a diffusion model that cannot be loaded or is not the one that the module was
    trained with.
    """
    place = model_folder(folder, "GroundedDiffusionPipeline.from_pretrained")
    if (place / REFERENCE).is_file():
        return _saved(place, device)
    if (place / MANIFEST).is_file():
        return _stage(place, device)
    raise ValueError(
        f"no {REFERENCE} in {folder}: expected a folder written by "
        "GroundedDiffusionPipeline.save_pretrained, the folder of the stage "
        f"{STAGE} (data/<profile>/{STAGE}), or one downloaded from the model registry"
    )


def _saved(folder: Path, device: str) -> Opened:
    """The pipeline that `save_pretrained` wrote, with the scheduler and dtype that it had."""
    reference = _read_reference(folder / REFERENCE)
    own, name = folder / reference.diffusion, reference.diffusion
    found = find_checkpoint(
        str(own) if own.is_dir() else name, reference.revision, reference.variant
    )
    place = find_device(device)
    dtype = "float32" if place.type == "cpu" else reference.dtype or "float32"
    pipe = read_pipeline(found, reference.variant, getattr(torch, dtype))
    if reference.scheduler is not None:
        set_scheduler(pipe, reference.scheduler)
    else:
        say(
            f"{folder / REFERENCE} names no scheduler, as older ones do: pictures are drawn "
            f"with the model's own, {type(pipe.scheduler).__name__}"
        )
    for name in backbone_of(pipe).settings:
        if (value := getattr(reference, name)) is not None:
            setattr(pipe, name, value)
    module, queries = open_module(folder)
    refuse_misfit(str(folder / REFERENCE), pipe, module)
    if reference.quantise is not None:
        quantise(pipe, reference.quantise)
    return Opened(
        pipe.to(place),
        module,
        reference.batch_size,
        reference.steps,
        reference.guidance_scale,
        queries,
        _hub_id(str(own) if own.is_dir() else name, reference.revision, reference.variant),
    )


def open_module(folder: Path) -> tuple[GroundingModule, dict[str, Tensor]]:
    """The grounding module of a folder of one of the three layouts, and the queries that were
    learned with it; the diffusion model beside them is left alone."""
    inside, file = folder / "grounding", folder / REFERENCE
    module = GroundingModule.from_pretrained(inside if inside.is_dir() else folder)
    taught = _read_reference(file).taught if file.is_file() else []
    return module, load_queries(folder, taught, module.config.text_width)


def refuse_misfit(source: str, pipe: Pipeline, module: GroundingModule) -> None:
    """Raises ValueError, naming the source of the module, when it was made for a diffusion model of
    another shape."""
    found = channels_of(pipe), text_width(pipe)
    expected = module.config.feature_channels, module.config.text_width
    if found != expected:
        raise ValueError(
            f"{source}: the diffusion model has features of {found[0]} channels by resolution and "
            f"words of {found[1]}, and the grounding module takes {expected[0]} and {expected[1]}: "
            "name the diffusion model that the module was trained with"
        )


def _stage(folder: Path, device: str) -> Opened:
    """What the stage trained, with the diffusion model that its manifest names, set up as there."""
    try:
        manifest = read_manifest(folder)
    except ManifestError as error:
        raise ValueError(f"{folder}: {error}") from error
    if manifest.stage != STAGE:
        raise ValueError(
            f"{folder} is the folder of the stage {manifest.stage}: expected that of {STAGE}"
        )
    settings = manifest.params.get("diffusion")
    if isinstance(settings, dict):  # settings at which all is as before are left out of it
        settings = neutral("diffusion") | settings
    known = {field.name for field in fields(DiffusionParams)}
    if not isinstance(settings, dict) or set(settings) != known:
        raise ValueError(
            f"{folder / MANIFEST}: expected params.diffusion with {sorted(known)}, as this version "
            f"records it; run the stage {STAGE} again"
        )
    drawing = DiffusionParams(**settings)
    on_cpu = find_device(device).type == "cpu"
    model = _diffusion_model(folder, drawing.model, manifest)
    pipe = load_pipeline(
        replace(
            drawing,
            model=model,
            revision=None if Path(model).is_dir() else drawing.revision,  # older ones have both
            device=device,
            dtype="float32" if on_cpu else drawing.dtype,
        )
    )
    return Opened(
        pipe,
        GroundingModule.from_pretrained(folder),
        drawing.batch_size,
        drawing.steps,
        drawing.guidance_scale,
        hub=_hub_id(model, drawing.revision, drawing.variant),
    )


def _hub_id(
    model: str, revision: str | None, variant: str | None
) -> tuple[str, str | None, str | None] | None:
    """What `ml.grounding.saving` can write down in place of a copy: nothing of a folder."""
    return None if Path(model).is_dir() else (model, revision, variant)


def _diffusion_model(folder: Path, name: str, manifest: Manifest) -> str:
    """The folder of the diffusion model that a module was trained with, or its hub id.

    A relative name counts from where `data/<profile>/` lies, else from the checkout. Raises
    ValueError for a folder that is gone, or holds another model than then.
    """
    trained_with = manifest.inputs.get("diffusion.model")
    roots = (folder.resolve().parents[2], ROOT) if len(folder.resolve().parents) > 2 else (ROOT,)
    found = next((root / name for root in roots if (root / name).is_dir()), None)
    if found is None:
        if trained_with == name:  # a hub id stands for itself
            return name
        raise ValueError(
            f"{folder} was trained with the diffusion model in {name!r}, which is in none of "
            f"{', '.join(map(str, dict.fromkeys(roots)))}: bring it back, or keep both together "
            "with GroundedDiffusionPipeline.save_pretrained"
        )
    if sha256_folder(found) != trained_with:
        raise ValueError(
            f"{found} is not the diffusion model that {folder} was trained with (its digest is "
            f"another one): bring that one back, or run the stage {STAGE} again"
        )
    return str(found)


def _read_reference(file: Path) -> Reference:
    """Raises ValueError, naming file and field, for what `save_pretrained` does not write."""
    found = read_object(file)
    count = (
        "a whole number or null",
        lambda value: value is None or (type(value) is int and value > 0),
    )
    number = ("a number or null", lambda value: value is None or type(value) in (int, float))
    text = ("text or null", lambda value: value is None or isinstance(value, str))
    fitting: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "diffusion": ("a folder or hub id", lambda value: isinstance(value, str) and bool(value)),
        "batch_size": ("a number above 0", lambda value: type(value) is int and value > 0),
        "revision": text,
        "variant": text,
        "scheduler": (
            f"one of {', '.join((*SCHEDULERS, *FLOW_SCHEDULERS))}",
            lambda value: value in (None, *SCHEDULERS, *FLOW_SCHEDULERS),
        ),
        "dtype": (f"one of {', '.join(DTYPES)}", lambda value: value in (None, *DTYPES)),
        "steps": count,
        "quantise": ("int8 or null", lambda value: value in (None, "int8")),
        "default_sample_size": count,
        "guidance_scale": number,
        "t5_tokens": (
            "a whole number 1..512 or null",
            lambda value: value is None or (type(value) is int and 1 <= value <= 512),
        ),
        "distilled_guidance": number,
    }
    for name, (expected, fits) in fitting.items():
        if not fits(found.get(name)):
            raise ValueError(f"{file}: {name}: expected {expected}, got {found.get(name)!r:.80}")
    taught = found.get("taught", [])  # older folders have none
    if not isinstance(taught, list) or not all(isinstance(word, str) for word in taught):
        raise ValueError(f"{file}: taught: expected a list of words, got {taught!r:.80}")
    values: dict[str, Any] = {name: found.get(name) for name in fitting} | {"taught": taught}
    return Reference(**values)
