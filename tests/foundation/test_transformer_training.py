"""The diffusion transformer's training: loss, noise levels, text, stopping and going on."""

import json
import os

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
from safetensors.torch import load_file

from ml.diffusion.loading import read_pipeline
from ml.foundation import train_transformer, transformer_model
from ml.foundation.card import holds
from ml.foundation.diffusion_model import token_ids
from ml.foundation.train_transformer import choose_rows, flow_loss, logit_normal
from ml.foundation.transformer_model import encode_text
from tests.builders.tiny import tiny_pipeline
from tests.foundation.test_training_loop import SMALL as ALL
from tests.foundation.test_training_loop import small_caches, stop_after  # noqa: F401  a fixture

SMALL = ALL[ALL.index("--batch") :]
SIZES = {"LAYERS": 2, "HEADS": 2, "HEAD_WIDTH": 8}


@pytest.fixture
def first(tmp_path, monkeypatch):
    """A small exported U-Net pipeline, and networks of its size."""
    pipe = tiny_pipeline()
    pipe.save_pretrained(tmp_path / "first", safe_serialization=True)
    for module in (transformer_model, train_transformer):
        for name, value in SIZES.items():
            monkeypatch.setattr(module, name, value)
    return tmp_path / "first"


def test_loss_is_of_the_velocity_at_diffusers_own_mixture():
    scheduler = FlowMatchEulerDiscreteScheduler()
    torch.manual_seed(0)
    x_0, noise = torch.randn(2, 4, 6, 16, 16)
    sigma = scheduler.sigmas[[5, 300, 700, 990]]

    class Silent:
        def __call__(self, hidden_states, timestep, **_):
            mixed = scheduler.scale_noise(x_0, scheduler.timesteps[[5, 300, 700, 990]], noise)
            torch.testing.assert_close(hidden_states, mixed)
            torch.testing.assert_close(timestep, 1000 * sigma)
            return type("Output", (), {"sample": torch.zeros_like(hidden_states)})

    none = (torch.zeros(4, 1, 8), torch.zeros(4, 8))
    loss = flow_loss(Silent(), none, x_0, noise, sigma)
    assert loss.item() == pytest.approx((noise - x_0).square().mean().item(), rel=1e-5)


def test_noise_levels_are_logit_normal():
    drawn = torch.cat([logit_normal(64, torch.Generator().manual_seed(i)) for i in range(200)])
    logits = drawn.logit()
    assert abs(logits.mean()) < 0.02 and logits.std() == pytest.approx(1, abs=0.02)
    noisier = torch.cat(
        [logit_normal(64, torch.Generator().manual_seed(i), 0.6) for i in range(200)]
    )
    torch.testing.assert_close(noisier.logit(), logits + 0.6, rtol=0, atol=1e-3)
    narrow = logit_normal(64, torch.Generator().manual_seed(0), 0.6, 0.5).logit()
    torch.testing.assert_close(narrow, logits[:64] / 2 + 0.6, rtol=0, atol=1e-3)
    one = logit_normal(4, torch.Generator().manual_seed(1))  # one from each quarter
    assert (one[0] < 0.3376 < one[1] < 0.5 < one[2] < 0.6624 < one[3]).all()


def test_a_share_of_the_samples_has_several_objects():
    objects = torch.tensor([1, 1, 1, 2, 1, 3, 1, 1], dtype=torch.uint8)

    def drawn(share):
        rows = choose_rows(objects, 4000, torch.Generator().manual_seed(0), share)
        return torch.bincount(rows, minlength=8) / 4000

    assert (drawn(None) - 1 / 8).abs().max() < 0.02
    several = drawn(0.8)
    assert (several[[3, 5]] - 0.4).abs().max() < 0.03
    assert (several[[0, 1, 2, 4, 6, 7]] - 0.2 / 6).abs().max() < 0.02
    assert drawn(1.0)[[3, 5]].sum() == 1


@pytest.fixture
def train(tmp_path, first):
    def run(name, *more):
        train_transformer.main([
            "--steps", "4", "--start-from", str(first), "--out", str(tmp_path / name / "out"),
            "--work", str(tmp_path / name), "--scenes", str(tmp_path / "scenes"), *SMALL,
            "--same-class-scenes", "8", *more,
        ])  # fmt: skip
        return tmp_path / name / "out"

    return run


def weights(out):
    return {
        file.parent.name: load_file(file)
        for file in out.rglob("*.safetensors")
        if not file.is_symlink()
    }


def test_an_exported_transformer_is_trained_on_from_its_own_weights(tmp_path, train):
    out = train("first-training")
    before = weights(out)
    same = weights(train("unmoved", "--go-on-from", str(out), "--peak-lr", "0"))
    moved = weights(
        train(
            "moved", "--go-on-from", str(out), "--timestep-mean", "0.25", "--several-share", "0.75"
        )
    )
    assert same.keys() == before.keys() == {"transformer", "text_encoder", "text_encoder_2"}
    for part, tensors in before.items():
        for key, tensor in tensors.items():
            torch.testing.assert_close(same[part][key], tensor, rtol=0, atol=0, msg=key)
        assert any(not torch.equal(moved[part][key], t) for key, t in tensors.items())
    assert holds(tmp_path / "moved/out", tmp_path / "moved")
    assert not holds(tmp_path / "moved/out", tmp_path / "first-training")
    kept = json.loads((tmp_path / "moved/settings.json").read_text())
    assert list(kept)[-1] == "seed"
    assert kept["starts_from"] == "an exported transformer" and "(0.25, 1)" in kept["loss"]
    assert kept["several_objects"] == 0.75
    assert (
        json.loads((tmp_path / "first-training/settings.json").read_text())["several_objects"]
        == "as drawn"
    )


def test_it_goes_on_where_it_was_stopped_and_loads(tmp_path, first, train, monkeypatch):
    out = train("whole")
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        train("parts")
    train("parts")
    whole, parts = (load_file(tmp_path / n / "checkpoint.safetensors") for n in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    for key in whole:
        torch.testing.assert_close(parts[key], whole[key], rtol=1e-5, atol=1e-7, msg=key)

    assert not (out / ".partial").exists() and not list(out.rglob("*.bin"))
    link = out / "vae/diffusion_pytorch_model.safetensors"
    assert link.is_symlink() and not os.path.isabs(os.readlink(link))
    assert link.resolve() == first / "vae/diffusion_pytorch_model.safetensors"
    plain = StableDiffusion3Pipeline.from_pretrained(out, text_encoder_3=None, tokenizer_3=None)
    pictures = plain("a red dog", num_inference_steps=2, output_type="np").images
    assert pictures.shape == (1, 64, 64, 3) and np.isfinite(pictures).all()
    ours = read_pipeline(out, None, torch.float32)  # every weight accounted for
    ids = token_ids(ours.tokenizer, ["a red dog", ""])
    states, pooled = encode_text((ours.text_encoder, ours.text_encoder_2), ids, 3)
    theirs, _, pooled_theirs, _ = ours.encode_prompt(
        ["a red dog", ""], None, None, device="cpu", do_classifier_free_guidance=False,
        max_sequence_length=3,
    )  # fmt: skip
    torch.testing.assert_close(states, theirs)  # trained on what the pipeline gives it
    torch.testing.assert_close(pooled, pooled_theirs)
