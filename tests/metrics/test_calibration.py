"""Expected calibration error against torchmetrics' and against cases with a known answer."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from ml.metrics.calibration import no_reliability, reliability


@pytest.mark.parametrize("bins", [5, 15, 40])
@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_the_error_is_torchmetrics(bins, power):
    """Calibrated at power 1, over- and underconfident at the others."""
    rng = np.random.default_rng(7)
    given = rng.random(20_000).astype(np.float32)
    truth = rng.random(20_000) < given**power
    theirs = binary_calibration_error(
        torch.from_numpy(given), torch.from_numpy(truth.astype(int)), n_bins=bins, norm="l1"
    )
    ours = reliability(given, truth, bins).error
    assert ours == pytest.approx(float(theirs), abs=1e-6)
    assert (ours < 0.02) == (power == 1.0)


def test_by_hand():
    """Two bins: 0.1 and 0.3, of which one is true; 0.9, which is true."""
    found = reliability([[0.1, 0.3, 0.9]], np.array([[False, True, True]]), bins=2)
    assert found.count.tolist() == [2, 1]
    assert found.confidence.tolist() == pytest.approx([0.2, 0.9])
    assert found.accuracy.tolist() == [0.5, 1.0]
    assert found.error == pytest.approx(2 / 3 * 0.3 + 1 / 3 * 0.1)


def test_edges_belong_to_the_upper_bin_and_one_to_the_last():
    assert reliability([0.0, 0.5, 1.0], np.ones(3, bool), bins=2).count.tolist() == [1, 2]


def test_parts_add_up_to_the_whole():
    rng = np.random.default_rng(0)
    given, truth = rng.random((4, 50)), rng.random((4, 50)) < 0.3
    parts = sum(map(reliability, given, truth), no_reliability())
    whole = reliability(given, truth)
    assert parts.error == pytest.approx(whole.error)
    assert np.array_equal(parts.count, whole.count)


def test_of_nothing_there_is_no_error():
    none = no_reliability(3)
    assert np.isnan(none.error) and np.isnan(none.confidence).all()


@pytest.mark.parametrize("given", [[1.1], [-0.1], [np.nan]])
def test_what_is_no_probability_is_refused(given):
    with pytest.raises(ValueError, match="from 0 to 1"):
        reliability(given, np.array([True]))


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match="expected a bool for each"):
        reliability([0.1, 0.2], np.array([True]))
    with pytest.raises(ValueError, match="expected a bool for each"):
        reliability([0.1], np.array([1]))
