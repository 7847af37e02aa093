"""A workspace on a real S3 server: what is there, what is made again, what a kill leaves."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from botocore.exceptions import EndpointConnectionError

from ml.errors import ManifestError, WorkspaceBusy
from ml.pipeline.runner import run_stage
from ml.settings.profile import ROOT, load_params
from ml.store import beats, kept, leases, objects
from ml.store.leases import Lease
from ml.store.manifest import read_manifest
from ml.store.places import is_remote
from ml.store.shards import read_frame, read_shards
from ml.store.shelf import READERS, Shelf, files_of, lock_in, look, replaced
from tests.builders import object_store, small_stages
from tests.builders.object_store import BUCKET, Wire, client, environment, objects_at


@pytest.fixture
def root(s3, tmp_path, monkeypatch):
    object_store.use_keys(monkeypatch)
    return object_store.place(s3, tmp_path.name)


@pytest.fixture
def remote(monkeypatch, root):
    """(run, workspace, groups made) of the small stages with a root on the server."""
    return small_stages.put_in_place(monkeypatch, root)


def key_of(path) -> str:
    return objects.address(path).path.removeprefix(f"{BUCKET}/")


# --- the same data --------------------------------------------------------------------------------


def test_digests_are_those_of_a_local_disk(remote, monkeypatch, tmp_path, s3):
    run, workspace, runs = remote
    there = run("one").digest, run("two").digest
    assert run("one").cached and run("two").cached and len(runs) == 3
    stored = objects_at(s3, f"{key_of(workspace.folder('one'))}/")
    run, local, _ = small_stages.put_in_place(monkeypatch, tmp_path)
    assert there == (run("one").digest, run("two").digest)
    folder = local.folder("one")
    assert stored == {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*")
    }
    assert read_shards(workspace.folder("one")).equals(read_shards(folder))
    assert workspace.state("one").joinpath("timing.json").is_file()


def test_a_replaced_version_is_gone_and_a_failed_one_leaves_the_finished(remote):
    run, workspace, _ = remote
    run("one")
    first = workspace.folder("one")
    with pytest.raises(ValueError, match="can't work"):
        run("one", -1)
    assert workspace.folder("one") == first and run("one").cached
    second = run("one", 1)
    assert workspace.folder("one") != first and not objects.below(first)
    assert read_manifest(workspace.folder("one")).digest == second.digest
    assert run("two").facts == {"total": 15 + 6}


def test_what_others_put_at_a_stages_place_is_named_and_left(remote, s3):
    run, workspace, _ = remote
    client(s3).put_object(
        Bucket=BUCKET, Key=f"{key_of(workspace.data)}/one/manifest.json", Body=b"{}"
    )
    with pytest.raises(ManifestError, match="one/manifest.json is in the way"):
        run("one")
    assert set(objects_at(s3, f"{key_of(workspace.data)}/")) == {"one/manifest.json"}


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["flipped", "cut off", "deleted"])
def test_a_damaged_shard_is_made_again_alone(remote, s3, damage):
    run, workspace, runs = remote
    digest = run("one").digest
    key = f"{key_of(workspace.folder('one'))}/shard-00001.parquet"
    body = client(s3).get_object(Bucket=BUCKET, Key=key)["Body"].read()
    if damage == "deleted":
        client(s3).delete_object(Bucket=BUCKET, Key=key)
    else:
        wrong = body[:-9] if damage == "cut off" else body[:9] + bytes([body[9] ^ 1]) + body[10:]
        client(s3).put_object(Bucket=BUCKET, Key=key, Body=wrong)
    with pytest.raises(ManifestError, match=r"shard-00001\.parquet is (missing|not what)"):
        run("two")
    assert run("one").digest == digest and runs[3:] == [[2, 3]]
    assert run("two").facts == {"total": 15}


def test_a_damaged_pointer_is_named_and_no_older_version_takes_its_place(remote, s3):
    run, workspace, _ = remote
    run("one")
    run("one", 1)
    (pointer,) = look(workspace.data / "one").pointers
    path = look(workspace.data / "one").pointer(pointer)
    client(s3).put_object(Bucket=BUCKET, Key=key_of(path), Body=b"{}")
    with pytest.raises(ValueError, match=f"{pointer:08d}.json"):
        run("two")


def test_the_noted_digest_is_the_files(remote, s3):
    run, workspace, _ = remote
    run("one")
    shard = workspace.folder("one") / "shard-00000.parquet"
    head = client(s3).head_object(Bucket=BUCKET, Key=key_of(shard))
    whole = hashlib.sha256(shard.read_bytes()).hexdigest()
    assert head["Metadata"] == {"sha256": whole} and objects.digest(shard) == whole


# --- reading and writing --------------------------------------------------------------------------


def test_only_the_bytes_of_the_columns_asked_for_are_fetched(root, s3, tmp_path):
    """Of 4 MB of pictures and a column of keys, the keys alone."""
    frame = pd.DataFrame(
        {"key": [f"k{i}" for i in range(64)], "image": [os.urandom(65536) for _ in range(64)]}
    )
    with objects.uploaded(root / "shard.parquet") as local:
        frame.to_parquet(local)
    wire = Wire(s3)
    try:
        path = object_store.place(wire.address, f"{tmp_path.name}/shard.parquet")
        assert list(read_frame(path, ["key"]).key) == list(frame.key)
        assert wire.down < 200_000
        rows = read_frame(path, filters=[("key", "in", ["k3"])])
        assert list(rows.image) == [frame.image[3]]
    finally:
        wire.close()


def test_a_block_that_fails_writes_nothing(root):
    with pytest.raises(RuntimeError), objects.uploaded(root / "a" / "file") as local:
        local.write_bytes(b"half")
        raise RuntimeError
    assert not objects.below(root)


def test_a_folder_is_replaced_as_a_whole(root):
    place = root / "champion" / "model"
    for text in ("first", "second"):
        with replaced(place) as local:
            local.mkdir()
            (local / "record.json").write_text(text)
            (local / text).write_text("")
    assert {path.name for path in objects.below(files_of(place))} == {"record.json", "second"}
    with pytest.raises(RuntimeError), replaced(place) as local:
        local.mkdir()
        raise RuntimeError
    assert (files_of(place) / "record.json").read_text() == "second"
    assert len(look(place).versions) == 1


def test_create_is_once(root):
    assert objects.create(root / "x", b"1") and objects.create(root / "x", b"1")
    assert not objects.create(root / "x", b"2") and (root / "x").read_bytes() == b"1"


# --- kills and connections ------------------------------------------------------------------------


def start(s3, root, seed=0, seconds=0.0, machine="", lifetime=60.0, beat=10.0):
    """Makes `one` in a process; machine: another one than this, as far as its locks say."""
    code = (
        "import runpy, sys\n"
        "from ml.store import beats, leases\n"
        f"beats.MACHINE = {machine!r} or beats.MACHINE\n"
        f"beats.BEAT, leases.LIFETIME = {beat}, {lifetime}\n"
        f"sys.argv = ['x', 's3://{BUCKET}/{root.name}', '{seed}', '{seconds}']\n"
        "from ml.errors import exit_path\n"
        "run = lambda: runpy.run_module('tests.builders.small_stages', run_name='__main__')\n"
        "sys.exit(exit_path(run)())\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(s3),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_a_shard(workspace, run) -> None:
    """Until a run has stored its first shard, with its sidecar."""
    end = time.monotonic() + 60
    while not any(path.name == ".shard-00000.json" for path in objects.below(workspace.data)):
        assert run.poll() is None, run.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.2)


def kill_half_way(s3, remote, **more):
    """A run that is killed with one shard of three there."""
    _, workspace, _ = remote
    run = start(s3, workspace.root, seconds=3.0, **more)
    wait_for_a_shard(workspace, run)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()


def test_after_a_kill_the_next_run_goes_on_at_once(remote, s3, monkeypatch, tmp_path):
    run, workspace, runs = remote
    kill_half_way(s3, remote)
    with pytest.raises(ManifestError, match="has not finished"):
        read_manifest(workspace.folder("one"))
    began = time.monotonic()
    report = run("one")
    assert time.monotonic() - began < leases.LIFETIME / 2
    assert runs == [[2, 3], [4, 5]]
    local, _, _ = small_stages.put_in_place(monkeypatch, tmp_path)
    assert report.digest == local("one").digest
    shelf = look(workspace.data / "one")
    assert shelf.versions == shelf.pointers == (shelf.current,)


@pytest.mark.slow
def test_the_lock_of_a_killed_run_elsewhere_ends_with_its_lifetime(remote, s3, monkeypatch):
    run, workspace, runs = remote
    kill_half_way(s3, remote, machine="elsewhere")
    monkeypatch.setattr(leases, "LIFETIME", 2.5)
    began = time.monotonic()
    run("one")
    assert time.monotonic() - began > 2.5
    assert runs == [[2, 3], [4, 5]]


@pytest.mark.slow
def test_a_run_elsewhere_that_lives_is_waited_for_by_name(remote, s3, monkeypatch):
    run, workspace, _ = remote
    monkeypatch.setattr(leases, "LIFETIME", 20)
    other = start(s3, workspace.root, seconds=4.0, machine="elsewhere", beat=0.3)
    try:
        wait_for_a_shard(workspace, other)
        with pytest.raises(WorkspaceBusy, match=f"process {other.pid} on .* \\(holds 'one'"):
            run("one")
        assert other.wait(timeout=60) == 0
    finally:
        other.kill()
    assert run("one").cached


@pytest.mark.slow
def test_two_runs_at_once_one_makes_it(remote, s3):
    run, workspace, _ = remote
    both = [start(s3, workspace.root, seconds=1.5) for _ in range(2)]
    codes = sorted(one.wait(timeout=120) for one in both)
    assert codes in ([0, 0], [0, 5])  # the second found it done, or was told who makes it
    shelf = look(workspace.data / "one")
    assert shelf.versions == shelf.pointers == (shelf.current,)
    assert run("one").cached


@pytest.mark.slow
def test_a_run_that_was_paused_and_lost_its_lock_changes_nothing(remote, s3, monkeypatch):
    """It is stopped, taken over, and goes on: its version is not pointed at, by any way."""
    run, workspace, _ = remote
    sleeper = start(s3, workspace.root, seconds=1.0, machine="elsewhere")
    wait_for_a_shard(workspace, sleeper)
    os.kill(sleeper.pid, signal.SIGSTOP)
    monkeypatch.setattr(leases, "LIFETIME", 2.0)
    digest = run("one", 7).digest
    os.kill(sleeper.pid, signal.SIGCONT)
    assert sleeper.wait(timeout=60) == 5
    assert "another one has taken over" in sleeper.stderr.read()
    assert read_manifest(workspace.folder("one")).digest == digest
    assert run("one", 7).cached


def test_a_pointer_that_was_taken_away_cannot_be_created(root):
    shelf = look(root / "one")
    assert shelf.void(3) and shelf.void(3) and not shelf.point(3)
    assert shelf.point(4) and not shelf.void(4)
    assert look(root / "one").current == 4


def test_readers_and_a_writer_keep_each_other_out(root, monkeypatch):
    monkeypatch.setattr(leases, "GRACE", 0.3)
    data = root / "data"
    with Lease(data, "one") as first, Lease(data, "one") as second:
        first.read()
        second.read()
        with Lease(data, "one") as writer, pytest.raises(WorkspaceBusy, match="in use"):
            writer.write()
    with Lease(data, "one") as writer:
        writer.read()
        writer.write()
        with Lease(data, "one") as reader, pytest.raises(WorkspaceBusy, match="in use"):
            reader.read()
        writer.check()
    with Lease(data, "one") as reader:
        reader.read()
    assert not objects.names_in(data / "one" / "readers")


def test_a_reader_takes_the_number_from_a_writer_that_is_gone(root, monkeypatch):
    """Else that could come back, and delete the version that is being read."""
    monkeypatch.setattr(beats, "MACHINE", "elsewhere")
    gone = Lease(root, "one")
    gone.write()
    gone._beats.end()  # no beat any more
    monkeypatch.setattr(beats, "MACHINE", "here")
    monkeypatch.setattr(leases, "LIFETIME", 1.0)
    with Lease(root, "one") as reader:
        reader.read()
        with pytest.raises(WorkspaceBusy, match="taken over"):
            gone.check()


def test_a_writer_that_wakes_after_it_was_forgotten_does_not_say_that_it_has_added(
    root, monkeypatch
):
    """It sleeps just before its pointer, until another one has written and cleared up."""
    fields, point = {"marks": list}, Shelf.point

    def add(mark: str):
        return lambda found: {"marks": [*(found or {"marks": []})["marks"], mark]}

    def late(shelf: Shelf, number: int) -> bool:
        monkeypatch.setattr(Shelf, "point", point)
        gone._beats.end()  # no beat any more
        monkeypatch.setattr(beats, "MACHINE", "here")
        kept.change_kept(root, "audit", "marks.json", fields, add("of the other"))
        return point(shelf, number)

    monkeypatch.setattr(leases, "LIFETIME", 1.0)
    monkeypatch.setattr(beats, "MACHINE", "elsewhere")
    gone = Lease(root, "audit")
    gone.write()
    monkeypatch.setattr(Shelf, "point", late)
    with pytest.raises(WorkspaceBusy, match="taken over"):
        kept._replace_version(gone, "marks.json", fields, add("of the sleeper"))
    assert kept.read_kept(root, "audit", "marks.json", fields) == {"marks": ["of the other"]}
    kept.change_kept(root, "audit", "marks.json", fields, add("again"))
    found = kept.read_kept(root, "audit", "marks.json", fields)
    assert found == {"marks": ["of the other", "again"]}


@pytest.fixture
def holder(root):
    """A process that holds the writer's lock on `one`, without a beat."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    record = json.loads(beats.Beats(root / "one", "one").record())
    record |= {"pid": process.pid, "started": beats.started(process.pid)}
    objects.create(lock_in(root / "one", 1), json.dumps(record).encode())
    yield process
    process.kill()
    process.wait()


def test_a_killed_holder_that_nobody_waited_for_is_gone(root, holder):
    """As below a container's first process that waits for no child."""
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    began = time.monotonic()
    with Lease(root, "one") as lock:
        lock.write()
    assert time.monotonic() - began < leases.GRACE


def test_a_holder_that_lives_without_a_beat_is_taken_over(root, holder, monkeypatch):
    monkeypatch.setattr(leases, "LIFETIME", 2 * leases.GRACE)
    with Lease(root, "one") as lock:
        lock.write()
        assert lock.number == 2


def test_what_this_process_could_not_give_back_is_not_in_its_way(root):
    """The store was away at the end of a block; the process lives on, as the app does."""
    with pytest.raises(EndpointConnectionError), Lease(root, "one") as lock:
        lock.read()
        raise EndpointConnectionError(endpoint_url="http://away")
    with pytest.raises(EndpointConnectionError), Lease(root, "one") as lock:
        lock.write()
        raise EndpointConnectionError(endpoint_url="http://away")
    assert not objects.names_in(root / "one" / READERS)
    with Lease(root, "one") as lock:
        lock.write()
        with Lease(root, "one") as other, pytest.raises(WorkspaceBusy, match="in use"):
            other.read()


@pytest.mark.slow
def test_a_connection_that_is_cut_for_seconds_stops_nothing(s3, remote, monkeypatch, tmp_path):
    _, workspace, _ = remote
    wire = Wire(s3)
    try:
        run = start(wire.address, workspace.root, seconds=0.5)
        wait_for_a_shard(workspace, run)
        wire.cut()
        time.sleep(2)
        wire.mend()
        assert run.wait(timeout=120) == 0, run.stderr.read()
    finally:
        wire.close()
    local, _, _ = small_stages.put_in_place(monkeypatch, tmp_path)
    assert read_manifest(workspace.folder("one")).digest == local("one").digest


@pytest.mark.slow
def test_a_connection_that_dies_half_way_through_a_shard_is_one_line(s3, remote):
    run, workspace, runs = remote
    wire = Wire(s3)
    try:
        process = start(wire.address, workspace.root, seconds=0.5)
        wait_for_a_shard(workspace, process)
        wire.cut_after(900)
        _, said = process.communicate(timeout=300)
    finally:
        wire.close()
    assert process.returncode == 4
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "the object store did not answer" in line
    assert "Traceback" not in said
    with pytest.raises(ManifestError, match="has not finished"):
        read_manifest(workspace.folder("one"))
    run("one")
    assert [2, 3] in runs or [4, 5] in runs
    assert [0, 1] not in runs


# --- refusals -------------------------------------------------------------------------------------


def command(*arguments: str, **variables: str):
    return subprocess.run(
        [sys.executable, "-m", "ml", "prompts", "--profile", "ci", *arguments],
        cwd=ROOT,
        env=os.environ | object_store.KEYS | variables,
        capture_output=True,
        text=True,
    )


def test_a_bucket_that_is_not_there_is_one_line(s3):
    done = command("--root", "s3://no-such-bucket/x", AWS_ENDPOINT_URL=s3)
    assert done.returncode == 2 and "Make the bucket" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_whole_stage_by_its_command(s3, tmp_path):
    done = command("--root", f"s3://{BUCKET}/{tmp_path.name}", AWS_ENDPOINT_URL=s3)
    assert done.returncode == 0, done.stderr
    local = run_stage("prompts", load_params("ci"), tmp_path)
    assert local.digest[:12] in done.stdout
    again = command("--root", f"s3://{BUCKET}/{tmp_path.name}", AWS_ENDPOINT_URL=s3)
    assert "up to date" in again.stdout
    assert all(is_remote(path) is False for path in tmp_path.rglob("*"))


def test_nothing_that_is_kept_names_a_key(remote, s3):
    run, workspace, _ = remote
    run("one")
    stored = objects_at(s3, f"{key_of(workspace.data)}/")
    assert stored and not any(b"of-a-test" in body for body in stored.values())
