"""What the Ray of this process listens on, and whom its ports answer."""

import dataclasses
import os
import re
from pathlib import Path

import pytest

from ml.compute import ray_start
from ml.compute.workers import Workers
from ml.settings.profile import load_params
from tests.builders import makers


@pytest.fixture(scope="module")
def ray():
    """Of two workers that have worked, one of which waits for more."""
    module = pytest.importorskip("ray")
    workers = Workers(dataclasses.replace(load_params().executor, workers=2), "cpu")
    answers = workers(makers.process, range(99))
    next(answers)
    yield module
    answers.close()
    ray_start.stop_here()


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
