"""Disks that are full, read-only, without links or locks, or not ours: what is finished stays, the
error names the file and the remedy, and the same command goes on.

The disks are real file systems in memory. docs/faults.md has the table.
"""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ml.errors import INPUT, RESOURCES, STAGE, WorkspaceBusy, exit_code, one_line
from ml.store import locks
from ml.store.files import atomic
from ml.store.locks import FolderLock
from ml.store.manifest import read_manifest
from ml.store.training_state import load_state, save_state
from tests.builders.small_disk import PAGE, leave, mount, remount, umount
from tests.builders.small_stages import put_in_place


def told(error: BaseException, *, names: str, says: str) -> None:
    """One line with a file's name and what to do, and the code of what ran out."""
    assert exit_code(error) == RESOURCES, error
    assert names in one_line(error) and says in one_line(error), one_line(error)


# --- full -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["nothing", "a finished folder"])
def test_a_disk_that_fills_at_any_page_costs_no_more_than_that_run(small_disk, monkeypatch, before):
    """Shards, sidecars, metrics, manifest, notes and locks: each write of a stage meets it once."""
    run, workspace, _ = put_in_place(monkeypatch, small_disk)
    expected = run("one").digest
    met = set()
    for pages in range(100):
        remount(small_disk, "size=1m")
        shutil.rmtree(workspace.data)
        first = run("one", 1).digest if before != "nothing" else None
        leave(small_disk, pages * PAGE)
        try:
            run("one")
        except OSError as error:
            told(error, names=str(workspace.data), says="free some disk space")
            met.add(one_line(error).split(": ")[1].split(";")[0].rpartition("/")[2])
        else:
            break
        if first:
            assert read_manifest(workspace.folder("one")).digest == first
        remount(small_disk, "size=1m")
        assert run("one").digest == expected
    assert pages > 5 and {"shard-00001.parquet", ".shard-00002.json", "manifest.json"} <= met, met
    assert {"metrics.json", "made.json"} & met, met


def test_a_disk_without_room_for_names_is_told_too(tmp_path, monkeypatch):
    """Every inode is used, and half of the bytes are free."""
    disk = tmp_path / "small"
    mount(disk, options="nr_inodes=14")
    try:
        run, workspace, _ = put_in_place(monkeypatch, disk)
        with pytest.raises(OSError) as raised:
            run("one")
        told(raised.value, names=str(workspace.data), says="free some disk space")
        remount(disk, "nr_inodes=0")
        assert run("one").facts == {"rows": 6}
    finally:
        umount(disk)


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before_it(small_disk):
    file = small_disk / "stage" / ".progress" / "training.pt"
    save_state(file, {"step": 1, "weights": torch.zeros(1000)})
    leave(small_disk, 2 * PAGE)
    with pytest.raises(OSError) as raised:
        save_state(file, {"step": 2, "weights": torch.zeros(10_000)})
    told(raised.value, names=str(file), says="free some disk space")
    assert load_state(file)["step"] == 1 and [p.name for p in file.parent.iterdir()] == [file.name]


def test_weights_that_do_not_fit_are_told_whichever_library_writes_them(small_disk):
    from safetensors.torch import save_file

    leave(small_disk, 2 * PAGE)
    with pytest.raises(OSError) as raised, atomic(small_disk / "model") as temporary:
        temporary.mkdir()
        save_file({"weight": torch.zeros(10_000)}, temporary / "model.safetensors")
    told(raised.value, names=str(small_disk / "model"), says="free some disk space")
    assert not list(small_disk.iterdir())


# --- read-only, or not ours -----------------------------------------------------------------------


def test_what_is_finished_is_found_on_a_read_only_disk_and_nothing_else_is_made(
    small_disk, monkeypatch
):
    run, workspace, _ = put_in_place(monkeypatch, small_disk)
    run("one")
    remount(small_disk, "ro")
    assert run("one").cached
    for stage, seed in (("two", 0), ("one", 1)):
        with pytest.raises(OSError) as raised:
            run(stage, seed)
        told(raised.value, names=str(workspace.data), says="--root")
    remount(small_disk, "rw")
    assert run("two").facts == {"total": 15}


def in_child(user: int, work) -> str:
    """The one line of the error with which `work` ends in a process of another user, "" for none;
    a defect raises here."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        line = "a defect"
        try:
            os.setuid(user)
            work()
            line = ""
        except Exception as error:
            if exit_code(error) == RESOURCES:
                line = one_line(error)
        finally:
            os.write(writing, line.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        line = pipe.read()
    os.waitpid(child, 0)
    assert line != "a defect"
    return line


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """For another user, who may not enter pytest's folders."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="another user can be taken by root alone")
def test_rights_that_change_half_way_end_in_one_line_and_the_run_goes_on(open_folder, monkeypatch):
    run, workspace, _ = put_in_place(monkeypatch, open_folder)
    expected = run("one").digest
    shutil.rmtree(workspace.data.parent)
    half = workspace.data / ".making" / "one"

    class Shutting(list):
        def append(self, group):
            list.append(self, group)
            if len(self) == 2:
                half.chmod(0o555)

    closing, _, _ = put_in_place(monkeypatch, open_folder, Shutting())
    line = in_child(65534, lambda: closing("one"))
    assert str(half) in line and "change its permissions" in line
    half.chmod(0o755)
    run, _, _ = put_in_place(monkeypatch, open_folder)
    assert in_child(65534, lambda: run("one")) == ""
    assert read_manifest(workspace.folder("one")).digest == expected


@pytest.mark.skipif(os.geteuid() != 0, reason="another user can be taken by root alone")
def test_a_user_who_may_only_read_is_kept_out_by_a_writer_all_the_same(
    open_folder, monkeypatch, capsys
):
    """Else a folder is replaced while it is read, and its shards are of two makings."""
    run, workspace, _ = put_in_place(monkeypatch, open_folder)
    run("one")
    monkeypatch.setattr(locks, "GRACE", 0.1)
    lock = FolderLock(workspace.data, "one")

    def read() -> None:
        with lock:
            lock.read()

    def is_kept_out() -> None:
        with pytest.raises(WorkspaceBusy, match=f"process {os.getppid()} on .* makes 'one'"):
            read()

    def is_warned() -> None:
        read()
        assert "nothing keeps others from replacing" in capsys.readouterr().err

    with FolderLock(workspace.data, "one") as writer:
        writer.write()
        assert in_child(65534, is_kept_out) == ""
        lock.path.chmod(0o600)
        assert in_child(65534, is_warned) == ""
    lock.path.chmod(0o644)
    assert in_child(65534, lambda: run("one")) == "", "found done"
    assert str(workspace.data) in in_child(65534, lock.write)


@pytest.mark.skipif(os.geteuid() != 0, reason="another user can be taken by root alone")
@pytest.mark.parametrize("when", ["before the run", "while it makes shards"])
def test_a_folder_that_can_not_be_opened_outlives_the_one_that_it_is_in(
    open_folder, monkeypatch, when
):
    run, workspace, _ = put_in_place(monkeypatch, open_folder)
    assert in_child(65534, lambda: run("one")) == ""
    expected = read_manifest(workspace.folder("one")).digest
    mine = workspace.folder("one") / "mine"

    def close() -> None:
        mine.mkdir()
        (mine / "thesis.txt").write_text("irreplaceable")
        mine.chmod(0)

    class Closing(list):
        def append(self, group):
            if not mine.exists():
                close()

    if when == "before the run":
        in_child(65534, close)
    run, _, _ = put_in_place(monkeypatch, open_folder, Closing())
    for _ in range(2):
        line = in_child(65534, lambda: run("one", 1))
        assert str(mine) in line and "change its permissions" in line
        assert read_manifest(workspace.folder("one")).digest == expected
    mine.chmod(0o755)
    assert in_child(65534, lambda: run("one", 1)) == ""
    assert read_manifest(workspace.folder("one")).digest != expected
    assert (mine / "thesis.txt").read_text() == "irreplaceable"


# --- links, and file systems that lack something --------------------------------------------------


@pytest.mark.parametrize("name", ["data", "data/micro"])
def test_data_that_lies_on_another_disk_is_worked_on_there(small_disk, tmp_path, monkeypatch, name):
    """A link in the root, its target on another file system: a whole run, a changed one, a half
    one, with nothing written beside the link."""
    place = tmp_path / "root" / name
    place.parent.mkdir(parents=True)
    place.symlink_to(small_disk, target_is_directory=True)
    run, workspace, runs = put_in_place(monkeypatch, tmp_path / "root")
    first = run("one").digest
    assert run("two").facts == {"total": 15} and run("one").cached
    with pytest.raises(ValueError, match="can't work"):
        run("one", -1)
    assert run("one", 1).digest != first and run("one").digest == first
    (workspace.folder("one") / "shard-00001.parquet").write_bytes(b"")
    runs.clear()
    assert run("one").digest == first and runs == [[2, 3]]
    assert place.is_symlink() and list(place.parent.iterdir()) == [place]


@pytest.mark.parametrize("name", [".state", ".making", ".locks"])
def test_a_link_among_our_own_folders_is_refused_or_followed_and_nothing_is_lost(
    small_disk, tmp_path, monkeypatch, name
):
    """To another disk, where no rename leads."""
    run, workspace, _ = put_in_place(monkeypatch, tmp_path / "root")
    expected = run("one").digest
    shutil.rmtree(workspace.data / name)
    (workspace.data / name).symlink_to(small_disk, target_is_directory=True)
    assert run("one").cached
    try:
        run("one", 1)
    except Exception as error:
        assert exit_code(error) == STAGE and f"{name} is in the way" in str(error), error
        assert "Move it elsewhere" in str(error)
        assert read_manifest(workspace.folder("one")).digest == expected
        assert not list(small_disk.iterdir())
    else:
        assert name == ".locks"


@pytest.mark.parametrize(
    "name", ["data", "data/micro", "data/micro/.state", "data/micro/.making", "data/micro/.locks",
             "data/micro/.locks/one", "data/micro/.state/one", "data/micro/.making/one.json",
             "data/micro/.making/one.state", "data/micro/one", "data/micro/.one.replaced"]
)  # fmt: skip
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_not_ours_is_named_and_stays(tmp_path, monkeypatch, name, kind):
    """Plain files with the name of a lock or a note of ours are ours by their place."""
    if kind == "file" and name.endswith(("/.locks/one", "one.json")):
        pytest.skip("ours by its place")
    run, workspace, _ = put_in_place(monkeypatch, tmp_path / "root")
    place = tmp_path / "root" / name
    place.parent.mkdir(parents=True)
    mine = place if kind == "file" else place / "mine"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("irreplaceable")
    try:
        report = run("one")
    except Exception as error:
        assert exit_code(error) in (STAGE, INPUT) and str(place) in str(error), error
        assert "ove it elsewhere" in str(error) or "--root is the folder" in str(error), error
    else:
        assert report.facts == {"rows": 6}
        assert read_manifest(workspace.folder("one")).digest == report.digest
    assert mine.read_text() == "irreplaceable"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV])
def test_a_file_system_without_hard_links_gets_copies(small, monkeypatch, number):
    """FAT says EPERM, others EOPNOTSUPP; said by the system call, since none can be mounted here
    that has no links."""
    run, workspace, runs = small
    expected = run("one").digest

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    (workspace.folder("one") / "shard-00001.parquet").unlink()
    runs.clear()
    assert run("one").digest == expected and runs == [[2, 3]]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_is_worked_on_with_a_warning(
    small, monkeypatch, capsys, number
):
    run, workspace, _ = small

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert run("one").facts == {"rows": 6} and run("two").facts == {"total": 15}
    assert "the file system knows no locks" in capsys.readouterr().err
