"""Whether a stage is finished, and what its manifest says then."""

from ml.errors import ManifestError
from ml.pipeline.workspace import Workspace
from ml.store.manifest import Manifest, read_manifest
from ml.words.vocabulary import Vocabulary


def manifest_of(workspace: Workspace, stage: str) -> Manifest | None:
    """Of a finished stage; None where it is not there, as after a pull of some stages. Its files
    are not read."""
    try:
        return read_manifest(workspace.folder(stage), verify=False)
    except ManifestError:
        return None


def refuse_other_words(manifest: Manifest, vocabulary: Vocabulary) -> None:
    """Raises ValueError where a vocabulary is not the one that a stage's folder was made with: its
    labels are numbers, which would get other names."""
    if manifest.params.get("vocabulary_digest") != vocabulary.digest:
        raise ValueError(
            f"the profile's vocabulary is not the one that {manifest.stage!r} was made with: "
            "expected the same words, so that labels keep their names. Run `python -m ml "
            f"{manifest.stage}` again, or bring the old vocabulary back"
        )
