"""Configurations that people bring: every field is honoured or refused, before weights are read."""

import copy
import dataclasses
import shutil

import pytest
import torch

from benchmarks.random_weights import SHAPES, random_pipeline
from ml.cli.planning.models import find_diffusion
from ml.diffusion.configurations import check_configs, check_folder
from ml.diffusion.fields import UNET_RULES as RULES
from ml.diffusion.loading import read_pipeline
from ml.pipeline.workspace import Workspace
from ml.segmenters.backbones import normalisation
from ml.settings.profile import ROOT, load_params
from tests.builders.tiny import edit, load, settings, tiny_pipeline

MICRO = ROOT / "data/foundation/micro"


CONFIGS = {
    "unet": dict(tiny_pipeline().unet.config),
    "vae": dict(tiny_pipeline().vae.config),
    "text_encoder": {"hidden_size": 16},
    "scheduler": dict(tiny_pipeline().scheduler.config) | {"_class_name": "DDIMScheduler"},
}


@pytest.mark.parametrize(
    "part, field, value, why",
    [
        ("unet", "sample_size", [16, 24], "square"),
        ("unet", "sample_size", None, "a side in latent pixels"),
        ("unet", "in_channels", 9, "inpainting"),
        ("unet", "in_channels", 5, "depth"),
        ("unet", "out_channels", 12, "variance"),
        ("unet", "time_cond_proj_dim", 256, "LCM"),
        ("unet", "class_embed_type", "timestep", "no class label"),
        ("unet", "num_class_embeds", 10, "no class label"),
        ("unet", "encoder_hid_dim_type", "ip_image_proj", "IP-Adapter"),
        ("unet", "encoder_hid_dim", 32, "text encoders' output"),
        ("unet", "addition_embed_type", "text", "text_time for SDXL, null otherwise"),
        ("unet", "addition_embed_type", "text_time", "text_time for SDXL, null otherwise"),
        ("unet", "cross_attention_dim", 32, "width of the text encoders"),
        ("unet", "attention_type", "gated", "GLIGEN"),
        ("unet", "dual_cross_attention", True, "one text"),
        ("unet", "only_cross_attention", [False, True, True], "the picture itself"),
        ("unet", "cross_attention_norm", "layer_norm", "heat maps"),
        ("unet", "down_block_types", ["SimpleCrossAttnDownBlock2D"] * 3, "features are taken"),
        ("unet", "up_block_types", ["K_UpBlock2D"] * 3, "features are taken"),
        ("unet", "mid_block_type", "UNetMidBlock2DSimpleCrossAttn", "UNetMidBlock2DCrossAttn"),
        ("vae", "latent_channels", 16, "VAE's latent_channels"),
        ("vae", "shift_factor", 0.1159, "scaled, not shifted"),
        ("vae", "latents_mean", [0.1] * 6, "scaling_factor alone"),
        ("vae", "latents_std", [0.9] * 6, "scaling_factor alone"),
        ("vae", "scaling_factor", 0, "above 0"),
        ("vae", "in_channels", 4, "RGB"),
        ("vae", "out_channels", 1, "RGB"),
        ("scheduler", "num_train_timesteps", 100, "1000"),
        ("scheduler", "prediction_type", "flow_prediction", "epsilon"),
        ("scheduler", "thresholding", True, "for pixels"),
        ("scheduler", "_class_name", "EDMEulerScheduler", "make one up"),
        ("scheduler", "_class_name", "FlowMatchEulerDiscreteScheduler", "make one up"),
        ("scheduler", "_class_name", "MyScheduler", "make one up"),
    ],
)
def test_what_a_configuration_may_not_say(part, field, value, why):
    check_configs(CONFIGS, "StableDiffusionPipeline")
    given = copy.deepcopy(CONFIGS)
    given[part][field] = value
    if field == "_class_name":
        given[part] = {field: value}
    with pytest.raises(ValueError, match=why) as caught:
        check_configs(given, "StableDiffusionPipeline")
    assert part in str(caught.value) or part == "vae" and "latent" in str(caught.value)


def test_every_rule_is_met_by_a_real_field_and_unknown_ones_are_refused():
    left_out = {
        ("scheduler", "thresholding"),
        ("text_encoder", "model_type"),
        ("text_encoder_2", "model_type"),
    }  # as from_pretrained reads them
    for part, name in {(rule.part, rule.field) for rule in RULES} - left_out:
        assert name in CONFIGS[part], (part, name)
    for part in ("unet", "vae"):
        given = copy.deepcopy(CONFIGS)
        given[part]["guidance_tokens"] = 4
        with pytest.raises(ValueError, match=f"{part}/config.json has .*guidance_tokens.*not know"):
            check_configs(given, "StableDiffusionPipeline")
        given[part]["guidance_tokens"] = None  # newer than this diffusers, and not used
        check_configs(given, "StableDiffusionPipeline")


def test_a_text_encoder_with_the_configuration_of_all_of_clip():
    given = copy.deepcopy(CONFIGS)
    given["text_encoder"] = {"hidden_size": 512, "text_config": {"hidden_size": 16}}
    check_configs(given, "StableDiffusionPipeline")


def test_zero_terminal_snr_needs_another_prediction_than_the_noise():
    for prediction in ("v_prediction", "epsilon"):
        given = copy.deepcopy(CONFIGS)
        given["scheduler"] |= {"rescale_betas_zero_snr": True, "prediction_type": prediction}
        if prediction == "v_prediction":
            check_configs(given, "StableDiffusionPipeline")
            continue
        with pytest.raises(ValueError, match="rescale_betas_zero_snr is True.*epsilon"):
            check_configs(given, "StableDiffusionPipeline")


def test_the_refiner_is_no_model_of_its_own(tmp_path):
    random_pipeline("tiny-xl").save_pretrained(tmp_path / "xl", safe_serialization=True)
    check_folder(tmp_path / "xl")
    edit(tmp_path / "xl" / "unet" / "config.json", projection_class_embeddings_input_dim=7)
    with pytest.raises(ValueError, match="projection_class_embeddings_input_dim is 7.*refiner"):
        check_folder(tmp_path / "xl")


@pytest.mark.parametrize(
    "part, kind",
    [
        ("vae", "AutoencoderTiny"),
        ("unet", "UNet3DConditionModel"),
        ("text_encoder", "T5Encoder"),
        ("text_encoder", None),
    ],
)
def test_parts_of_other_classes(tiny_copy, part, kind):
    edit(tiny_copy / "model_index.json", **{part: [kind and "diffusers", kind]})
    with pytest.raises(ValueError, match=f"{part} is of class {kind!r}: expected"):
        check_folder(tiny_copy)


@pytest.mark.parametrize("name", SHAPES)
def test_the_models_of_the_shipped_profiles_are_followed(name):
    shape = SHAPES[name]
    texts = dict(zip(("text_encoder", "text_encoder_2"), shape.texts, strict=False))
    scheduler = CONFIGS["scheduler"] | {"_class_name": "PNDMScheduler", "skip_prk_steps": True}
    kind = "StableDiffusionXLPipeline" if len(texts) == 2 else "StableDiffusionPipeline"
    check_configs({"unet": shape.unet, "vae": shape.vae, "scheduler": scheduler} | texts, kind)


def test_the_shipped_model_is_followed():
    check_folder(MICRO / "diffusion")
    read_pipeline(MICRO / "diffusion", None, torch.float32)


def test_loading_and_plan_refuse_before_weights_are_read(tiny_copy, tmp_path):
    for file in tiny_copy.rglob("*.safetensors"):
        file.touch()
    edit(tiny_copy / "unet" / "config.json", time_cond_proj_dim=256)
    params = dataclasses.replace(load_params(), diffusion=settings(tiny_copy))
    for refuse in (
        lambda: load(tiny_copy),
        lambda: find_diffusion(params, Workspace(tmp_path, "micro")),
    ):
        with pytest.raises(ValueError, match="time_cond_proj_dim is 256: expected null.*LCM"):
            refuse()
    params = dataclasses.replace(
        params, diffusion=settings(MICRO / "diffusion", scheduler="EDMEulerScheduler")
    )
    with pytest.raises(ValueError, match="expected one of .*DDIMScheduler.*EDMEulerScheduler"):
        find_diffusion(params, Workspace(tmp_path, "micro"))


# --- what a backbone's preprocessor says


def test_a_backbones_preprocessor_is_followed_for_pixels_in_0_to_1():
    usual = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    same = {"pixel_mean": usual["image_mean"], "pixel_std": usual["image_std"]}
    assert normalisation(usual, "x") == same
    assert normalisation(usual | {"rescale_factor": 0.00392156862745098}, "x") == same
    assert normalisation({}, "x") == {"pixel_mean": None, "pixel_std": None}
    assert normalisation(usual | {"do_normalize": False}, "x")["pixel_mean"] is None
    byte = torch.arange(256.0)
    for said, theirs in [
        (usual | {"do_rescale": False}, (byte - 0.5) / 0.2),
        (usual | {"rescale_factor": 1 / 127.5}, (byte / 127.5 - 0.5) / 0.2),
        ({"do_normalize": False, "do_rescale": False}, byte),
    ]:
        found = normalisation(said, "x")
        ours = (byte / 255 - found["pixel_mean"][0]) / found["pixel_std"][0]
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    "said, why",
    [
        ({"do_flip_channel_order": True}, "takes RGB"),
        ({"image_mean": [0.5], "image_std": [0.5]}, "three numbers"),
        ({"image_mean": [0.5] * 3}, "three numbers"),
        ({"image_mean": [0.5] * 3, "image_std": [0.0] * 3}, "above 0"),
    ],
)
def test_a_preprocessor_that_is_not_followed_is_refused(said, why):
    with pytest.raises(ValueError, match=f"x: its preprocessor_config.json.*{why}"):
        normalisation(said, "x")


# --- a detector's configuration


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"colour": "bgr"}, "expected an object with classes and fields of"),
        ({"classes": None}, "expected an object with classes"),
        ({"mean": [0.5]}, "mean: expected 3 numbers, got"),
        ({"std": [1.0, 0.0, 1.0]}, "std: expected 3 numbers above 0"),
        ({"image_size": [256, 128]}, "image_size: expected the shorter side"),
        ({"anchor_sizes": [8, 16]}, "anchor_sizes: expected 4 numbers"),
    ],
)
def test_a_detectors_configuration_is_honoured_or_refused(tmp_path, changes, why):
    from ml.detectors import load_detector

    shutil.copytree(MICRO / "detector", tmp_path / "detector")
    edit(tmp_path / "detector" / "config.json", **changes)
    with pytest.raises(ValueError, match=f"detector/config.json.*{why}"):
        load_detector("torchvision", tmp_path / "detector", device="cpu")


def test_mask2former_is_squeezed_to_what_its_preprocessor_says():
    from types import SimpleNamespace

    from ml.detectors.transformers_mask2former import input_size

    for size, expected in [
        ({"height": 96, "width": 128}, (96, 128)),
        ({"shortest_edge": 64, "longest_edge": 1333}, (64, 64)),
    ]:
        found = input_size("x", SimpleNamespace(size=size, do_resize=True))
        assert (found["height"], found["width"]) == expected
    for size, resize in [({"longest_edge": 1333}, True), ({"height": 96, "width": 96}, False)]:
        with pytest.raises(ValueError, match="expected true, and height and width"):
            input_size("x", SimpleNamespace(size=size, do_resize=resize))
