"""Five kills of `python -m ml all`, by the harness that `make chaos` runs fifty with."""

import json

import pytest

from tests.chaos.__main__ import main


@pytest.mark.slow
def test_five_kills_lose_nothing(tmp_path, capsys):
    result = tmp_path / "result.json"
    arguments = ["--kills", "5", "--engines", "cli", "--folder", str(tmp_path / "checkouts")]
    code = main([*arguments, "--json", str(result)])
    assert code == 0, capsys.readouterr().out
    found = json.loads(result.read_text())
    assert sum(len(each["kills"]) for each in found["rounds"]) == 5
    assert all(each["ended"] for each in found["rounds"]) and found["faults"] == []
