"""A profile's models before any is loaded: where they lie, how large they are.

Figures come from the files when they are on this machine (a folder, or the hub's cache), from
`known_models` otherwise, and are None where neither knows. Nothing is downloaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ml.cli.planning.known_models import BYTES, DRAWINGS, PARAMETERS
from ml.cli.planning.weight_files import count_parameters, local_folder, weight_files
from ml.diffusion.schedulers import check_name
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.settings.revisions import refuse_revision
from ml.store.reading import read_object

MIB = 1024**2
PARTS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
"""Of a text-to-image model, that have weights."""


@dataclass(frozen=True)
class Found:
    """One model of a profile."""

    setting: str  # e.g. diffusion.model
    name: str
    state: str  # on this machine, to download, or unknown
    bytes: int | None  # on disk, or to download
    parameters: int | None
    folder: Path | None = None  # where its files lie


def find_models(params: Params, workspace: Workspace) -> list[Found]:
    """The diffusion model, the detector and the segmenter's backbone.

    Raises ValueError for settings that do not fit the diffusion model, where its kind is known, and
    for one on this machine whose configuration asks for what is not done here.
    """
    return [
        find_diffusion(params, workspace),
        find_detector(params, workspace),
        find_backbone(params, workspace),
    ]


def find_diffusion(params: Params, workspace: Workspace) -> Found:
    diffusion = params.diffusion
    check_name(diffusion.scheduler)
    variant = getattr(diffusion, "variant", None)
    place = workspace.model(diffusion.model)
    refuse_revision("diffusion.revision", diffusion.revision, place)
    folder = local_folder(place, "model_index.json", diffusion.revision)
    known = DRAWINGS.get(diffusion.model)
    if folder or known:  # diffusers takes seconds to import
        from ml.diffusion.backbones.kinds import kind_of_parts
        from ml.diffusion.checkpoint import kind_of

        kind = kind_of(folder) if folder else kind_of_parts(known.parameters)
        kind.backbone.check(diffusion)
    if folder:
        from ml.diffusion import configurations

        index = read_object(folder / configurations.INDEX)
        listed = [part for part in PARTS if configurations.class_of(index, part)]
        parts = [file for part in listed for file in weight_files(folder / part, variant)]
        if any(weight_files(folder / part, variant) for part in ("unet", "transformer")):
            if configurations.are_whole(folder):  # else the probe says what is missing
                configurations.check_folder(folder)
            return on_disk("diffusion.model", diffusion.model, parts, folder)
    width = BYTES["float16" if variant == "fp16" else known.stored if known else "float32"]
    return to_download(
        "diffusion.model", diffusion.model, known and sum(known.parameters.values()), width
    )


def find_detector(params: Params, workspace: Workspace) -> Found:
    detector, setting = params.detector, "detector.model"
    given = getattr(detector, "weights", None)
    if given and Path(workspace.model(given)).is_file():
        file = Path(workspace.model(given))
        return Found(setting, given, "on this machine", file.stat().st_size, None, file.parent)
    if (detector.backend, detector.model) == ("torchvision", "coco"):
        return torchvision_coco(setting)
    place, revision = workspace.detector(detector), getattr(detector, "revision", None)
    refuse_revision("detector.revision", revision, place)
    folder = local_folder(place, "config.json", revision)
    if folder and weight_files(folder):
        return on_disk(setting, detector.model, weight_files(folder), folder)
    return to_download(setting, detector.model, PARAMETERS.get(detector.model), 4)


def find_backbone(params: Params, workspace: Workspace) -> Found:
    segmenter, setting = params.segmenter, "segmenter.backbone"
    place = workspace.model(segmenter.backbone)
    revision = getattr(segmenter, "backbone_revision", None)
    refuse_revision("segmenter.backbone_revision", revision, place)
    folder = local_folder(place, "config.json", revision)
    if folder and weight_files(folder):
        return on_disk(setting, segmenter.backbone, weight_files(folder), folder)
    return to_download(setting, segmenter.backbone, PARAMETERS.get(segmenter.backbone), 4)


def torchvision_coco(setting: str) -> Found:
    import torch
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_V2_Weights as Weights

    weights = Weights.COCO_V1
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[1]
    there = file.is_file()
    size = file.stat().st_size if there else round(weights.meta["_file_size"] * MIB)
    return Found(
        setting,
        "coco",
        "on this machine" if there else "to download",
        size,
        weights.meta["num_params"],
        file.parent if there else None,
    )


def on_disk(setting: str, name: str, files: Sequence[Path], folder: Path) -> Found:
    return Found(
        setting,
        name,
        "on this machine",
        sum(file.stat().st_size for file in files),
        sum(count_parameters(file) for file in files),
        folder,
    )


def to_download(setting: str, name: str, parameters: int | None, width: int) -> Found:
    size = parameters * width if parameters else None
    return Found(setting, name, "to download" if size else "unknown", size, parameters)
