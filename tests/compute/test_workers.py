"""Shards by workers of a Ray of this machine: the bytes of one process, whoever is lost; and its
ports, which nobody else can use."""

import dataclasses
import os
import re
import signal
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from ml.compute import ray_pool, ray_start
from ml.compute.workers import Workers
from ml.errors import WorkerLost, exit_code
from ml.pipeline.workspace import Workspace
from ml.settings.profile import load_params
from ml.store.files import sha256_file
from ml.store.making import here, write_shards
from ml.store.sidecars import shard_files
from tests.builders import makers

SCHEMA = pa.schema([("key", pa.string()), ("x", pa.float64())])
PLAN = [range(start, start + 2) for start in range(0, 8, 2)]


@pytest.fixture(scope="module")
def two():
    """Two workers of a Ray of this process, which ends with the module."""
    yield Workers(dataclasses.replace(load_params().executor, workers=2), "cpu")
    ray_start.stop_here()


def digests(folder) -> dict:
    return {path.name: sha256_file(path) for path in shard_files(folder)}


def test_sigterm_stays_ours_though_ray_starts(two):
    """First here, so that Ray starts within; Ray's own answer to SIGTERM is to abort."""
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("SIGTERM"))
    try:
        assert len(dict(two(makers.process, [0, 1]))) == 2
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == ["SIGTERM"]


def test_a_lost_workers_shard_is_made_by_another(two, tmp_path):
    make = makers.Mortal(tmp_path / "made", deaths=1)
    rows = write_shards(tmp_path / "two", "r", PLAN, make, SCHEMA, two)
    write_shards(tmp_path / "one", "r", PLAN, makers.rows_of, SCHEMA)
    assert list(rows.values()) == [2] * 4
    assert digests(tmp_path / "two") == digests(tmp_path / "one")
    assert sorted(make.made()) == [0, 2, 4, 4, 6], "what was finished was made once"


def test_a_worker_that_rays_memory_monitor_ended_is_replaced(two, monkeypatch):
    """Ray's error for it, in place of one worker's answer: the monitor looks at the machine."""
    import ray

    get, asked = ray.get, []

    def answer(reference):
        asked.append(reference)
        if len(asked) == 3:  # the first two are that the workers are there
            raise ray.exceptions.OutOfMemoryError("1 worker killed due to memory pressure")
        return get(reference)

    monkeypatch.setattr(ray, "get", answer)
    assert sorted(dict(two(makers.process, range(4)))) == [0, 1, 2, 3]


def test_a_shard_that_kills_its_workers_is_told_and_made_the_next_time(two, tmp_path):
    make = makers.Mortal(tmp_path / "made", deaths=99)
    with pytest.raises(WorkerLost, match="lost 3 times with shard-00002.parquet") as caught:
        write_shards(tmp_path / "two", "r", PLAN, make, SCHEMA, two)
    assert exit_code(caught.value) == 4 and "start the same command" in caught.value.__notes__[0]
    assert "shard-00002.parquet" not in digests(tmp_path / "two")
    rows = write_shards(tmp_path / "two", "r", PLAN, makers.rows_of, SCHEMA)
    assert list(rows.values()) == [2] * 4


def test_two_workers_make_the_bytes_of_one_and_an_error_of_theirs_is_raised_here(two, tmp_path):
    """Pictures of a random-weight pipeline, which each worker loads; the third shard is unsound."""
    from ml.pipeline.stages import images
    from ml.store.schemas import IMAGES
    from tests.builders.tiny import save_tiny_pipeline
    from tests.pipeline.test_images_stage import PROMPT_ROWS, SETTINGS

    base = load_params()
    params = dataclasses.replace(base, diffusion=dataclasses.replace(base.diffusion, **SETTINGS))
    space = Workspace(tmp_path, "micro")
    save_tiny_pipeline(tmp_path / "model")
    plan = [PROMPT_ROWS[:3], PROMPT_ROWS[4:], [PROMPT_ROWS[3] | {"words": ["zebra"]}]]
    found = []
    for name, executor in (("one", here), ("two", two)):
        with pytest.raises(ValueError, match="zebra") as caught:
            make = images.ShardMaker(params, space)
            write_shards(tmp_path / name, "r", plan, make, IMAGES, executor)
        assert exit_code(caught.value) == 2
        found.append(digests(tmp_path / name))
    assert list(found[0]) == ["shard-00000.parquet", "shard-00001.parquet"]
    assert found[1].items() <= found[0].items(), "what was begun beside the error is given up"
    write_shards(tmp_path / "two", "r", plan[:2], make, IMAGES, two)
    assert digests(tmp_path / "two") == found[0]


def test_workers_have_as_many_threads_as_this_process(two):
    import torch

    assert dict(two(makers.threads, [0, 1])) == dict.fromkeys([0, 1], torch.get_num_threads())


# What it listens on, and whom its ports answer


@pytest.fixture(scope="module")
def ray(two):
    """While one of two workers that have worked waits for more."""
    answers = two(makers.process, range(99))
    next(answers)
    yield pytest.importorskip("ray")
    answers.close()


def descendants() -> list[int]:
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
        except OSError:
            continue  # it has just ended
    found = [os.getpid()]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def listening() -> dict[str, int]:
    """Process by "address:port", both in hexadecimal, of all that this process has started."""
    sockets = {}
    for pid in descendants():
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                sockets[link.readlink().name] = pid
            except OSError:
                continue
    lines = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    pids = {line[1]: sockets.get(f"socket:[{line[9]}]") for line in lines if line[3] == "0A"}
    return {where: pid for where, pid in pids.items() if pid is not None}


def test_our_ray_listens_on_the_loopback_alone(ray):
    """The kernel's own table; 127.0.0.1 stands there backwards, in IPv6 after ::ffff:."""
    found = listening()
    names = {Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0] for pid in found.values()}
    assert any("gcs_server" in name for name in names), "else the search has found nothing"
    assert any("raylet" in name for name in names) and len(found) > 5
    loopback = re.compile(r"(0{16}FFFF0000)?0100007F:[0-9A-F]{4}")
    assert [where for where in found if not loopback.fullmatch(where)] == []


@pytest.mark.parametrize("token", [None, "0" * 64])
def test_its_ports_answer_nobody_without_its_token(ray, token):
    import grpc

    (node,) = ray.nodes()
    calls = {
        ray.get_runtime_context().gcs_address: "NodeInfoGcsService/GetAllNodeInfo",
        f"127.0.0.1:{node['NodeManagerPort']}": "NodeManagerService/GetNodeStats",
    }
    for address, method in calls.items():
        with grpc.insecure_channel(address) as channel:
            call = channel.unary_unary(f"/ray.rpc.{method}")
            with pytest.raises(grpc.RpcError) as caught:
                call(b"", metadata=bearer(token), timeout=30)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED, address
            call(b"", metadata=bearer(os.environ["RAY_AUTH_TOKEN"]), timeout=30)


def bearer(token: str | None) -> list[tuple[str, str]]:
    return [] if token is None else [("authorization", f"Bearer {token}")]


# Without one


def test_one_worker_is_this_process_and_needs_no_ray(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    executor = load_params().executor
    assert dict(Workers(executor)(makers.process, [0])) == {0: os.getpid()}
    with pytest.raises(ModuleNotFoundError, match=r"pip install '.\[ray\]'") as caught:
        list(Workers(dataclasses.replace(executor, workers=2))(makers.process, [0, 1]))
    assert exit_code(caught.value) == 4


def test_another_version_or_an_open_cluster_is_refused():
    """A worker's first answer, before it is given any work."""
    check = ray_pool.check_worker
    same = ray_pool.versions()
    check(same, True, False, same)
    check(same, False, True, same)
    with pytest.raises(ValueError, match="has torch 0.1, expected .* as here"):
        check(same | {"torch": "0.1"}, True, False, same)
    with pytest.raises(ValueError, match="asks for no token"):
        check(same, False, False, same)


def test_the_executor_is_no_part_of_a_recipe():
    from ml.pipeline.table import STAGES

    assert not any("executor" in section for stage in STAGES for section in stage.sections)
