"""The stage `images` on two Ray nodes, one of which is lost: what the benchmark of it prints."""

import re
import subprocess
import sys

import pytest

from ml.settings.profile import ROOT

NODES = ("one process (not a node)", "two nodes", "node 2's raylet is killed")


@pytest.mark.slow  # three runs of the stage, minutes on a busy machine
def test_both_nodes_make_shards_and_a_lost_one_costs_its_unfinished_shard_alone(tmp_path):
    alone = subprocess.run(["unshare", "-rnp", "--fork", "true"], check=False, capture_output=True)
    if alone.returncode:
        pytest.skip("no namespaces: Ray would listen on every interface")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.two_nodes", "--folder", str(tmp_path / "nodes")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    rows = {
        name: re.search(rf"^{re.escape(name)} +(\d+) +(\d+) +\d+ s  (\w+)$", done.stdout, re.M)
        for name in NODES
    }
    assert all(rows.values()), done.stdout
    assert len({row[3] for row in rows.values()}) == 1, "one digest"
    made = {name: (int(row[1]), int(row[2])) for name, row in rows.items()}
    assert made[NODES[0]] == (0, 0)
    assert sum(made[NODES[1]]) == 10 and min(made[NODES[1]]) > 0
    assert sum(made[NODES[2]]) == 10, "every shard was made once"
    assert "made before the kill and begun again: 0\n" in done.stdout
    assert "begun by node 2 and not finished: 1, made by node 1 after that: 1\n" in done.stdout
