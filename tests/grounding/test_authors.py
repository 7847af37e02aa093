"""The authors' own checkpoint becomes a module of ours: against a second implementation, whose
tensors have their names (`tests.builders.authors`), and against the U-Net's own shape."""

import copy
import dataclasses
import io
import os
import pickle
import tarfile

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from ml.diffusion.features import feature_taps, joined
from ml.grounding.authors import authors_module, read_authors
from ml.grounding.authors_table import BLOCKS, CONFIG, ROWS
from ml.grounding.module import GroundingModule
from tests.builders.authors import Authors, full_size, gathered, stirred

SMALL = (2, 4, 8, 16)
"""Sides of maps with the full model's channels, a sixteenth of its places."""


@pytest.fixture(scope="module")
def theirs() -> Authors:
    """As training leaves it: the vectors of its spectral norms are near, but not at, their end."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        made = stirred(full_size(SMALL, 128))
        with torch.no_grad():
            for block in made.blocks:
                for conv in (block.conv1, block.conv2):
                    for _ in range(3):
                        conv(torch.randn(1, conv.in_channels, 4, 4))
        return made


@pytest.fixture
def checkpoint(theirs) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in theirs.state_dict().items()}


def outputs(sides=SMALL) -> list[torch.Tensor]:
    """What the U-Net's blocks give of one picture: (2,C,r,r), in the order of the network."""
    at = dict(zip(BLOCKS, sides, strict=True))
    return [
        torch.randn(2, channels, at[side], at[side]) * 5 + 2 for side, channels in unet_blocks()
    ]


def unet_blocks() -> list[tuple[int, int]]:
    """(resolution, channels) of each block of Stable Diffusion 1, told by its own class."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    return [(tap.resolution, tap.channels) for tap in feature_taps(unet)]


def at_sides(module: GroundingModule, sides) -> GroundingModule:
    """The same module for maps of other sides."""
    channels = dict(zip(sides, CONFIG.feature_channels.values(), strict=True))
    other = GroundingModule(dataclasses.replace(CONFIG, feature_channels=channels))
    other.load_state_dict(module.state_dict())
    return other.eval()


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal but for float32's rounding: to 1e-5 of the logits."""
    assert found.shape == expected.shape and expected.std() > 0.1
    assert (found - expected).norm() <= 1e-5 * expected.norm()
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_order_of_blocks_is_the_u_nets():
    found: dict[int, tuple[int, ...]] = {}
    for side, channels in unet_blocks():
        found[side] = (*found.get(side, ()), channels)
    assert dict(sorted(found.items())) == BLOCKS
    assert {side: 2 * sum(own) for side, own in BLOCKS.items()} == CONFIG.feature_channels


@pytest.mark.parametrize("words", [1, 3])
def test_ours_gives_what_theirs_gives_of_the_first_picture(theirs, checkpoint, words):
    """From the blocks' outputs on: theirs has the guidance halves of each block side by side, ours
    all of one half first."""
    torch.manual_seed(words)
    blocks, text = outputs(), torch.randn(words, 768)
    module, _ = authors_module(checkpoint, "x")
    with torch.no_grad():
        expected = copy.deepcopy(theirs)(gathered(blocks), text)
        given = joined(dict(enumerate(blocks)), 2)
        valid = torch.ones(1, words, dtype=torch.bool)
        found = at_sides(module, SMALL)(given, text[None], valid)[0]
    assert_same(found, expected)


def test_the_weights_are_divided_as_theirs_are(theirs, checkpoint):
    module, unsettled = authors_module(checkpoint, "x")
    first = copy.deepcopy(theirs)
    largest = []
    for own, other in zip(module.encoder.blocks, first.blocks, strict=True):
        for name in ("conv1", "conv2"):
            conv = getattr(other, name)
            conv(torch.randn(1, conv.in_channels, 3, 3))  # its one step
            torch.testing.assert_close(
                getattr(own, name).weight, conv.weight / conv.sv0, atol=1e-7, rtol=1e-6
            )
            exact = torch.linalg.svdvals(conv.weight.flatten(1))[0]
            largest.append((exact / conv.sv0 - 1).item())
    assert unsettled == pytest.approx(max(largest), rel=1e-3) and unsettled > 0.01


def test_a_settled_checkpoint_says_so_and_holds_for_every_picture(theirs):
    settled = copy.deepcopy(theirs)
    for block in settled.blocks:
        block.conv1.settle(), block.conv2.settle()
    module, unsettled = authors_module(settled.state_dict(), "x")
    assert abs(unsettled) < 1e-5
    torch.manual_seed(0)
    text, own = torch.randn(2, 768), at_sides(module, SMALL)
    with torch.no_grad():
        for _ in range(3):
            blocks = outputs()
            found = own(joined(dict(enumerate(blocks)), 2), text[None], torch.ones(1, 2) > 0)[0]
            assert_same(found, settled(gathered(blocks), text))


@pytest.mark.slow
def test_at_the_full_size_of_stable_diffusion_1(checkpoint):
    theirs = full_size()
    theirs.load_state_dict(checkpoint)
    module, _ = authors_module(checkpoint, "x")
    torch.manual_seed(1)
    blocks, text = outputs(tuple(BLOCKS)), torch.randn(2, 768)
    with torch.no_grad():
        found = module(joined(dict(enumerate(blocks)), 2), text[None], torch.ones(1, 2) > 0)[0]
        expected = theirs(gathered(blocks), text)
    assert found.shape == (2, 512, 512)
    assert_same(found, expected)


def test_every_tensor_of_theirs_has_its_row_and_every_one_of_ours_comes_from_one(theirs):
    assert theirs.state_dict().keys() == ROWS.keys()
    assert sum(parameter.numel() for parameter in theirs.parameters()) == 18_796_560
    taken = {ours for ours, how in ROWS.values() if how in ("same", "halves")}
    rest = GroundingModule(CONFIG).state_dict().keys() - taken
    assert all(name.endswith(("._u", "._v", "q.weight", "k.weight", "v.weight")) for name in rest)


@pytest.mark.parametrize("how", ["plain", "module.", "old", "half", "safetensors"])
def test_files_that_are_read(tmp_path, checkpoint, how):
    file = tmp_path / ("theirs.safetensors" if how == "safetensors" else "theirs.pth")
    if how == "safetensors":
        save_file({name: tensor.contiguous() for name, tensor in checkpoint.items()}, file)
    elif how == "module.":
        torch.save({f"module.{name}": tensor for name, tensor in checkpoint.items()}, file)
    elif how == "half":
        torch.save({name: tensor.double() for name, tensor in checkpoint.items()}, file)
    else:
        torch.save(checkpoint, file, _use_new_zipfile_serialization=how != "old")
    read, _ = read_authors(file)
    expected, _ = authors_module(checkpoint, "x")
    assert not read.training and read.config == CONFIG
    torch.testing.assert_close(read.state_dict(), expected.state_dict())
    file.unlink()  # 75 MB


def without(checkpoint, name):
    return {own: tensor for own, tensor in checkpoint.items() if own != name}


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda c: without(c, "to_q.weight"), r"missing \(to_q.weight\)"),
        (
            lambda c: without(c, "high_feature_mix_conv.conv1.sv0"),
            r"missing \(high_feature_mix_conv.conv1.sv0\)",
        ),
        (lambda c: c | {"to_v.weight": torch.zeros(1)}, r"unknown \(to_v.weight\)"),
        (
            lambda c: c | {"bn.num_batches_tracked": torch.zeros(1)},
            r"unknown \(bn.num_batches_tracked\)",
        ),
        (
            lambda c: {f"module.{n}" if n == "to_q.weight" else n: t for n, t in c.items()},
            r"missing \(to_q.weight\), 1 are unknown \(module.to_q.weight\)",
        ),
        (
            lambda c: c | {"to_q.weight": torch.zeros(512, 1024)},
            r"to_q.weight: \[512, 1024\], expected \[512, 768\]",
        ),
        (
            lambda c: c | {"mid_feature_mix_conv.stored_var2": torch.ones(47)},
            r"stored_var2: \[47\], expected \[48\]",
        ),
        (
            lambda c: c | {"to_q.weight": torch.full((512, 768), torch.nan)},
            "to_q.weight has NaN",
        ),
        (
            lambda c: c | {"to_q.weight": torch.zeros(512, 768, dtype=torch.int64)},
            "to_q.weight: expected floating-point numbers, got torch.int64",
        ),
        (
            lambda c: c | {"to_q.weight": torch.zeros(512, 768).to_sparse()},
            "to_q.weight: expected floating-point numbers, got torch.float32 .torch.sparse_coo",
        ),
        (
            lambda c: c | {"mid_feature_mix_conv.conv1.weight": torch.zeros(48, 48, 3, 3)},
            "mid_feature_mix_conv.conv1.u0: its spectral norm would divide by 0",
        ),
        (lambda c: {}, "90 of its weights are missing"),
    ],
)
def test_another_modules_tensors_are_refused_by_name(checkpoint, change, expected):
    with pytest.raises(ValueError, match=f"^theirs.pth: .*{expected}") as refused:
        authors_module(change(checkpoint), "theirs.pth")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "payload, expected",
    [
        ({"state_dict": {"to_q.weight": torch.zeros(2)}}, "'state_dict' is a dict: give the"),
        ({"to_q.weight": torch.zeros(2), 7: torch.zeros(2)}, "expected tensors by name, but 7"),
        ([torch.zeros(2)], "expected tensors by name, got a list"),
    ],
)
def test_a_file_of_anything_but_tensors_by_name_is_refused(tmp_path, payload, expected):
    file = tmp_path / "theirs.pth"
    torch.save(payload, file)
    with pytest.raises(ValueError, match=expected) as refused:
        read_authors(file)
    assert str(refused.value).startswith(f"{file}: ")


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def tarred(file, payload) -> None:
    """The oldest form: a .tar, `pickle` in it is unpickled for the tensors' places."""
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as out:
        for name, content in payload.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            out.addfile(entry, io.BytesIO(content))


def bomb(how: str, file, marker) -> None:
    checkpoint = {"to_k.weight": torch.zeros(2)}
    if how == "a value":
        torch.save(checkpoint | {"to_q.weight": Runs(marker)}, file)
    elif how == "beside":
        torch.save({"model": checkpoint, "config": Runs(marker)}, file)
    elif how == "old":
        torch.save(checkpoint | {"x": Runs(marker)}, file, _use_new_zipfile_serialization=False)
    elif how in ("a bare pickle", "a newer pickle"):
        protocol = 2 if how == "a bare pickle" else 4
        file.write_bytes(pickle.dumps({"to_q.weight": Runs(marker)}, protocol))
    elif how == "a module":
        torch.save(torch.nn.Linear(2, 2), file)
    elif how == "a tar":
        code = pickle.dumps(Runs(marker))
        tarred(file, {name: code for name in ("storages", "tensors", "pickle")})
    else:
        torch.jit.save(torch.jit.script(torch.nn.ReLU()), file)


MORE = r"holds more than tensors \(.+\) and was refused; nothing in it was run"
BOMBS = dict.fromkeys(["a value", "beside", "old", "a bare pickle", "a module", "a tar"], MORE)
BOMBS |= {"a newer pickle": "is damaged or half a download", "a program": "holds packed parts"}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("how", BOMBS)
def test_what_would_run_code_is_refused_and_did_not_run(tmp_path, how):
    file, marker = tmp_path / "theirs.pth", tmp_path / "ran"
    bomb(how, file, marker)
    with pytest.raises(ValueError, match=BOMBS[how]):
        read_authors(file)
    assert not marker.exists()
    if how == "a value":  # loaded carelessly, it does run
        torch.load(file, weights_only=False)
        assert marker.exists()


def test_half_a_download_and_no_file_say_so(tmp_path):
    file = tmp_path / "theirs.pth"
    torch.save({"to_q.weight": torch.zeros(4000)}, file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match="damaged or half a download"):
        read_authors(file)
    with pytest.raises(ValueError, match=r"no file .*nowhere.pth"):
        read_authors(tmp_path / "nowhere.pth")
    (tmp_path / "x.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="damaged or half a download"):
        read_authors(tmp_path / "x.safetensors")
