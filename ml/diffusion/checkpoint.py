"""The files of a text-to-image model: found or downloaded, and checked before anything is loaded.

Only safetensors count. Not here: what is loaded from them (`loading.py`).
"""

from pathlib import Path

from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)
from safetensors import SafetensorError, safe_open

from ml.diffusion.fields import INDEX, check_folder, class_of
from ml.store.reading import read_object

Pipeline = StableDiffusionPipeline | StableDiffusionXLPipeline

UNUSED = {"feature_extractor": None, "image_encoder": None}
"""Parts that are named in model_index.json, often without their files, and never asked here."""

PIPELINES: dict[str, tuple[type, dict]] = {
    "StableDiffusionPipeline": (
        StableDiffusionPipeline,
        UNUSED | {"safety_checker": None, "requires_safety_checker": False},
    ),
    # Without the watermark: whether one is drawn into the pictures would depend on what else is
    # installed here.
    "StableDiffusionXLPipeline": (StableDiffusionXLPipeline, UNUSED | {"add_watermarker": False}),
}
"""By the class that model_index.json names: the class to load, and what it is told."""

WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
"""The parts of a pipeline that have weights, and how their files are called."""

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
HINTS = (
    (GatedRepoError, f"it is gated: accept its licence on its page of the hub, then {LOG_IN}"),
    (
        RepositoryNotFoundError,
        "the hub has no such model, or hides it from whoever has no token: "
        f"check diffusion.model, or {LOG_IN}",
    ),
    (DisabledRepoError, "it was withdrawn: set diffusion.model to a mirror or to a folder"),
    (
        RevisionNotFoundError,
        "it has no such revision: set diffusion.revision to a commit, tag or branch of it",
    ),
    (RemoteEntryNotFoundError, f"it has no {INDEX}, so it is no pipeline of diffusers"),
    (IncompleteSnapshotError, "only half of it has been downloaded: run again with the network"),
    (HfHubHTTPError, "the hub answered with an error; try again later"),
    (
        (OfflineModeIsEnabled, LocalEntryNotFoundError, RevisionResolutionError, HTTPError),
        "it is not on this machine, and the hub is not reached from here: unset HF_HUB_OFFLINE, or "
        "bring the model as a folder and name that in diffusion.model",
    ),
)
"""What to do about an error of the hub; the first that fits."""


UNAVAILABLE = (OSError, ValueError, EntryNotFoundError, RevisionResolutionError, HTTPError)
"""What the hub's library and diffusers raise when a model is not to be had."""


def find_checkpoint(name: str, revision: str | None = None, variant: str | None = None) -> Path:
    """The folder with the model's files: `name` itself, or where the hub's copy lies.

    Downloads what is missing of a hub id. Raises ValueError, saying what to do, when the model is
    not there or not to be had, is of a class that is not in PIPELINES, has no safetensors, lacks
    a file or has a damaged one, or asks for what is not done here (`fields.py`).
    """
    folder = Path(name) if Path(name).is_dir() else _download(name, revision, variant)
    kind_of(folder)
    check_weights(folder, variant)
    check_folder(folder)
    return folder


def kind_of(folder: Path) -> tuple[type, dict]:
    """The row of PIPELINES for the model in a folder."""
    if not (folder / INDEX).is_file():
        raise ValueError(
            f"no {INDEX} in {str(folder)!r}: expected a folder written by "
            "save_pretrained of a StableDiffusionPipeline, with safetensors"
        )
    return _kind(folder / INDEX)


def _kind(index: Path) -> tuple[type, dict]:
    try:
        name = read_object(index)["_class_name"]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{index} is damaged ({error!r}): bring the model again") from error
    if name not in PIPELINES:
        raise ValueError(
            f"{index} is of class {name!r}: expected one of {sorted(PIPELINES)}; "
            "change diffusion.model in the profile"
        )
    return PIPELINES[name]


def _download(name: str, revision: str | None, variant: str | None) -> Path:
    if name.count("/") > 1 or name.startswith(("/", ".", "~")):
        raise ValueError(
            f"no folder {name!r}: expected a folder written by save_pretrained with "
            "safetensors, or a hub id that can be reached from here; check "
            "diffusion.model in the profile"
        )
    try:
        index = hf_hub_download(name, INDEX, revision=revision)
    except UNAVAILABLE as error:
        raise _unavailable(name, revision, variant, error) from error
    kind, told = _kind(Path(index))
    try:
        return Path(
            kind.download(name, revision=revision, variant=variant, use_safetensors=True, **told)
        )
    except UNAVAILABLE as error:
        raise _unavailable(name, revision, variant, error) from error


def _unavailable(name, revision, variant, error: BaseException) -> ValueError:
    """What a stranger reads. diffusers wraps the hub's errors, so that the causes count too."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    fitting = [hint for kind, hint in HINTS if any(isinstance(e, kind) for e in chain)]
    settings = ", ".join(
        f"{key} {value!r}" for key, value in (("revision", revision), ("variant", variant)) if value
    )
    return ValueError(
        f"diffusion.model {name!r}{f' ({settings})' if settings else ''}: expected a folder "
        "written by save_pretrained with safetensors, or a hub id that can be reached from here; "
        + (
            fitting[0]
            if fitting
            else "check diffusion.model, diffusion.revision and "
            f"diffusion.variant in the profile: {error}"
        )
    )


def parts_of(folder: Path) -> list[str]:
    """The parts of the model in a folder that have weights."""
    index = read_object(folder / INDEX)
    return [part for part in WEIGHTS if class_of(index, part)]


def check_weights(folder: Path, variant: str | None) -> None:
    """Raises ValueError unless every part of the model has whole safetensors files.

    A part without files of the variant is loaded from the plain ones, as diffusers does; a model
    in which no part has them is refused. Reads the files' headers only.
    """
    of_variant = 0
    for part in parts_of(folder):
        files, own = weight_files(folder, part, variant)
        of_variant += own is not None
        if not files:
            raise ValueError(_without_safetensors(folder / part, variant))
        for file in files:
            _check_file(file)
    if variant and not of_variant:
        raise ValueError(
            f"{folder} has no files of the variant {variant!r}: set "
            "diffusion.variant to null, or to one that its files name"
        )


def weight_files(folder: Path, part: str, variant: str | None) -> tuple[list[Path], str | None]:
    """The files of a part and the variant that they are of: the plain ones where it has none."""
    own = _files(folder / part, WEIGHTS[part], variant) if variant else []
    return (own, variant) if own else (_files(folder / part, WEIGHTS[part], None), None)


def _files(folder: Path, stem: str, variant: str | None) -> list[Path]:
    """The one file of a part, or all that its index lists; none when there is neither."""
    dot = f".{variant}" if variant else ""
    single, index = (
        folder / f"{stem}{dot}.safetensors",
        folder / f"{stem}.safetensors.index{dot}.json",
    )
    if single.is_file():
        return [single]
    if not index.is_file():
        return []
    listed = read_object(index).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise ValueError(
            f"{index} is damaged: expected weight_map, the file of each weight; bring "
            "the model again"
        )
    return [folder / name for name in sorted(set(listed.values()))]


def _without_safetensors(folder: Path, variant: str | None) -> str:
    pickled = sorted(p.name for p in folder.glob("*.bin"))
    if pickled:
        return (
            f"{folder} has only pickled weights ({', '.join(pickled)}), which can run any code "
            "when they are loaded: expected safetensors; take a revision that has them, or "
            "write them once with save_pretrained(..., safe_serialization=True)"
        )
    found = sorted(p.name for p in folder.glob("*.safetensors"))
    return (
        f"no weights in {folder} for diffusion.variant {variant!r}: expected safetensors, "
        f"found {found or 'none'}; set diffusion.variant to what the files' names have, or "
        "bring the model again"
    )


def _check_file(file: Path) -> None:
    again = "half a download? remove it and run again with the network, or bring the folder again"
    if not file.is_file():
        raise ValueError(f"{file} is missing, though its index lists it: {again}")
    try:
        with safe_open(file, "pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{file} ({file.stat().st_size:,} bytes) is cut short or damaged ({error}): {again}"
        ) from error
