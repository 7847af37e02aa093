"""DVC versions the data: what passed its checks is committed to DVC and recorded in `dvc.lock`.

DVC never runs the graph here; `dvc.yaml` repeats it for those who have no Dagster. DVC runs in a
process of its own, because it locks the checkout and changes process-wide state.
"""

import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from ml.pipeline.recipe import refuse_failed
from ml.pipeline.table import STAGES
from ml.pipeline.workspace import Workspace
from ml.settings.profile import ROOT, load_params
from ml.store.files import read_note, sha256_file, write_json
from ml.store.manifest import read_manifest
from ml.store.places import is_remote, place_of
from ml.store.stage_places import lock_of
from orchestration.turns import turn, when_free


class SealError(RuntimeError):
    """DVC could not commit what was to be sealed."""


def reason_to_skip(workspace: Workspace) -> str:
    """Why this workspace cannot be sealed, "" when it can."""
    root = place_of(workspace.root)
    if is_remote(root):
        return (
            f"{root} is on an object store: its own versioning keeps what was there, DVC does not"
        )
    default = load_params().profile
    if workspace.profile != default:
        return f"dvc.yaml describes data/{default}, this is data/{workspace.profile}"
    if not (root / "dvc.yaml").is_file() or not (root / ".dvc" / "config").is_file():
        return f"no dvc.yaml and .dvc/config in {root}: not a checkout"
    if not (root / ".git").exists() and not _without_git(root):
        return (
            f"{root} is not a git checkout, which DVC expects; run `python -m dvc config "
            "--local core.no_scm true` there once to version the data without git"
        )
    return ""


def _without_git(root: Path) -> bool:
    local = root / ".dvc" / "config.local"
    return local.is_file() and "no_scm = true" in local.read_text()


def seal(workspace: Workspace, judge: Callable[[], None] = lambda: None) -> dict[str, str]:
    """Commits all stages to DVC, so that a plain `dvc pull` elsewhere gets every one of them; does
    nothing when they are sealed already.

    judge: judges the stages first. From then on until all is noted none of them is made anew, and
    one that is being made is waited for: else DVC would have a mixture that nothing judged.

    Returns what the UI shows. Raises SealError with DVC's own message when DVC fails, ManifestError
    when a stage is unfinished or damaged, QualityError when its last checks failed.
    """
    if reason := reason_to_skip(workspace):
        return {"sealed": "skipped", "reason": reason}
    with turn(workspace.state("sealed_data") / ".lock", f"sealing {workspace.data}"):
        names = [stage.name for stage in STAGES]
        with when_free(lambda: _reading(workspace, names)):
            judge()
            return _seal(workspace, Path(workspace.root), names)


def _reading(workspace: Workspace, names: list[str]) -> ExitStack:
    """Holds the stages as a reader does. Raises WorkspaceBusy when one is being made."""
    with ExitStack() as locks:  # gives back what it took when the next one is busy
        for name in names:
            locks.enter_context(lock_of(workspace.data, name)).read()
        return locks.pop_all()


def _seal(workspace: Workspace, root: Path, names: list[str]) -> dict[str, str]:
    digests = {name: read_manifest(workspace.folder(name), verify=False).digest for name in names}
    note, lock = workspace.state("sealed_data") / "seal.json", root / "dvc.lock"
    sealed = read_note(note, dict)
    if lock.is_file() and sealed == {"digests": digests, "dvc_lock": sha256_file(lock)}:
        return {"sealed": "was sealed already", "dvc_lock_sha256": sha256_file(lock)}
    refuse_failed(names, workspace, "sealed_data")
    for name in names:
        read_manifest(workspace.folder(name))
    dvc(["commit", "--force", *names], root)
    write_json(note, {"digests": digests, "dvc_lock": sha256_file(lock)})
    return {"sealed": ", ".join(names), "dvc_lock_sha256": sha256_file(lock)}


def dvc(arguments: list[str], root: Path = ROOT) -> str:
    """Runs DVC in a checkout and returns what it printed. Raises SealError when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=root, capture_output=True, text=True
    )
    if done.returncode:
        raise SealError(
            f"`dvc {' '.join(arguments)}` failed in {root}: {(done.stderr or done.stdout).strip()}"
        )
    return done.stdout
