"""A command that makes shards on Ray's workers is killed or stopped: nothing of Ray's stays, and
the same command goes on."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from benchmarks.two_nodes import SETTINGS, finished_shards
from ml.settings.profile import ROOT
from tests.chaos.processes import living
from tests.cli.test_exit_codes import ctrl_c_reaches_commands  # noqa: F401  (for every test)


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Starts `python -m ml images` of ten shards on two workers, its output in a file of the name
    given, which is also the mark of all its processes."""
    (tmp_path / "ray.yaml").write_text(yaml.safe_dump(SETTINGS | {"executor": {"workers": 2}}))
    shutil.copytree(ROOT / "data" / "foundation", tmp_path / "data" / "foundation")
    ml = [sys.executable, "-m", "ml"]
    given = ["--profile", str(tmp_path / "ray.yaml"), "--root", str(tmp_path)]
    subprocess.run([*ml, "prompts", *given], cwd=ROOT, check=True, capture_output=True)
    started = []
    with tempfile.TemporaryDirectory() as scratch:  # a path short enough for Ray's sockets

        def begin(name: str) -> subprocess.Popen[bytes]:
            more = {"CHAOS_MARK": name, "TMPDIR": scratch, "OMP_NUM_THREADS": "1"}
            with (tmp_path / name).open("w") as output:
                process = subprocess.Popen(
                    [*ml, "images", *given],
                    cwd=ROOT,
                    env=os.environ | more,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            started.append(name)
            return process

        yield begin
        for pid in [pid for name in started for pid in living(name)]:
            os.kill(pid, signal.SIGKILL)  # only after a failure


def left(name: str) -> list[str]:
    """Of the processes of this mark, those that do not end by themselves in three minutes: Ray's
    agents look for a lost cluster for one."""
    end = time.monotonic() + 180
    while (found := living(name)) and time.monotonic() < end:
        time.sleep(0.05)
    return [Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in found]


@pytest.mark.slow  # Ray starts twice, on a busy machine in minutes
@pytest.mark.parametrize(
    "number, code, said",
    [
        (signal.SIGKILL, -signal.SIGKILL, ""),
        (signal.SIGINT, 130, "stopped by Ctrl-C: what is finished is kept"),
        (signal.SIGTERM, 143, "terminated: what is finished is kept"),
    ],
)
def test_nothing_of_rays_stays_and_the_same_command_goes_on(start, tmp_path, number, code, said):
    """SIGKILL and SIGTERM reach the command alone, Ctrl-C its group, as from a terminal."""
    name = f"stopped-{number:d}-{os.getpid()}"
    first, output = start(name), tmp_path / name
    while len(finished_shards(tmp_path)) < 2:
        assert first.poll() is None, output.read_text()
        time.sleep(0.02)
    lines = [Path(f"/proc/{pid}/cmdline").read_text() for pid in living(name)]
    assert any("raylet" in line for line in lines) and len(lines) > 5, "else nothing is looked at"
    (os.killpg if number == signal.SIGINT else os.kill)(first.pid, number)
    since = time.monotonic()
    assert first.wait(120) == code, output.read_text()
    assert left(name) == []
    print(f"signal {number:d}: {len(lines)} processes, gone in {time.monotonic() - since:.1f} s")
    assert said in output.read_text() and "Traceback" not in output.read_text()
    before = finished_shards(tmp_path)
    assert 2 <= len(before) < 10
    again = start(f"{name}-again")
    assert again.wait(1200) == 0, (tmp_path / f"{name}-again").read_text()
    assert left(f"{name}-again") == []
    after = finished_shards(tmp_path)
    assert len(after) == 10 and before.items() <= after.items(), "no shard was made twice"
