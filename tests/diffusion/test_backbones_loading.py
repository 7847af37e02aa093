"""Folders of diffusion transformers: what is loaded, and what is refused before anything is."""

import copy
import dataclasses
import json
import shutil
from functools import cache

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline, StableDiffusion3Pipeline

from ml.cli.planning.models import find_diffusion
from ml.diffusion.backbones.kinds import backbone_of_network, kind_of_pipe
from ml.diffusion.checkpoint import find_checkpoint
from ml.diffusion.configurations import are_whole, check_configs
from ml.diffusion.features import feature_channels
from ml.diffusion.flow_fields import FLUX_RULES, SD3_RULES
from ml.diffusion.loading import prepare_pipeline, text_encoders
from ml.diffusion.sampling import sample
from ml.pipeline.workspace import Workspace
from ml.settings.profile import load_params
from tests.builders.tiny import edit, load, settings, tiny_pipeline
from tests.builders.tiny_flow import KINDS, save_tiny_flow, shrunk, tiny_flow

FLOW = {"scheduler": "FlowMatchEulerDiscreteScheduler", "steps": 4, "guidance_scale": 4.0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("flow")
    return {name: save_tiny_flow(root / name, name) for name in KINDS}


@pytest.fixture
def copied(folders, tmp_path):
    def copy_of(name):
        return shutil.copytree(folders[name], tmp_path / name)

    return copy_of


@pytest.mark.parametrize("name", ["sd3", "sd3-t5", "flux-dev"])
def test_a_saved_folder_draws_as_plain_diffusers(folders, name):
    kind = {"s": StableDiffusion3Pipeline, "f": FluxPipeline}[name[0]]
    pipe = shrunk(load(folders[name], **FLOW, t5_tokens=32, dtype="float32"))
    assert type(pipe) is kind and not pipe.transformer.training
    assert len(text_encoders(pipe)) == (3 if name == "sd3-t5" else 2)
    assert not any(p.requires_grad for p in pipe.transformer.parameters())
    absent = {"text_encoder_3": None, "tokenizer_3": None} if name == "sd3" else {}
    plain = shrunk(kind.from_pretrained(folders[name], **absent))
    plain.set_progress_bar_config(disable=True)
    picture = plain(
        prompt="a dog and a cat",
        num_inference_steps=4,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
        max_sequence_length=32,
    ).images[0]
    made = sample(pipe, ["a dog and a cat"], [5], steps=4, guidance_scale=4.0)
    assert np.abs((picture * 255).round() - made.images[0]).max() <= 1
    if name.startswith("flux"):
        assert pipe.distilled_guidance == 4.0


def test_t5_is_absent_as_the_index_says(copied):
    folder = copied("sd3")
    index = json.loads((folder / "model_index.json").read_text())
    assert index["text_encoder_3"] == [None, None] and not (folder / "text_encoder_3").exists()
    assert are_whole(folder) and find_checkpoint(str(folder)) == folder
    edit(folder / "model_index.json", text_encoder_3=["transformers", "T5EncoderModel"])
    with pytest.raises(ValueError, match="text_encoder_3"):
        find_checkpoint(str(folder))


@pytest.mark.parametrize(
    "name, part, wrong",
    [
        ("sd3", "transformer", ["diffusers", "FluxTransformer2DModel"]),
        ("sd3", "text_encoder", ["transformers", "CLIPTextModel"]),
        ("sd3-t5", "text_encoder_3", ["transformers", "UMT5EncoderModel"]),
        ("flux-dev", "text_encoder_2", ["transformers", "CLIPTextModelWithProjection"]),
        ("flux-dev", "vae", ["diffusers", "AutoencoderTiny"]),
    ],
)
def test_a_part_of_another_class(copied, name, part, wrong):
    folder = copied(name)
    edit(folder / "model_index.json", **{part: wrong})
    with pytest.raises(ValueError, match=f"{part} is of class '{wrong[1]}': expected"):
        find_checkpoint(str(folder))


@pytest.mark.parametrize(
    "name", ["FluxFillPipeline", "FluxControlPipeline", "StableDiffusion3InpaintPipeline"]
)
def test_pipelines_that_want_a_picture_too(copied, name):
    folder = copied("flux-dev")
    edit(folder / "model_index.json", _class_name=name)
    with pytest.raises(ValueError, match=f"of class '{name}': expected one of .*FluxPipeline"):
        find_checkpoint(str(folder))


@cache
def configs(name):
    pipe = tiny_flow(name)
    kind = kind_of_pipe(pipe)
    parts = {part: getattr(pipe, part) for part in kind.networks}
    found = {
        part: dict(network.config) if part in ("transformer", "vae") else network.config.to_dict()
        for part, network in parts.items()
        if network is not None
    }
    scheduler = dict(pipe.scheduler.config) | {"_class_name": type(pipe.scheduler).__name__}
    return found | {"scheduler": scheduler}, type(pipe).__name__


@pytest.mark.parametrize(
    "name, part, field, value, why",
    [
        ("sd3", "transformer", "in_channels", 9, "inpainting"),
        ("sd3", "transformer", "out_channels", 8, "velocity"),
        ("sd3", "transformer", "sample_size", 15, "multiple of patch_size"),
        ("sd3", "transformer", "sample_size", None, "multiple of patch_size"),
        ("sd3", "transformer", "pooled_projection_dim", 16, "projection_dim of text_encoder"),
        ("sd3-t5", "transformer", "joint_attention_dim", 64, "width of T5"),
        ("sd3", "transformer", "joint_attention_dim", 32, "at least that of both CLIP"),
        ("sd3", "vae", "shift_factor", None, "a number: .*shift latents by it"),
        ("sd3", "vae", "scaling_factor", 0, "above 0"),
        ("sd3", "vae", "latents_mean", [0.1] * 4, "scaling_factor alone"),
        ("sd3", "vae", "in_channels", 4, "RGB"),
        ("sd3", "text_encoder", "model_type", "siglip_text_model", "read as CLIP's"),
        ("sd3", "text_encoder_2", "model_type", "t5", "read as CLIP's"),
        ("sd3-t5", "text_encoder_3", "model_type", "umt5", "read as T5's"),
        ("sd3", "scheduler", "shift", None, "a number above 0"),
        ("sd3", "scheduler", "num_train_timesteps", 100, "1000"),
        ("sd3", "scheduler", "invert_sigmas", True, "to no noise"),
        ("sd3", "scheduler", "stochastic_sampling", True, "neighbours"),
        ("flux-dev", "transformer", "in_channels", 96, "Fill"),
        ("flux-dev", "transformer", "out_channels", 32, "velocity"),
        ("flux-dev", "transformer", "patch_size", 2, "packed two by two"),
        ("flux-dev", "transformer", "pooled_projection_dim", 8, "hidden_size of text_encoder"),
        ("flux-dev", "transformer", "joint_attention_dim", 8, "width of T5"),
        ("flux-dev", "vae", "shift_factor", None, "shift latents by it"),
        ("flux-schnell", "text_encoder_2", "model_type", "clip_text_model", "read as T5's"),
        ("flux-schnell", "scheduler", "shift", 0, "above 0"),
    ],
)
def test_what_a_configuration_may_not_say(name, part, field, value, why):
    given, kind = configs(name)
    check_configs(given, kind)
    changed = copy.deepcopy(given)
    changed[part][field] = value
    with pytest.raises(ValueError, match=f"{field} is .*expected.*{why}|{why}"):
        check_configs(changed, kind)


@pytest.mark.parametrize("name", ["sd3", "flux-dev"])
def test_unknown_fields_switches_and_other_schedulers(name):
    given, kind = configs(name)
    for part in ("transformer", "vae"):
        changed = copy.deepcopy(given)
        changed[part]["guidance_tokens"] = 4
        with pytest.raises(ValueError, match=f"{part}/config.json has .*guidance_tokens.*not know"):
            check_configs(changed, kind)
    changed = copy.deepcopy(given)
    changed["vae"]["use_quant_conv"] = "no"
    with pytest.raises(ValueError, match="use_quant_conv is 'no': expected true or false"):
        check_configs(changed, kind)
    for scheduler in (
        {"_class_name": "DDIMScheduler", "beta_schedule": "linear", "num_train_timesteps": 1000},
        {"_class_name": "MyScheduler"},
        {k: v for k, v in given["scheduler"].items() if k != "shift"},
    ):
        with pytest.raises(ValueError, match="scheduler_config.json"):
            check_configs(given | {"scheduler": scheduler}, kind)


@pytest.mark.parametrize("rules, name", [(SD3_RULES, "sd3-t5"), (FLUX_RULES, "flux-dev")])
def test_every_rule_is_met_by_a_real_field(rules, name):
    given, _ = configs(name)
    for rule in rules:
        assert rule.field in given[rule.part], rule


@pytest.mark.parametrize("part", ["transformer", "text_encoder_2"])
def test_damaged_weights(copied, part):
    folder = copied("flux-schnell")
    (file,) = (folder / part).glob("*.safetensors")
    whole = file.read_bytes()
    for left in (whole[: len(whole) // 2], b""):
        file.write_bytes(left)
        with pytest.raises(ValueError, match=f"{part}.*safetensors"):
            load(folder, **FLOW)
    file.unlink()
    with pytest.raises(ValueError, match=f"{part}"):
        load(folder, **FLOW)


def test_weights_of_another_shape_and_numbers_that_are_not_finite(copied):
    folder = copied("sd3")
    edit(folder / "transformer/config.json", num_layers=6)
    with pytest.raises(ValueError, match="transformer"):
        load(folder, **FLOW)
    broken = tiny_flow("sd3")
    broken.transformer.proj_out.weight.data[0, 0] = float("nan")
    broken.save_pretrained(folder, safe_serialization=True)
    with pytest.raises(ValueError, match="proj_out.weight has NaN"):
        load(folder, **FLOW)


def test_a_tokenizer_that_is_missing_or_too_large(copied):
    folder = copied("flux-dev")
    config = folder / "text_encoder_2/config.json"
    t5 = tiny_flow("flux-dev")
    t5.tokenizer_2.add_tokens(["zebra"])
    t5.tokenizer_2.save_pretrained(folder / "tokenizer_2")
    with pytest.raises(ValueError, match="tokenizer_2 has .* tokens, text_encoder_2 embeddings of"):
        load(folder, **FLOW)
    assert json.loads(config.read_text())["model_type"] == "t5"
    shutil.rmtree(folder / "tokenizer_2")
    with pytest.raises(ValueError, match="tokenizer_2 is missing"):
        load(folder, **FLOW)


def test_a_scheduler_of_a_u_net_is_refused_and_the_other_way_round(folders, tiny_model):
    with pytest.raises(ValueError, match="DDIMScheduler adds noise as Stable Diffusion 1, 2 and"):
        load(folders["sd3"], scheduler="DDIMScheduler")
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler"):
        load(tiny_model, **FLOW)


@pytest.mark.parametrize(
    "name, setting, said",
    [
        ("sd3", {"attention_slicing": True}, "attention_slicing: expected false.*transformer"),
        ("flux-dev", {"attention_slicing": True}, "attention_slicing: expected false.*transformer"),
        ("u-net", {"t5_tokens": 32}, "t5_tokens: expected null.*have no T5, got 32"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(folders, tiny_model, name, setting, said):
    """By loading, of a pipeline that somebody else loaded, and by plan."""
    folder, asked = (tiny_model, {}) if name == "u-net" else (folders[name], FLOW)
    pipe = tiny_pipeline() if name == "u-net" else tiny_flow(name)
    changes = settings(folder, **asked, **setting)
    params = dataclasses.replace(load_params(), diffusion=changes)
    for refuse in (
        lambda: load(folder, **asked, **setting),
        lambda: prepare_pipeline(pipe, changes),
        lambda: find_diffusion(params, Workspace(folder.parent, "micro")),
    ):
        with pytest.raises(ValueError, match=f"diffusion.{said}"):
            refuse()


def test_a_denoiser_that_nobody_knows():
    with pytest.raises(ValueError, match="expected the denoiser of .*got Linear"):
        backbone_of_network(torch.nn.Linear(1, 1))
    pipe = tiny_flow("flux-dev")
    assert feature_channels(pipe.transformer) == {64: 4 * 32}  # FLUX's own 1024 pixels
    assert feature_channels(tiny_flow("sd3").transformer) == {8: 2 * 4 * 32}


def test_weights_in_several_files(tmp_path):
    """As the published transformers and T5 come."""
    own = tiny_flow("flux-schnell")
    own.save_pretrained(tmp_path / "model", safe_serialization=True, max_shard_size="100KB")
    shards = sorted((tmp_path / "model/transformer").glob("*.safetensors"))
    assert len(shards) > 1
    pipe = load(tmp_path / "model", **FLOW, dtype="float32")
    for name, value in own.transformer.state_dict().items():
        assert torch.equal(pipe.transformer.state_dict()[name], value)
    shards[-1].unlink()
    with pytest.raises(ValueError, match=f"{shards[-1].name} is missing, though its index lists"):
        load(tmp_path / "model", **FLOW)
