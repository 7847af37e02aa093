"""The champion on record in the workspace, brought back from the run of the registry's champion.

The record is `data/<profile>/champion/<model>/`, which the stage `promotion` writes and its gate
compares with (`ml/pipeline/stages/promotion.py`).
"""

import json
import shutil
import tempfile

from ml.pipeline.workspace import Workspace
from ml.store.files import Damaged, read_note, remove, say, write_json
from ml.store.seals import read_sealed, sealed
from ml.store.shelf import replaced
from orchestration.mlflow.run_content import RECORD


def champion_record(workspace: Workspace, model: str) -> dict | None:
    """Whose record it is; None without a readable one, which the registry then brings back."""
    from ml.pipeline.stages.promotion import champion_folder

    try:
        return read_sealed(champion_folder(workspace, model) / "record.json", {"digest": str})
    except Damaged as error:
        say(f"{error}; the registry brings it back")
        return None


def outdated(workspace: Workspace) -> bool:
    """Whether the last verdict leaves another champion than the one on record, which came from the
    registry since: it holds no longer, though the stage's recipe is the same."""
    from ml.pipeline.stages.promotion import CONTESTS

    path = workspace.folder("promotion") / "verdict.json"
    verdict = read_note(path, dict.fromkeys(CONTESTS, dict))
    if verdict is None:
        return False
    records = {model: champion_record(workspace, model) or {} for model in CONTESTS}
    return any(verdict[m].get("digest_after") != records[m].get("digest") for m in CONTESTS)


def remove_record(workspace: Workspace, model: str) -> None:
    """Forgets the champion on record."""
    from ml.pipeline.stages.promotion import champion_place

    remove(champion_place(workspace, model))


def restore_record(workspace: Workspace, model: str, run_id: str, former: set[str]) -> None:
    """Puts the record that a run keeps in place of the one on disk.

    former: digests of the models that were champion before.
    """
    import mlflow

    from ml.pipeline.stages.promotion import champion_place

    place = champion_place(workspace, model)
    with tempfile.TemporaryDirectory() as scratch, replaced(place) as temporary:
        shutil.copytree(
            mlflow.artifacts.download_artifacts(
                run_id=run_id, artifact_path=RECORD, dst_path=scratch
            ),
            temporary,
        )
        own = json.loads((temporary / "record.json").read_text())
        renewed = own | {"former": sorted(former - {own["digest"]})}
        write_json(temporary / "record.json", sealed(renewed))
