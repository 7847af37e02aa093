"""What was made to fill memory is refused in one clear error, by a process with 1 GB to spare."""

import json
import os
import subprocess
import sys

import pytest

from ml.settings.profile import ROOT
from tests.builders import bombs

SECONDS = 20
"""Of the processor's time, on a slow machine; the slowest takes 6."""


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, dict]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.builders.bombs", str(tmp_path_factory.mktemp("bombs"))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}


EXPECTED = {
    "photo": "expected at most 89,478,485 pixels",
    "photo, a little too large": "expected at most 89,478,485 pixels, got 9500x9500",
    "photo's size": "expected at most 89,478,485 pixels",
    "label map": "expected at most 89,478,485 pixels",
    "stored picture": "expected at most 89,478,485 pixels",
    "stored picture, a little too large": "expected at most 89,478,485 pixels",
    "run lengths": "expected JSON",
    "text without end": "no plain file",
    "long text": "expected 67,108,864 at most",
    "long YAML": "expected 16,777,216 at most",
    "YAML of many values": "more than 100,000 values",
    "YAML of many levels": "nested too deeply",
    "profile": "more than 100,000 values",
    "long JSON": "expected 16,777,216 at most",
    "JSON of many levels": "is damaged",
    "JSON of many lists": "lists and objects",
    "long annotations": "expected 1,073,741,824 at most",
    "MATLAB": "far too many",
    "packed weights": "packed parts",
    "repeated weights": "stands for 8,388,608,000 bytes of tensors",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_bomb_is_refused(found, name):
    row = found[name]
    assert row["kind"] in ("ValueError", "Refused"), row
    assert EXPECTED[name] in row["said"] and row["seconds"] < SECONDS, row


def test_a_large_picture_of_many_objects_is_read_one_mask_at_a_time(found):
    assert found["crowded picture"]["kind"] == "done", found["crowded picture"]
    assert found["crowded picture"]["said"] == "15"


def test_every_bomb_is_named(found, tmp_path):
    assert found.keys() == {*EXPECTED, "crowded picture"}
    assert found.keys() == bombs.cases(tmp_path).keys()
