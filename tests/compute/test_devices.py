"""One finder of devices: what `auto` is, and what is said of a device that is not there."""

import pytest
import torch

from ml.compute.devices import find_device, own_device


def test_auto_is_cuda_where_there_is_one(monkeypatch):
    for there, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert find_device("auto").type == find_device().type == own_device().type == expected


@pytest.mark.parametrize("name", ["cuda:99", "warp", "cuda:-1"])
def test_a_device_that_is_not_there_is_refused_with_its_setting(name):
    with pytest.raises(ValueError, match=f"^--device '{name}' is not available here.*auto, cpu"):
        find_device(name, "--device")


def test_a_device_that_is_there_is_taken_as_named():
    assert find_device("cpu") == torch.device("cpu")
