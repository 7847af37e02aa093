"""A text-to-image model on this machine: found in a folder or downloaded from the hub, and checked
before anything is loaded.

Not here: its weight files (`ml.diffusion.weight_files`), what is loaded from them
(`ml.diffusion.loading`).
"""

from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # of HTTPError
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

from ml.diffusion.backbones.kinds import KINDS, Kind
from ml.diffusion.configurations import INDEX, check_folder
from ml.diffusion.weight_files import check_weights
from ml.settings.revisions import refuse_revision
from ml.settings.sections import DiffusionParams
from ml.store.reading import read_object

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
"""What the hub's library and diffusers raise when a model is unavailable."""


def find_checkpoint(
    name: str,
    revision: str | None = None,
    variant: str | None = None,
    settings: DiffusionParams | None = None,
) -> Path:
    """The folder with the model's files: `name` itself, or where the hub's copy lies.

    Downloads what is missing of a hub id. settings: that must fit the kind of model, which is known
    before its weights are downloaded. Raises ValueError, saying what to do, when they do not, when
    the model is missing or unavailable, is of a class that is not in KINDS, has no safetensors,
    lacks a file or has a damaged one, or asks for what is not supported
    (`ml.diffusion.configurations`).
    """
    here = Path(name).is_dir()
    if settings is not None:  # what a saved pipeline says stays as it was written
        refuse_revision("diffusion.revision", revision, name)
    kind = kind_of(Path(name)) if here else _kind(_download_index(name, revision, variant))
    if settings is not None:
        kind.backbone.check(settings)
    folder = Path(name) if here else _download(kind, name, revision, variant)
    check_weights(folder, variant)
    check_folder(folder)
    return folder


def kind_of(folder: Path) -> Kind:
    """The row of KINDS for the model in a folder."""
    if not (folder / INDEX).is_file():
        raise ValueError(
            f"no {INDEX} in {str(folder)!r}: expected a folder written by "
            f"save_pretrained of one of {sorted(KINDS)}, with safetensors"
        )
    return _kind(folder / INDEX)


def _kind(index: Path) -> Kind:
    try:
        name = read_object(index)["_class_name"]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{index} is damaged ({error!r}): bring the model again") from error
    if name not in KINDS:
        raise ValueError(
            f"{index} is of class {name!r}: expected one of {sorted(KINDS)}; "
            "change diffusion.model in the profile"
        )
    return KINDS[name]


def _download_index(name: str, revision: str | None, variant: str | None) -> Path:
    """The model_index.json of a hub id."""
    if name.count("/") > 1 or name.startswith(("/", ".", "~")):
        raise ValueError(
            f"no folder {name!r}: expected a folder written by save_pretrained with "
            "safetensors, or a hub id that can be reached from here; check "
            "diffusion.model in the profile"
        )
    try:
        return Path(hf_hub_download(name, INDEX, revision=revision))
    except UNAVAILABLE as error:
        raise _unavailable(name, revision, variant, error) from error


def _download(kind: Kind, name: str, revision: str | None, variant: str | None) -> Path:
    try:
        return Path(
            kind.pipeline.download(
                name, revision=revision, variant=variant, use_safetensors=True, **kind.extra
            )
        )
    except UNAVAILABLE as error:
        raise _unavailable(name, revision, variant, error) from error


def _unavailable(
    name: str, revision: str | None, variant: str | None, error: BaseException
) -> ValueError:
    """The error to show. diffusers wraps the hub's errors, so that the causes count too."""
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
