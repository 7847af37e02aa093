"""The revision of a model: a hub id may be pinned to one, a folder of this machine has none."""

from pathlib import Path


def refuse_revision(setting: str, revision: str | None, name: str | Path) -> None:
    """Raises ValueError for a revision of a model that is a folder: it would say nothing, and
    manifests would record it. setting: of the revision, such as "diffusion.revision"."""
    if revision is not None and Path(name).is_dir():
        raise ValueError(
            f"{setting}: expected null, since the model is a folder, {str(name)!r}, and only hub "
            f"ids have revisions, got {revision!r}: write null (a profile takes over that of its "
            "`base:`), or name a hub id"
        )
