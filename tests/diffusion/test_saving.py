"""Weights that wait in main memory, and weights of 8 bits: diffusers' and torchao's own machinery,
with the CPU as the device that the weights are brought to."""

import accelerate
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from ml.diffusion import saving
from ml.diffusion.evidence import leave_one_out
from ml.diffusion.features import denoiser_features
from ml.diffusion.latents import encode_images
from ml.diffusion.loading import prepare_pipeline
from ml.diffusion.pipeline import device_of
from ml.diffusion.sampling import sample
from ml.diffusion.saving import offload, quantise, quantised_parts
from ml.grounding.pipeline import GroundedDiffusionPipeline
from tests.builders.tiny import settings, tiny_pipeline
from tests.builders.tiny_flow import tiny_flow
from tests.grounding.test_backbones import module_of

CPU = torch.device("cpu")
XL_PARTS = "vae text_encoder text_encoder_2 tokenizer tokenizer_2 unet scheduler".split()
CALL = {"steps": 3, "guidance_scale": 4.0}


@pytest.fixture(autouse=True)
def unnumbered(monkeypatch):
    """diffusers gives every device a number, which a CPU has not."""
    own = accelerate.cpu_offload
    monkeypatch.setattr(
        accelerate, "cpu_offload", lambda model, device, **more: own(model, CPU, **more)
    )


def made(name):
    if name == "u-net":
        return tiny_pipeline()
    pipe = tiny_flow(name)
    pipe.t5_tokens, pipe.distilled_guidance = 32, 4.0
    return pipe


def results(pipe):
    drawn = sample(pipe, ["a dog and a cat"], [1], words=[["dog"]], features=True, **CALL)
    features = denoiser_features(pipe, drawn.latents, ["a dog and a cat"], drawn.timestep)
    clean = encode_images(pipe, drawn.images)
    (contrast,) = leave_one_out(pipe, clean, ["a dog and a cat"], [["a cat"]], [300], [2], 2)
    return [torch.from_numpy(drawn.images), *drawn.daam, *features.values(), clean, contrast]


@pytest.mark.parametrize("name", ["u-net", "sd3-t5", "flux-dev"])
@pytest.mark.parametrize("how", ["model", "sequential"])
def test_offloading_changes_no_number(name, how):
    before = results(made(name))
    pipe = offload(made(name), how, CPU)
    if how == "sequential":  # the weights are not even there between two passes
        assert pipe.device.type == "meta"
    assert device_of(pipe).type == "cpu"
    for one, other in zip(before, results(pipe), strict=True):
        assert other.device.type == "cpu" and torch.equal(one, other)


@pytest.mark.parametrize("name", ["sd3-t5", "flux-dev"])
def test_the_denoiser_and_t5_are_never_here_together(name, monkeypatch):
    """By accelerate's own rule: a network comes when it is called and sends the one before it in
    the order of a drawing away. `plan` counts the largest network alone."""
    from accelerate.hooks import CpuOffload

    here, seen = set(), []

    def come(hook, module, *args, **kwargs):
        if hook.prev_module_hook is not None:
            here.discard(hook.prev_module_hook.model)
        here.add(module)
        seen.append(set(here))
        return args, kwargs

    monkeypatch.setattr(CpuOffload, "pre_forward", come)
    monkeypatch.setattr(
        CpuOffload, "init_hook", lambda hook, module: here.discard(module) or module
    )
    monkeypatch.setattr(saving, "is_away", lambda network: network not in here)
    pipe = offload(made(name), "model", CPU)
    t5 = pipe.text_encoder_3 if name == "sd3-t5" else pipe.text_encoder_2
    for _ in range(2):
        results(pipe)
    assert sum(t5 in own for own in seen) > 1 and any(pipe.transformer in own for own in seen)
    assert not any({t5, pipe.transformer} <= own for own in seen)


@pytest.mark.parametrize("given, index", [("cuda", 1), ("cuda:0", 0)])
def test_each_process_brings_the_weights_to_its_own_gpu(given, index, monkeypatch):
    """The second of two under accelerate's launcher, which has made the second GPU the current
    one; a GPU that the profile names stays."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    brought = []
    monkeypatch.setattr(
        accelerate, "cpu_offload", lambda model, device, **more: brought.append(device)
    )
    pipe = offload(made("u-net"), "model", torch.device(given))
    assert device_of(pipe) == torch.device("cuda", index)
    offload(made("u-net"), "sequential", torch.device(given))
    assert set(brought) == {torch.device("cuda", index)}


def test_a_module_beside_a_pipeline_that_waits(tmp_path):
    pipe = made("sd3")
    grounded = GroundedDiffusionPipeline(pipe, module_of(pipe, "seeded"), 2, 3, 4.0)
    call = {"entities": ["dog"], "seed": 1, "output_type": "np"}
    before = grounded("a dog", **call)
    later = offload(made("sd3"), "sequential", CPU)
    waiting = GroundedDiffusionPipeline(later, module_of(made("sd3"), "seeded"), 2, 3, 4.0)
    assert waiting.device.type == "cpu"
    after = waiting("a dog", **call)
    assert np.array_equal(before.images, after.images)
    assert np.array_equal(before.probabilities[0]["dog"], after.probabilities[0]["dog"])
    with pytest.raises(ValueError, match="no copy of them is written: name the model"):
        waiting.save_pretrained(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    waiting.save_pretrained(tmp_path / "folder", diffusion="some/model")


def test_a_vae_that_changes_its_dtype_is_not_brought_layer_by_layer():
    """That is SDXL's alone: its pipeline brings it to float32, those of the others do not."""
    pipe = tiny_pipeline().to(torch.float16)
    assert pipe.vae.config.force_upcast  # the class's default
    assert offload(pipe, "sequential", CPU) is pipe
    own = tiny_pipeline()
    parts = own.components | {"text_encoder_2": own.text_encoder, "tokenizer_2": own.tokenizer}
    parts = {name: parts[name] for name in XL_PARTS}
    large = StableDiffusionXLPipeline(**parts, add_watermarker=False).to(torch.float16)
    with pytest.raises(ValueError, match="sequential brings .* set diffusion.dtype to bfloat16"):
        offload(large, "sequential", CPU)


def test_a_cpu_keeps_its_weights():
    pipe = prepare_pipeline(tiny_pipeline(), settings(offload="model"))
    assert not hasattr(pipe.unet, "_hf_hook")


def test_without_torchao_the_setting_says_what_to_install(monkeypatch):
    monkeypatch.setattr(saving.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"diffusion.quantise: int8 needs torchao: .*\[quantise\]"):
        quantise(tiny_flow("flux-dev"), "int8")


@pytest.mark.parametrize("name, parts", [("sd3", 1), ("sd3-t5", 2), ("flux-dev", 2)])
def test_weights_of_8_bits(name, parts, tmp_path):
    pytest.importorskip("torchao")
    pipe, plain = made(name), made(name)
    assert len(quantised_parts(pipe)) == parts
    quantise(pipe, "int8")
    linear = pipe.transformer.transformer_blocks[0].attn.to_q
    own = plain.transformer.transformer_blocks[0].attn.to_q.weight
    assert linear.weight.qdata.dtype == torch.int8
    step = own.abs().amax(1, keepdim=True) / 127  # a scale a row
    assert ((linear.weight.dequantize() - own).abs() <= 0.51 * step).all()
    one, other = results(plain), results(pipe)
    far = (one[0].float() - other[0].float()).abs()
    assert 0 < far.mean() < 2  # other pixels, nearly the same picture
    for a, b in zip(one[1:], other[1:], strict=True):
        assert (a - b).norm() < 0.1 * a.norm()
    grounded = GroundedDiffusionPipeline(pipe, module_of(plain, "paper"), 2, 3, 4.0)
    with pytest.raises(ValueError, match="quantised or offloaded"):
        grounded.save_pretrained(tmp_path / "folder")
    plain.save_pretrained(tmp_path / "model")
    grounded.save_pretrained(tmp_path / "folder", diffusion=str(tmp_path / "model"))
    again = GroundedDiffusionPipeline.from_pretrained(tmp_path / "folder").pipe
    assert torch.equal(results(again)[0], other[0])


def test_weights_of_8_bits_wait_too():
    pytest.importorskip("torchao")
    one, other = made("flux-dev"), made("flux-dev")
    for pipe in (one, other):
        quantise(pipe, "int8")
    with pytest.raises(
        ValueError, match="sequential can't bring weights of 8 bits.*set it to model"
    ):
        offload(other, "sequential", CPU)
    offload(other, "model", CPU)
    for a, b in zip(results(one), results(other), strict=True):
        assert torch.equal(a, b)
