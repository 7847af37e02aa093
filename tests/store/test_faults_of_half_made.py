"""What a kill left half-made, damaged before the next run: that run makes what is damaged again,
and ends with the digest of an undisturbed one. docs/faults.md has the table.

Of trainings: tests/store/test_contract_damage.py and below; of finished folders:
tests/pipeline/test_faults_of_files.py.
"""

import errno
import os
from pathlib import Path

import pytest
import torch

from ml.errors import one_line
from ml.store import files
from ml.store.successor import Successor
from ml.store.training_state import load_state, save_state
from tests.builders.damage import DAMAGES, spoil
from tests.builders.small_stages import put_in_place
from tests.builders.tiny_graph import kinds


class Stopped(Exception):
    """Where a kill would be."""


class StopsAtTheThird(list):
    def append(self, group):
        if len(self) == 2:
            raise Stopped
        super().append(group)


@pytest.fixture
def undisturbed(tmp_path, monkeypatch) -> str:
    """The digest."""
    run, _, _ = put_in_place(monkeypatch, tmp_path / "undisturbed")
    return run("one").digest


KINDS = {
    "one.json",
    "one/.shard-N.json",
    "one/shard-N.parquet",
}
WHOLE = KINDS | {
    "one/manifest.json",
    "one/metrics.json",
    "one.state/made.json",
    "one.state/timing.json",
}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", sorted(KINDS))
def test_shards_and_notes_of_a_killed_run(tmp_path, monkeypatch, undisturbed, name, how):
    run, workspace, _ = put_in_place(monkeypatch, tmp_path, StopsAtTheThird())
    with pytest.raises(Stopped):
        run("one")
    found = kinds(workspace.data / ".making")
    assert set(found) == KINDS
    spoil(found[name], how)
    run, _, runs = put_in_place(monkeypatch, tmp_path)
    if name == "one.json" and how == "deleted":  # nothing says that the half-made is ours
        with pytest.raises(Exception, match=r"one is in the way: .*Move it elsewhere"):
            run("one")
        return
    assert run("one").digest == undisturbed
    lost = [[0, 1]] if name != "one.json" else [[0, 1], [2, 3]]
    assert runs == [*lost, [4, 5]], "the other shard stays"


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
@pytest.mark.parametrize("name", ["one.json", "one/.shard-00000.json"])
def test_a_note_that_can_not_be_read_for_a_moment_costs_no_shard(
    tmp_path, monkeypatch, undisturbed, name, number
):
    """Said by the system call: a file that is not read is not taken for a damaged one."""
    run, workspace, _ = put_in_place(monkeypatch, tmp_path, StopsAtTheThird())
    with pytest.raises(Stopped):
        run("one")
    note = workspace.data / ".making" / name
    real = Path.read_bytes

    def fails(path: Path) -> bytes:
        if path == note:
            raise OSError(number, os.strerror(number))
        return real(path)

    run, _, runs = put_in_place(monkeypatch, tmp_path)
    with monkeypatch.context() as failing:
        failing.setattr(Path, "read_bytes", fails)
        with pytest.raises(OSError) as raised:
            run("one")
    assert raised.value.errno == number and str(note) in one_line(raised.value)
    assert run("one").digest == undisturbed and runs == [[4, 5]]


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", sorted(WHOLE))
def test_a_whole_folder_that_did_not_take_its_place_yet(
    tmp_path, monkeypatch, undisturbed, name, how
):
    run, workspace, _ = put_in_place(monkeypatch, tmp_path)
    with monkeypatch.context() as killed:
        killed.setattr(Successor, "_replace", lambda self: (_ for _ in ()).throw(Stopped))
        with pytest.raises(Stopped):
            run("one")
    found = kinds(workspace.data / ".making")
    assert set(found) == WHOLE
    spoil(found[name], how)
    files.say.cache_clear()
    if name == "one.json" and how == "deleted" or name == "one.state/made.json":
        try:
            report = run("one")
        except Exception as error:
            assert "is in the way" in str(error) and "Move it elsewhere" in str(error)
            return
    else:
        report = run("one")
    assert report.digest == undisturbed and run("one").cached
    assert not list((workspace.data / ".making").iterdir())


@pytest.mark.parametrize("how", DAMAGES)
def test_a_trainings_checkpoint(tmp_path, capsys, how):
    """It counts as none: the training starts again from its beginning, and says so."""
    files.say.cache_clear()
    file = tmp_path / ".progress" / "training.pt"
    save_state(file, {"weights": torch.arange(1000.0)})
    spoil(file, how)
    assert load_state(file) is None
    assert how == "deleted" or "starts again from its beginning" in capsys.readouterr().err
