"""The stage `images` on a Ray cluster of two raylets on this machine, one of which is lost.

    python -m benchmarks.two_nodes [--folder F]

Makes the same few pictures three times by the real command: in one process, on the cluster that
`executor.address` names, and on it while one raylet is killed by SIGKILL half-way. Prints which
node made which shards, the seconds and the manifest's digest; ends with exit code 1 when a digest
differs, a node made nothing, or a shard that was finished before the kill was made again. Runs in a
network of its own that has loopback alone, and ends all that it has started: Linux, `unshare`.
"""

import argparse
import collections
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from benchmarks.noting_maker import NotingMaker
from ml.arguments import folder
from ml.errors import exit_path
from ml.pipeline.stages import images
from ml.settings.profile import ROOT
from ml.store.manifest import read_manifest
from ml.store.sidecars import shard_files, sidecar

ALONE = ("unshare", "-rnpf", "--kill-child", "--mount-proc", "sh", "-c")
SETTINGS = {
    "base": "ci",
    "prompts": {"train_one": 16, "train_two": 16, "sim_per_cell": 1},
    "shards": {"size": 4},
    "diffusion": {"device": "cpu", "steps": 40},
}
Events = list[list[str]]
"""Node, shard's first key, "begun" or "made"."""


def read(notes: Path) -> Events:
    return [line.split() for line in notes.read_text().splitlines()] if notes.is_file() else []


def finished_shards(root: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of each shard of `images` that is in place, wherever it lies."""
    folders = {path.parent for path in root.glob("data/*/**/shard-*.parquet")}
    shards = [p for folder in folders if "images" in str(folder) for p in shard_files(folder)]
    states = {path.name: path.stat() for path in shards if sidecar(path).is_file()}
    return {name: (state.st_ino, state.st_mtime_ns) for name, state in states.items()}


@contextmanager
def two_raylets(place: Path) -> Iterator[tuple[str, list[Any]]]:
    """Address and nodes of a cluster of 127.0.0.1 and 127.0.0.2 that asks for a token, which this
    process's children have."""
    (place / "ray").mkdir(parents=True)  # Ray writes the cluster's address there
    os.environ |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_TMPDIR": str(place),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    from ray.cluster_utils import Cluster

    common = {"num_cpus": 1, "object_store_memory": 100 * 10**6, "include_dashboard": False}
    cluster = Cluster()
    try:
        nodes = [
            cluster.add_node(
                node_ip_address=f"127.0.0.{number}",
                temp_dir=str(place / str(number)),
                include_log_monitor=False,
                **common,
            )
            for number in (1, 2)
        ]
        yield cluster.address, nodes
    finally:
        cluster.shutdown()


class Run:
    """One `python -m ml images` in a root of its own, with its profile."""

    def __init__(self, place: Path, name: str, executor: dict[str, Any]):
        self.root, self.notes = place / name, place / f"{name}.notes"
        self.said = place / f"{name}.stderr"
        self.profile = place / name / "nodes.yaml"
        self.root.mkdir()
        (self.root / "data").mkdir()
        shutil.copytree(ROOT / "data/foundation", self.root / "data/foundation")
        self.profile.write_text(yaml.safe_dump(SETTINGS | {"executor": executor}))
        self._start("prompts").wait()
        self.began = time.monotonic()
        self.process = self._start("images")

    def _start(self, stage: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "benchmarks.two_nodes", "--notes", str(self.notes)]
        command += ["--stage", stage, "--profile", str(self.profile), "--folder", str(self.root)]
        with self.said.open("ab") as stderr:  # progress bars; shown when it fails
            return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=stderr)

    def half(self, other: str) -> dict[str, tuple[int, int]]:
        """Waits until the other node has made a shard and has begun the next; what is finished."""
        while self.process.poll() is None:
            theirs = [what for node, _, what in read(self.notes) if node == other]
            if "made" in theirs and theirs[-1] == "begun":
                return finished_shards(self.root)
            time.sleep(0.01)
        raise RuntimeError(f"the run ended with {self.process.returncode} before a kill")

    def end(self) -> str:
        """The manifest's digest."""
        if code := self.process.wait():
            said = self.said.read_text()[-2000:]
            raise RuntimeError(f"python -m ml images ended with exit code {code}: {said}")
        self.seconds = time.monotonic() - self.began
        return read_manifest(self.root / "data/nodes/images").digest

    def row(self, name: str, nodes: Sequence[str], digest: str) -> str:
        made = collections.Counter(node for node, _, what in read(self.notes) if what == "made")
        shares = " ".join(f"{made[node]:>8}" for node in nodes)
        return f"{name:<28} {shares} {self.seconds:>8.0f} s  {digest[:16]}"


def compare(place: Path) -> int:
    one = Run(place, "one", {"address": None})
    digests = [one.end()]
    with (
        TemporaryDirectory(prefix="ray-") as short,  # a socket's path has room for 107 letters
        two_raylets(Path(short)) as (address, raylets),
    ):
        nodes = [raylet.node_id for raylet in raylets]
        executor = {"address": address, "workers": 2}
        two = Run(place, "two", executor)
        digests.append(two.end())
        lost = Run(place, "lost", executor)
        before = lost.half(nodes[1])
        raylet = raylets[1].all_processes["raylet"][0].process
        raylet.kill()
        raylet.wait()
        then = read(lost.notes)
        digests.append(lost.end())
    since, after = read(lost.notes)[len(then) :], finished_shards(lost.root)
    finished = {key for _, key, what in then if what == "made"}
    half = {key for node, key, what in then if node == nodes[1] and what == "begun"} - finished
    kept = sum(after[name] == before[name] for name in before)
    again = sum(key in finished for _, key, what in since if what == "begun")
    saved = sum([nodes[0], key, "made"] in since for key in half)
    print(f"{'shards made by':<28} {'node 1':>8} {'node 2':>8} {'':>8}    manifest's digest")
    print(one.row("one process (not a node)", nodes, digests[0]))
    print(two.row("two nodes", nodes, digests[1]))
    print(lost.row("node 2's raylet is killed", nodes, digests[2]))
    print(f"finished before the kill: {len(before)}, untouched: {kept}, of {len(after)} in all")
    print(f"made before the kill and begun again: {again}")
    print(f"begun by node 2 and not finished: {len(half)}, made by node 1 after that: {saved}")
    both = {node for node, _, what in read(two.notes) if what == "made"} == set(nodes)
    whole = len(set(digests)) == 1 and kept == len(before) and not again
    return int(not (whole and both and half and saved == len(half)))


@exit_path
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.two_nodes", description=__doc__)
    parser.add_argument("--folder", type=folder, help="to work in (default: a temporary one)")
    for name in ("--notes", "--stage", "--profile"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.stage:
        from ml.__main__ import main as command

        images.ShardMaker = partial(NotingMaker, Path(chosen.notes))  # type: ignore
        return command([chosen.stage, "--profile", chosen.profile, "--root", str(chosen.folder)])
    if not chosen.inside:
        more = " ".join(sys.argv[1:] if arguments is None else arguments)
        inside = f"ip link set lo up && exec {sys.executable} -m benchmarks.two_nodes --inside "
        os.chdir(ROOT)
        os.execvp(ALONE[0], [*ALONE, inside + more])  # so that a kill of this process ends all
    if chosen.folder is not None:
        chosen.folder.mkdir(parents=True, exist_ok=True)
        return compare(chosen.folder)
    with TemporaryDirectory(prefix="nodes-") as place:
        return compare(Path(place))


if __name__ == "__main__":
    sys.exit(main())
