"""Whether a stage is finished, and what its manifest says then."""

from ml.errors import ManifestError
from ml.pipeline.workspace import Workspace
from ml.store.manifest import Manifest, read_manifest


def manifest_of(workspace: Workspace, stage: str) -> Manifest | None:
    """Of a finished stage; None where it is not there, as after a pull of some stages. Its files
    are not read."""
    try:
        return read_manifest(workspace.folder(stage), verify=False)
    except ManifestError:
        return None
