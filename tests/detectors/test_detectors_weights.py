"""Weight files: what may be read, what is refused before it can run, and what becomes of it."""

import io
import os
import pickle

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from ml.compute.torch_files import Refused
from ml.compute.weights import fill
from ml.detectors.weights import load_weights

RNG = np.random.default_rng(0)
ARRAYS = {
    "conv.weight": RNG.normal(size=(4, 3, 2)).astype(np.float32),
    "fortran": np.asfortranarray(RNG.normal(size=(5, 7))),
    "steps": np.array(12, np.int64),  # no dimension
    "batches": np.int64(90000),
    "flags": np.array([True, False]),
}


@pytest.fixture(autouse=True)
def hub_folder(tmp_path):
    """Converted files go below torch's hub folder: not the user's in a test."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "hub"))
    yield tmp_path / "hub"
    torch.hub.set_dir(before)


def zoo_pickle(protocol: int, arrays=None) -> bytes:
    """The form of detectron2's model zoo: numpy arrays, not tensors."""
    return pickle.dumps({"model": ARRAYS if arrays is None else arrays,
                         "__author__": "Detectron2 Model Zoo"}, protocol)  # fmt: skip


def numpy_1(data: bytes) -> bytes:
    """As numpy 1 wrote it, years ago: numpy 2 renamed the module."""
    assert b"numpy._core" in data
    return data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


@pytest.mark.parametrize("data", [
    zoo_pickle(2), numpy_1(zoo_pickle(2)), zoo_pickle(4), zoo_pickle(5),
], ids=["protocol 2", "numpy 1", "protocol 4", "protocol 5"])  # fmt: skip
def test_zoo_pickle_gives_its_arrays(tmp_path, data):
    file = tmp_path / "model_final.pkl"
    file.write_bytes(data)
    weights = load_weights(file)
    assert weights.author == "Detectron2 Model Zoo" and not weights.heuristics
    assert set(weights.tensors) == set(ARRAYS)
    for name, array in ARRAYS.items():
        got = weights.tensors[name].numpy()
        assert got.dtype == array.dtype and got.shape == array.shape
        np.testing.assert_array_equal(got, array)


def test_a_file_is_converted_once(tmp_path, hub_folder, monkeypatch):
    file = tmp_path / "model.pkl"
    file.write_bytes(zoo_pickle(4))
    first = load_weights(file)
    (kept,) = (hub_folder / "safetensors").iterdir()
    with safe_open(kept, framework="pt") as opened:
        assert set(opened.keys()) == set(ARRAYS)
    monkeypatch.setattr("ml.detectors.weights._convert", None)  # a second conversion would fail
    again = load_weights(file)
    assert again.author == first.author
    assert all(torch.equal(again.tensors[name], first.tensors[name]) for name in ARRAYS)


def test_caffe2_pickle_asks_for_heuristics(tmp_path):
    """Detectron 1 files: blobs, the optimizer's momentum beside them, written by Python 2."""
    blobs = {"conv1_w": ARRAYS["fortran"], "conv1_w_momentum": ARRAYS["fortran"]}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"blobs": blobs, "cfg": "x: 1"}, 2))
    weights = load_weights(tmp_path / "R-50.pkl")
    assert weights.author == "Caffe2" and weights.heuristics
    assert list(weights.tensors) == ["conv1_w"]


@pytest.mark.parametrize("inside", [None, "model", "state_dict"])
@pytest.mark.parametrize("suffix", [".pth", ".bin", ".pt"])
def test_torch_files(tmp_path, suffix, inside):
    layer = nn.Linear(3, 2)
    payload = layer.state_dict() if inside is None else {
        inside: layer.state_dict(), "iteration": 90000}  # fmt: skip
    torch.save(payload, tmp_path / f"w{suffix}")
    weights = load_weights(tmp_path / f"w{suffix}")
    assert weights.author == "" and not weights.heuristics
    assert torch.equal(weights.tensors["weight"], layer.weight)


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


class Evaluates(Runs):
    def __reduce__(self):
        return eval, (f"open({str(self.marker)!r}, 'w')",)


class LoadsMore(Runs):
    """numpy.load would unpickle another file: numpy's functions are not all harmless."""

    def __reduce__(self):
        return np.load, (str(self.marker), None, True)


@pytest.mark.parametrize("evil", [Runs, Evaluates, LoadsMore])
@pytest.mark.parametrize("place", ["beside", "inside"])
@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".bin"])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, hub_folder, suffix, place, evil):
    marker, file = tmp_path / "ran", tmp_path / f"model{suffix}"
    bad = evil(marker)
    payload = {"model": dict(ARRAYS), "__author__": "Detectron2 Model Zoo"}
    payload["__author__" if place == "beside" else "model"] = bad
    if suffix == ".pkl":
        file.write_bytes(pickle.dumps(payload))
    else:
        torch.save({"model": bad}, file)
    with pytest.raises(Refused, match=r"holds more than tensors \(.*nothing in it was run"):
        load_weights(file)
    assert not marker.exists()
    assert not list(hub_folder.rglob("*.safetensors"))
    if evil is Runs:  # the test's own pickle does run when it is loaded carelessly
        pickle.loads(pickle.dumps(bad))
        assert marker.exists()


def whole_file(suffix: str) -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": torch.arange(4000.0)}, buffer)
    return zoo_pickle(4) if suffix == ".pkl" else buffer.getvalue()


@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".bin"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_half_a_download_says_so(tmp_path, suffix, share):
    data = whole_file(suffix)
    (tmp_path / f"w{suffix}").write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match="damaged or half a download.*get it again"):
        load_weights(tmp_path / f"w{suffix}")


def test_half_a_safetensors_file_says_so(tmp_path):
    save_file({"weight": torch.arange(4000.0)}, tmp_path / "whole.safetensors")
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:900])
    with pytest.raises(ValueError, match="damaged or half a download"):
        load_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize("name, data, match", [
    ("w.ckpt", b"", r"expected one of \.safetensors, \.pth"),
    ("w.pkl", pickle.dumps([1, 2]), "expected a dict of tensors, got list"),
    ("w.pkl", pickle.dumps({"model": {"a": "text"}, "__author__": "x"}), "'a' is of type str"),
    ("w.pkl", zoo_pickle(4, {"a": np.array(["x"])}), "'a' is no tensor"),
])  # fmt: skip
def test_what_is_no_weight_file_is_named(tmp_path, name, data, match):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=match):
        load_weights(tmp_path / name)


def test_a_missing_file_names_the_setting(tmp_path):
    with pytest.raises(FileNotFoundError, match="detector.weights"):
        load_weights(tmp_path / "nowhere.pth")


@pytest.mark.parametrize(
    "change, match",
    [
        (
            {"weight": torch.zeros(2, 4)},
            r"1 have another shape \(weight: \[2, 4\], expected \[2, 3",
        ),
        ({"bias": None}, r"1 of its weights are missing \(bias\)"),
        ({"head.weight": torch.zeros(1)}, r"1 are unknown \(head.weight\)"),
    ],
)
def test_weights_of_another_model_are_refused(change, match):
    tensors = {k: v for k, v in (nn.Linear(3, 2).state_dict() | change).items() if v is not None}
    with pytest.raises(ValueError, match=match):
        fill(nn.Linear(3, 2), tensors, "w.pth")
    fill(nn.Linear(3, 2), nn.Linear(3, 2).state_dict() | {"x.pixel_mean": torch.zeros(3)}, "w.pth",
         optional=("pixel_mean",))  # fmt: skip
