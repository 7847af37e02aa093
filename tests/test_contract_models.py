"""Checkpoints that people bring: every weight accounted for, every field of a configuration
honoured or refused, finite numbers from the first batch on."""

import copy
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DPMSolverMultistepScheduler
from safetensors.torch import load_file, save_file
from transformers import ResNetConfig, ResNetForImageClassification

from benchmarks.random_weights import SHAPES, random_pipeline
from ml.contract import account, check_loss, load_whole
from ml.detectors.base import Detector
from ml.diffusion.evidence import encode_images, leave_one_out, prediction_errors, signal_shares
from ml.diffusion.features import unet_features
from ml.diffusion.fields import RULES, check_configs, check_folder
from ml.diffusion.inversion import invert
from ml.diffusion.loading import load_pipeline, read_pipeline
from ml.diffusion.sampling import sample
from ml.diffusion.schedulers import SCHEDULERS, check_name, check_scheduler, swapped
from ml.diffusion.tokens import text_length
from ml.errors import NotFinite
from ml.files import sha256_folder
from ml.gradients import backward_in_parts
from ml.grounding.config import make_config
from ml.grounding.features import FeatureSource
from ml.grounding.module import GroundingModule
from ml.grounding.samples import Pictures, Sample
from ml.params import ROOT, load_params
from ml.plan_models import find_diffusion
from ml.segmenters import load_segmenter, maskformer, segformer
from ml.segmenters.backbones import load_backbone, normalisation
from ml.stages import Workspace
from tests.tiny import LENGTH, save_tiny_pipeline, tiny_pipeline

MICRO = ROOT / "data/foundation/micro"
ONE = "a photograph of a bus"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_tiny_pipeline(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "model"))


def settings(folder, **changes):
    changes = {"model": str(folder), "device": "cpu"} | changes
    return dataclasses.replace(load_params().diffusion, **changes)


def load(folder, **changes):
    return load_pipeline(settings(folder, **changes), Workspace(Path(folder).parent, "micro"))


def edit(file: Path, **changes) -> None:
    """Changes fields of a JSON file; None takes one out."""
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def spoil(folder: Path, what: str) -> None:
    """One weight of the only safetensors file of a folder, lost, renamed, cut, added or NaN."""
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    name = sorted(n for n in tensors if n.endswith("weight") and "classifier" not in n)[0]
    if what in ("missing", "lora"):
        value = tensors.pop(name)
        if what == "lora":
            tensors[name.replace("weight", "base_layer.weight")] = value
    elif what == "shape":
        tensors[name] = torch.zeros(7, 5)
    elif what == "unknown":
        tensors["some.other.weight"] = torch.zeros(2)
    else:
        tensors[name] = torch.full_like(tensors[name], torch.nan)
    save_file(tensors, file, metadata={"format": "pt"})


SPOILT = {"missing": "1 of its weights are missing", "shape": "1 have another shape",
          "unknown": r"1 are unknown \(some.other.weight\)", "lora": "LoRA.*fuse_lora",
          "nan": "has NaN or infinite numbers"}


# --- weights, in every part of every kind of model

@pytest.mark.parametrize("what", SPOILT)
@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_pipeline_of_which_a_part_has_other_weights(folder, part, what):
    spoil(folder / part, what)
    with pytest.raises(ValueError, match=f"{part}: .*{SPOILT[what]}"):
        load(folder)


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2"])
def test_both_text_encoders_of_sdxl(tmp_path, part):
    random_pipeline("tiny-xl").save_pretrained(tmp_path / "xl", safe_serialization=True)
    assert load(tmp_path / "xl").text_encoder_2 is not None
    spoil(tmp_path / "xl" / part, "lora")
    with pytest.raises(ValueError, match=f"{part}: .*LoRA"):
        load(tmp_path / "xl")


def test_the_names_of_published_files_are_no_other_weights(folder):
    """SD 1.5's text encoder has a prefix and a counted buffer that today's class has not."""
    (file,) = (folder / "text_encoder").glob("*.safetensors")
    tensors = {f"text_model.{name.removeprefix('text_model.')}": value
               for name, value in load_file(file).items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(LENGTH)[None]
    save_file(tensors, file, metadata={"format": "pt"})
    loaded = load(folder).text_encoder.state_dict()
    for name, value in tiny_pipeline().text_encoder.state_dict().items():
        assert torch.equal(loaded[name], value)


def test_the_names_of_an_old_vae_are_no_other_weights(tmp_path):
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    vae.save_pretrained(tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(file)
    for new, name in old.items():
        tensors = {key.replace(f".{new}.", f".{name}."): v for key, v in tensors.items()}
    assert any("proj_attn" in name for name in tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    loaded = load_whole(AutoencoderKL, "old", str(tmp_path)).state_dict()
    for name, value in vae.state_dict().items():
        assert torch.equal(loaded[name], value)


@pytest.mark.parametrize("what", SPOILT)
@pytest.mark.parametrize("kind", ["detector", "backbone", "segmenter", "grounding"])
def test_every_other_model(tmp_path, kind, what):
    folder = tmp_path / kind
    if kind == "detector":
        from ml.detectors import load_detector
        shutil.copytree(MICRO / "detector", folder)
        read = lambda: load_detector("torchvision", folder, device="cpu")  # noqa: E731
    elif kind == "backbone":
        shutil.copytree(MICRO / "backbone", folder)
        read = lambda: load_backbone(folder, None, maskformer.BODIES)  # noqa: E731
    elif kind == "segmenter":
        maskformer.build(MICRO / "backbone", ["background", "dog"], load_params().segmenter
                         ).save_pretrained(folder)
        read = lambda: load_segmenter(folder)  # noqa: E731
    else:
        params = dataclasses.replace(load_params().grounding, width=32, layers=1, heads=2)
        GroundingModule(make_config(params, {4: 16, 8: 8, 16: 8}, 16, 64, 60)
                        ).save_pretrained(folder)
        read = lambda: GroundingModule.from_pretrained(folder)  # noqa: E731
    read()
    spoil(folder, what)
    with pytest.raises(ValueError, match=SPOILT[what]):
        read()


def test_what_is_counted_or_computed_may_be_there_or_not():
    names = ["a.num_batches_tracked", "embeddings.position_ids", "criterion.empty_weight",
             "attention.relative_position_index"]
    account("x", names, names, [])
    with pytest.raises(ValueError, match="x: .*1 of its weights are missing .a.running_mean"):
        account("x", ["a.running_mean"], [], [])


def test_a_detector_whose_scores_are_not_finite():
    class Broken(Detector):
        def predict(self, images):
            return [(np.ones((1, 4, 4), bool), [np.nan], ["dog"], np.zeros((1, 4)))]

    with pytest.raises(NotFinite, match="Broken: expected finite scores"):
        Broken(["dog"], score_threshold=0.5, batch_size=1).detect([np.zeros((4, 4, 3), np.uint8)])


@pytest.mark.parametrize("name", ["ml.vocabulary", "ml.diffusion.schedulers", "ml.plan_models"])
def test_settings_are_checked_without_the_seconds_of_an_import(name):
    code = f"import sys, {name}; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def small_classifier(folder: Path, labels: int) -> None:
    ResNetForImageClassification(ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], layer_type="basic",
        num_labels=labels)).save_pretrained(folder)


def test_only_the_classifiers_head_may_be_anything(tmp_path):
    small_classifier(tmp_path, 5)
    (file,) = tmp_path.glob("*.safetensors")
    tensors = load_file(file)
    for head in (torch.zeros(9, 8), None):
        own = {n: v for n, v in tensors.items() if not n.startswith("classifier")}
        if head is not None:
            own |= {"classifier.1.weight": head, "classifier.1.bias": head[:, 0].contiguous()}
        save_file(own, file, metadata={"format": "pt"})
        model, _ = load_backbone(tmp_path, None, ["ResNetForImageClassification"])
        body = model.resnet.state_dict()
        assert all(torch.equal(body[n.removeprefix("resnet.")], v) for n, v in tensors.items()
                   if n.startswith("resnet."))


# --- files that there need not be

def test_a_model_that_names_a_feature_extractor_it_does_not_have(folder):
    edit(folder / "model_index.json", feature_extractor=["transformers", "CLIPImageProcessor"],
         safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
         image_encoder=["transformers", "CLIPVisionModelWithProjection"])
    pipe = load(folder)
    assert pipe.feature_extractor is None and pipe.safety_checker is None
    assert sample(pipe, [ONE], [0], steps=2, guidance_scale=3.0).images.shape == (1, 64, 64, 3)


def test_a_tokenizer_that_does_not_know_its_length(folder):
    edit(folder / "tokenizer" / "tokenizer_config.json", model_max_length=None)
    pipe = load(folder)
    assert text_length(pipe) == LENGTH
    ours = sample(pipe, [ONE], [0], steps=2, guidance_scale=3.0, words=[["bus"]])
    theirs = sample(load(save_tiny_pipeline(folder.parent / "whole")), [ONE], [0], steps=2,
                    guidance_scale=3.0, words=[["bus"]])
    assert np.array_equal(ours.images, theirs.images)
    assert torch.equal(ours.daam[0], theirs.daam[0])


def test_a_tokenizer_with_more_tokens_than_embeddings(folder):
    pipe = tiny_pipeline()
    pipe.tokenizer.add_tokens(["<my-cat>"])
    pipe.tokenizer.save_pretrained(folder / "tokenizer")
    with pytest.raises(ValueError, match="tokenizer has .* tokens, text_encoder embeddings of"):
        load(folder)


# --- configurations

CONFIGS = {"unet": dict(tiny_pipeline().unet.config), "vae": dict(tiny_pipeline().vae.config),
           "text_encoder": {"hidden_size": 16},
           "scheduler": dict(tiny_pipeline().scheduler.config) | {"_class_name": "DDIMScheduler"}}


@pytest.mark.parametrize("part, field, value, why", [
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
])
def test_what_a_configuration_may_not_say(part, field, value, why):
    check_configs(CONFIGS, xl=False)
    given = copy.deepcopy(CONFIGS)
    given[part][field] = value
    if field == "_class_name":
        given[part] = {field: value}
    with pytest.raises(ValueError, match=why) as caught:
        check_configs(given, xl=False)
    assert part in str(caught.value) or part == "vae" and "latent" in str(caught.value)


def test_every_rule_is_met_by_a_real_field_and_unknown_ones_are_refused():
    for part, name in {(rule.part, rule.field) for rule in RULES} - {("scheduler", "thresholding")}:
        assert name in CONFIGS[part], (part, name)
    for part in ("unet", "vae"):
        given = copy.deepcopy(CONFIGS)
        given[part]["guidance_tokens"] = 4
        with pytest.raises(ValueError, match=f"{part}/config.json has .*guidance_tokens.*not know"):
            check_configs(given, xl=False)
        given[part]["guidance_tokens"] = None  # newer than this diffusers, and not used
        check_configs(given, xl=False)


def test_a_text_encoder_with_the_configuration_of_all_of_clip():
    given = copy.deepcopy(CONFIGS)
    given["text_encoder"] = {"hidden_size": 512, "text_config": {"hidden_size": 16}}
    check_configs(given, xl=False)


def test_zero_terminal_snr_needs_another_prediction_than_the_noise():
    for prediction in ("v_prediction", "epsilon"):
        given = copy.deepcopy(CONFIGS)
        given["scheduler"] |= {"rescale_betas_zero_snr": True, "prediction_type": prediction}
        if prediction == "v_prediction":
            check_configs(given, xl=False)
            continue
        with pytest.raises(ValueError, match="rescale_betas_zero_snr is True.*epsilon"):
            check_configs(given, xl=False)


def test_the_refiner_is_no_model_of_its_own(tmp_path):
    random_pipeline("tiny-xl").save_pretrained(tmp_path / "xl", safe_serialization=True)
    check_folder(tmp_path / "xl")
    edit(tmp_path / "xl" / "unet" / "config.json", projection_class_embeddings_input_dim=7)
    with pytest.raises(ValueError, match="projection_class_embeddings_input_dim is 7.*refiner"):
        check_folder(tmp_path / "xl")


@pytest.mark.parametrize("part, kind", [
    ("vae", "AutoencoderTiny"), ("unet", "UNet3DConditionModel"), ("text_encoder", "T5Encoder"),
    ("text_encoder", None),
])
def test_parts_of_other_classes(folder, part, kind):
    edit(folder / "model_index.json", **{part: [kind and "diffusers", kind]})
    with pytest.raises(ValueError, match=f"{part} is of class {kind!r}: expected"):
        check_folder(folder)


@pytest.mark.parametrize("name", SHAPES)
def test_the_models_of_the_shipped_profiles_are_followed(name):
    shape = SHAPES[name]
    texts = dict(zip(("text_encoder", "text_encoder_2"), shape.texts, strict=False))
    scheduler = CONFIGS["scheduler"] | {"_class_name": "PNDMScheduler", "skip_prk_steps": True}
    check_configs({"unet": shape.unet, "vae": shape.vae, "scheduler": scheduler} | texts,
                  xl=len(texts) == 2)


def test_the_shipped_model_is_followed():
    check_folder(MICRO / "diffusion")
    read_pipeline(MICRO / "diffusion", None, torch.float32)


def test_loading_and_plan_refuse_before_weights_are_read(folder, tmp_path):
    for file in folder.rglob("*.safetensors"):
        file.touch()
    edit(folder / "unet" / "config.json", time_cond_proj_dim=256)
    params = dataclasses.replace(load_params(), diffusion=settings(folder))
    for refuse in (lambda: load(folder),
                   lambda: find_diffusion(params, Workspace(tmp_path, "micro"))):
        with pytest.raises(ValueError, match="time_cond_proj_dim is 256: expected null.*LCM"):
            refuse()
    params = dataclasses.replace(params, diffusion=settings(
        MICRO / "diffusion", scheduler="EDMEulerScheduler"))
    with pytest.raises(ValueError, match="expected one of .*DDIMScheduler.*EDMEulerScheduler"):
        find_diffusion(params, Workspace(tmp_path, "micro"))


# --- schedulers: an exact answer is known for latents of a normal distribution

MEAN, SPREAD = 1.5, 0.6
STOCHASTIC = {"DDPMScheduler", "EulerAncestralDiscreteScheduler",
              "KDPM2AncestralDiscreteScheduler"}


def base(**changes):
    usual = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
             "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
    return DDIMScheduler(**usual | changes)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_that_is_offered_ends_where_the_closed_form_does(name, prediction):
    """Latents N(mean, spread^2): the best prediction is linear, and the probability flow takes
    x_T to mean + spread (x_T - sqrt(a) mean) / sqrt(a spread^2 + 1 - a)."""
    scheduler = swapped(base(prediction_type=prediction), name)
    shares = signal_shares(tiny_pipeline()).double()
    random = torch.Generator().manual_seed(1)
    start = torch.randn(1, 4, 32, 32, generator=random, dtype=torch.float64)
    scheduler.set_timesteps(50)
    latents, ends = start * scheduler.init_noise_sigma, None
    for time in scheduler.timesteps:
        given = scheduler.scale_model_input(latents, time)
        at = float(time)
        assert 0 <= at <= 999
        a = torch.lerp(shares[int(at)], shares[min(int(at) + 1, 999)], at % 1)
        clean = MEAN + SPREAD**2 * a.sqrt() * (given - a.sqrt() * MEAN) / (
            a * SPREAD**2 + 1 - a)
        noise = (given - a.sqrt() * clean) / (1 - a).sqrt()
        if ends is None:
            ends = MEAN + SPREAD * (given - a.sqrt() * MEAN) / (a * SPREAD**2 + 1 - a).sqrt()
        # In the units of DDPM's forward process: as spread as noised latents are.
        assert float(given.std()) == pytest.approx(float((a * SPREAD**2 + 1 - a).sqrt()), rel=0.1)
        said = noise if prediction == "epsilon" else a.sqrt() * noise - (1 - a).sqrt() * clean
        takes = {"generator": random} if name in STOCHASTIC else {}
        latents = scheduler.step(said, time, latents, return_dict=False, **takes)[0]
    assert float(latents.mean()) == pytest.approx(MEAN, abs=0.1)  # x_T's is 0, not sqrt(a) mean
    assert float(latents.std()) == pytest.approx(SPREAD, rel=0.1)
    if name not in STOCHASTIC:
        assert float((latents - ends).abs().mean()) < 0.1 * SPREAD


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_that_is_offered_draws_with_a_real_u_net(name):
    """Deterministic ones come to DDIM's picture; the kept latent is at a timestep of 0..999."""
    pipe = tiny_pipeline("epsilon")
    pipe.scheduler = swapped(pipe.scheduler, "DDIMScheduler")
    call = {"steps": 40, "guidance_scale": 1.5}
    reference = sample(pipe, [ONE], [3], **call)
    pipe.scheduler = swapped(pipe.scheduler, name)
    made = sample(pipe, [ONE], [3], **call)
    assert 0 <= made.timestep <= 60
    if name not in STOCHASTIC:
        both = np.stack([made.images.ravel(), reference.images.ravel()]).astype(float)
        assert np.corrcoef(both)[0, 1] > 0.9


def test_the_rest_is_refused_by_name():
    offered = {name for name in dir(diffusers) if name.endswith("Scheduler")}
    for name in sorted(offered - set(SCHEDULERS)) + ["DDIMSchedular", "AutoencoderKL"]:
        with pytest.raises(ValueError, match=f"expected one of .*DDIMScheduler.*got '{name}'"):
            check_name(name)
        with pytest.raises(ValueError, match="diffusion.scheduler"):
            swapped(base(), name)


@pytest.mark.parametrize("make, why", [
    (lambda: diffusers.EDMEulerScheduler(), "times the noise"),
    (lambda: diffusers.FlowMatchEulerDiscreteScheduler(), "prediction_type|init_noise_sigma"),
    (lambda: base(clip_sample=True), "times the noise"),
    (lambda: base(thresholding=True), "times the noise"),
    (lambda: base(rescale_betas_zero_snr=True, timestep_spacing="trailing"), "not finite"),
    (lambda: DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
     "can't draw"),
    (lambda: swapped(base(prediction_type="sample"), "PNDMScheduler"), "can't draw"),
])
def test_a_trial_finds_what_does_not_draw(make, why):
    with pytest.raises(ValueError, match=why):
        check_scheduler(make(), 20)


def test_a_trial_is_passed_by_zero_terminal_snr_with_v():
    check_scheduler(base(rescale_betas_zero_snr=True, timestep_spacing="trailing",
                         prediction_type="v_prediction"), 20)


def test_a_swap_keeps_the_noise_schedule_or_is_refused():
    zero = base(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    kept = swapped(zero, "EulerDiscreteScheduler")
    assert torch.allclose(kept.alphas_cumprod, zero.alphas_cumprod, atol=1e-6)
    with pytest.raises(ValueError, match="HeunDiscrete.*can't keep.*rescale_betas_zero_snr"):
        swapped(zero, "HeunDiscreteScheduler")


def test_a_swap_does_not_cut_latents():
    """DPM-Solver's configuration says nothing of clip_sample, which is DDIM's default."""
    source = DPMSolverMultistepScheduler(prediction_type="v_prediction")
    assert DDIMScheduler.from_config(source.config).config.clip_sample  # what diffusers does
    assert not swapped(source, "DDIMScheduler").config.clip_sample


def test_inversion_does_not_cut_latents():
    """The same picture's latents lead to the same noise whatever class the schedule came by."""
    random = torch.Generator().manual_seed(0)
    latents = 3 * torch.randn(1, 6, 16, 16, generator=random)
    found = []
    for kind in ("DDIMScheduler", "DPMSolverMultistepScheduler"):
        pipe = tiny_pipeline()
        values = {k: v for k, v in pipe.scheduler.config.items() if k != "clip_sample"}
        pipe.scheduler = getattr(diffusers, kind).from_config(
            values, **({"clip_sample": False} if kind == "DDIMScheduler" else {}))
        found.append(invert(pipe, latents, [ONE], 125))
    assert torch.allclose(*found, atol=1e-4)


# --- finite numbers

def big(module, factor: float) -> None:
    """Makes a module's output too large for its dtype."""
    for weight in module.parameters():
        weight.data.mul_(factor)


def test_the_first_batch_that_is_not_finite_stops(saved):
    said = "diffusion.dtype float32, diffusion.scheduler DDIMScheduler.*bfloat16 or float32"
    latents, picture = torch.ones(1, 6, 16, 16), np.zeros((1, 64, 64, 3), np.uint8)
    pipe = load(saved, scheduler="DDIMScheduler")
    big(pipe.vae.decoder.conv_out, torch.inf)
    with pytest.raises(NotFinite, match=f"the pictures.*{said}"):
        sample(pipe, [ONE], [0], steps=2, guidance_scale=3.0)
    big(pipe.vae.encoder.conv_out, torch.inf)
    with pytest.raises(NotFinite, match=f"the latents of pictures.*{said}"):
        encode_images(pipe, picture)
    big(pipe.unet.down_blocks[0].resnets[0].conv1, torch.inf)  # it reaches the end
    for work in (
        lambda: sample(pipe, [ONE], [0], steps=2, guidance_scale=3.0),
        lambda: leave_one_out(pipe, latents, [ONE], [["a bus"]], [250], [0], 4),
        lambda: prediction_errors(pipe, latents, [[ONE]], [250], [0], 4),
        lambda: invert(pipe, latents, [ONE], 125),
        lambda: unet_features(pipe, latents, [ONE], 60),
    ):
        with pytest.raises(NotFinite, match=f"the U-Net's predictions.*{said}"):
            work()


def test_float16_that_overflows_stops_at_the_first_batch(saved):
    """The weights fit, but what the VAE makes of latents passes 65,504."""
    pipe = load(saved, scheduler="DDIMScheduler", dtype="float16")
    for weight in pipe.vae.decoder.conv_in.parameters():
        large = weight.float()
        weight.data = (large * (60_000 / large.abs().max())).half()
    assert all(torch.isfinite(p).all() for p in pipe.vae.parameters())
    with pytest.raises(NotFinite, match="diffusion.dtype float16.*DDIMScheduler"):
        sample(pipe, [ONE], [0], steps=2, guidance_scale=3.0)


def test_features_that_a_training_would_keep_as_infinity(saved):
    """Features are kept in float16 whatever the dtype."""
    pipe = load(saved)
    shown = Sample("a", ONE, ("bus",), ("bus",), ("a bus",), "", "train", 0, (64, 64), saved, 0,
                   Pictures(), np.ones((6, 16, 16), np.float32), 60, ("",), np.zeros((1, 16, 16)))
    assert all(torch.isfinite(f).all() for f in FeatureSource(pipe, [shown]).batch([0])
               .features.values())
    big(pipe.unet.conv_in, 1e7)
    with pytest.raises(NotFinite, match="features at 4x4 pixels, kept in float16.*float32"):
        FeatureSource(pipe, [shown]).batch([0])


def test_a_training_whose_loss_is_not_finite_stops():
    """Both trainings go through `backward_in_parts`."""
    module = torch.nn.Linear(2, 1)
    loss, _ = backward_in_parts(module, range(2), 2, lambda rows: module(torch.ones(2)).sum())
    assert np.isfinite(loss)
    for factor in (torch.nan, torch.inf):
        with pytest.raises(NotFinite, match="loss of Linear.*learning_rate.*precision"):
            backward_in_parts(module, range(2), 2,
                              lambda rows, f=factor: module(torch.ones(2)).sum() * f)
    check_loss(0.0, "x")


def test_a_segmenter_that_is_not_finite_does_not_say_background():
    params = load_params().segmenter
    model = maskformer.build(MICRO / "backbone", ["background", "dog"], params).eval()
    big(model.class_predictor, torch.nan)
    with torch.no_grad(), pytest.raises(NotFinite, match="segmenter's scores"):
        maskformer.label_scores(model, torch.zeros(1, 3, 64, 64))
    assert segformer.finite_scores is maskformer.finite_scores


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


@pytest.mark.parametrize("said, why", [
    ({"do_flip_channel_order": True}, "takes RGB"),
    ({"image_mean": [0.5], "image_std": [0.5]}, "three numbers"),
    ({"image_mean": [0.5] * 3}, "three numbers"),
    ({"image_mean": [0.5] * 3, "image_std": [0.0] * 3}, "above 0"),
])
def test_a_preprocessor_that_is_not_followed_is_refused(said, why):
    with pytest.raises(ValueError, match=f"x: its preprocessor_config.json.*{why}"):
        normalisation(said, "x")


# --- a detector's configuration

@pytest.mark.parametrize("changes, why", [
    ({"colour": "bgr"}, "expected an object with classes and fields of"),
    ({"classes": None}, "expected an object with classes"),
    ({"mean": [0.5]}, "mean: expected 3 numbers, got"),
    ({"std": [1.0, 0.0, 1.0]}, "std: expected 3 numbers above 0"),
    ({"image_size": [256, 128]}, "image_size: expected the shorter side"),
    ({"anchor_sizes": [8, 16]}, "anchor_sizes: expected 4 numbers"),
])
def test_a_detectors_configuration_is_honoured_or_refused(tmp_path, changes, why):
    from ml.detectors import load_detector
    shutil.copytree(MICRO / "detector", tmp_path / "detector")
    edit(tmp_path / "detector" / "config.json", **changes)
    with pytest.raises(ValueError, match=f"detector/config.json.*{why}"):
        load_detector("torchvision", tmp_path / "detector", device="cpu")


def test_mask2former_is_squeezed_to_what_its_preprocessor_says():
    from types import SimpleNamespace

    from ml.detectors.transformers_mask2former import input_size
    for size, expected in [({"height": 96, "width": 128}, (96, 128)),
                           ({"shortest_edge": 64, "longest_edge": 1333}, (64, 64))]:
        found = input_size("x", SimpleNamespace(size=size, do_resize=True))
        assert (found["height"], found["width"]) == expected
    for size, resize in [({"longest_edge": 1333}, True), ({"height": 96, "width": 96}, False)]:
        with pytest.raises(ValueError, match="expected true, and height and width"):
            input_size("x", SimpleNamespace(size=size, do_resize=resize))


# --- folders and names

def test_a_digest_follows_links(tmp_path):
    blobs, real, model = tmp_path / "blobs", tmp_path / "real", tmp_path / "model"
    for folder in (blobs, real / "unet", model):
        folder.mkdir(parents=True)
    (blobs / "abc").write_text("weights")
    (real / "unet" / "w.safetensors").write_text("weights")
    (real / "index.json").write_text("{}")
    (model / "index.json").write_text("{}")
    (model / "unet").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "w.safetensors").symlink_to(blobs / "abc")
    first = sha256_folder(model)
    assert first == sha256_folder(real)  # as if the links were the files
    (blobs / "abc").write_text("changed")
    assert sha256_folder(model) != first
    (model / "round").symlink_to(model, target_is_directory=True)
    with pytest.raises(ValueError, match="round is a link to a folder that it lies in"):
        sha256_folder(model)
    (model / "round").unlink()
    (blobs / "abc").unlink()
    with pytest.raises(ValueError, match="w.safetensors is a link to nothing"):
        sha256_folder(model)


@pytest.mark.parametrize("backend, name", [
    ("torchvision", "coco"), ("detectron2", "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"),
])
def test_a_backends_own_name_comes_before_a_folder_of_that_name(tmp_path, backend, name):
    (tmp_path / name).mkdir(parents=True)
    workspace = Workspace(tmp_path, "micro")
    detector = dataclasses.replace(load_params().detector, backend=backend, model=name)
    assert workspace.detector(detector) == name
    own = dataclasses.replace(detector, backend="transformers")
    assert workspace.detector(own) == str(tmp_path / name)
