"""A Ray of this process that does not start."""

import pytest

from ml.compute import ray_start
from ml.errors import WorkerLost, exit_code


@pytest.mark.parametrize("failures", [2, 3])
def test_a_ray_that_does_not_start_is_tried_again_and_then_told(monkeypatch, capsys, failures):
    """Ray's own error for it, which has no kind."""
    starts = []

    def start(*_):
        starts.append(failures)
        if len(starts) <= failures:
            raise Exception(f"The current node timed out during startup ({failures})")

    monkeypatch.setattr(ray_start, "_here", None)
    monkeypatch.setattr(ray_start, "_start", start)
    if failures == 3:
        with pytest.raises(WorkerLost, match="did not start on this machine in 3 tries") as caught:
            ray_start.start_here(1, 0)
        assert exit_code(caught.value) == 4
    else:
        ray_start.start_here(1, 0)
    said = capsys.readouterr().err
    assert len(starts) == 3 and "2 more tries" in said and "1 more try" in said
