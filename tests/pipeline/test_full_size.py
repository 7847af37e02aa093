"""The published models: their shapes on the meta device, their kinds of block at a tiny size.

SD 2.1 and SDXL differ from SD-v1 in their text encoders, heads, prediction and, SDXL, in what the
U-Net is told beside the prompt; every place that calls the U-Net goes through the same code.
"""

import argparse
import dataclasses
import mmap
from functools import partial

import diffusers
import numpy as np
import pytest
import torch

from benchmarks import __main__ as all_ratios
from benchmarks import full_size_speed, jobs
from benchmarks.bench import Bench
from benchmarks.random_weights import SHAPES, random_pipeline
from ml.cli.planning.timing import timed
from ml.compute import precision
from ml.compute.batching import Batches
from ml.diffusion import loading
from ml.diffusion.encoding import encode_prompts, word_embeddings
from ml.diffusion.evidence import leave_one_out
from ml.diffusion.features import denoiser_features, feature_channels, feature_taps
from ml.diffusion.latents import add_noise, encode_images
from ml.diffusion.loading import (
    latent_shape,
    load_pipeline,
    picture_size,
    prepare_pipeline,
    tile_vae,
)
from ml.diffusion.sampling import sample
from ml.diffusion.tokens import text_width, word_positions
from ml.grounding.config import make_config
from ml.grounding.engine import GroundingEngine
from ml.grounding.module import GroundingModule
from ml.grounding.pipeline import GroundedDiffusionPipeline
from ml.pipeline.stages import grounding_scores, images, synthetic_dataset
from ml.pipeline.workspace import Workspace
from ml.settings.profile import ROOT, load_params
from ml.store.shards import read_shards
from tests.pipeline.test_grounding_stages import make_workspace, tiny_params

PROFILE_SHAPES = {"sd15": "sd-v1", "sd21": "sd-2.1-base", "sdxl": "sdxl"}
TRANSFORMERS = "sd35", "flux", "micro-dit"
"""Profiles of other networks: tests/diffusion/test_backbones_published.py, and of the micro one
tests/foundation/test_models.py."""
TWO, ONE = "a photograph of a dog and a dining table", "a photograph of a bus"
CALL = {"steps": 3, "guidance_scale": 4.0}
TINY = ("tiny-2.1", "tiny-xl")


def tiny(name: str):
    """With fresh weights the text hardly matters; make it matter as in a trained model."""
    pipe = random_pipeline(name)
    for key, value in pipe.unet.named_parameters():
        if "attn2.to_" in key and value.ndim == 2:
            value.data.mul_(4)
    return pipe


@pytest.fixture(scope="module")
def pipes():
    return {name: tiny(name) for name in TINY}


# --- profiles


@pytest.mark.parametrize(
    "profile",
    [
        "micro",
        *sorted(
            p.stem
            for p in (ROOT / "profiles").glob("*.yaml")
            if "." not in p.stem and p.stem not in TRANSFORMERS
        ),
    ],
)
def test_every_profile_can_be_instantiated(profile):
    params = load_params(profile)
    kind = getattr(diffusers, params.diffusion.scheduler)
    assert issubclass(kind, diffusers.SchedulerMixin)
    assert kind.__name__ in {k.__name__ for k in random_pipeline("tiny").scheduler.compatibles}
    if "/" in params.diffusion.model and profile in PROFILE_SHAPES:
        assert len(params.diffusion.revision) == 40  # a commit: a branch would move
    name = PROFILE_SHAPES.get(profile, "tiny")
    pipe = random_pipeline(name, "meta")
    with torch.device("meta"):
        module = GroundingModule(
            make_config(
                params.grounding,
                feature_channels(pipe.unet),
                text_width(pipe),
                picture_size(pipe)[0],
                1,
            )
        )
    if name != "tiny":
        assert module.config.picture_size == params_pixels(profile)
        assert module.config.width == 512 and len(module.layers) == 3


def params_pixels(profile: str) -> int:
    return {"sd15": 512, "sd21": 512, "sdxl": 1024}[profile]


# --- full shapes


@pytest.mark.parametrize(
    "name, parameters, taps, channels, width, pixels",
    [
        # parameters of the U-Net as its authors publish them, in millions
        ("sd-v1", 859.52, 25, {8: 7680, 16: 7040, 32: 4160, 64: 2560}, 768, 512),
        ("sd-2.1-base", 865.91, 25, {8: 7680, 16: 7040, 32: 4160, 64: 2560}, 1024, 512),
        ("sd-2.1", 865.91, 25, {12: 7680, 24: 7040, 48: 4160, 96: 2560}, 1024, 768),
        # 32: the last downsampler, 2 + middle + 2 of 1280; 64: 320 + 2 x 640, upsampled 1280,
        # 2 x 640; 128: 3 x 320, upsampled 640, 3 x 320
        (
            "sdxl",
            2567.46,
            19,
            {32: 640 + 5 * 1280, 64: 320 + 2 * 640 + 1280 + 2 * 640, 128: 3 * 320 + 640 + 3 * 320},
            2048,
            1024,
        ),
    ],
)
def test_full_shapes(name, parameters, taps, channels, width, pixels):
    """The real classes run on the meta device: shapes without numbers."""
    pipe = random_pipeline(name, "meta")
    assert sum(p.numel() for p in pipe.unet.parameters()) / 1e6 == pytest.approx(parameters, 1e-5)
    assert len(feature_taps(pipe.unet)) == taps
    assert feature_channels(pipe.unet) == {r: 2 * c for r, c in channels.items()}
    assert text_width(pipe) == width and picture_size(pipe) == (pixels, pixels)
    features = denoiser_features(pipe, torch.empty(1, *latent_shape(pipe)), [ONE], 1)
    assert {r: tuple(f.shape) for r, f in features.items()} == {
        r: (1, 2 * c, r, r) for r, c in channels.items()
    }
    full = dataclasses.replace(load_params().grounding, width=512, layers=3, heads=8)
    for variant, shown in (("paper", 2), ("seeded", 3)):
        with torch.device("meta"):
            module = GroundingModule(
                make_config(full, feature_channels(pipe.unet), width, pixels, 1, variant)
            )
            logits = module(
                features,
                torch.empty(1, 2, width),
                torch.ones(1, 2, dtype=torch.bool),
                torch.empty(1, 2, 3, *latent_shape(pipe)[1:]),
            )
        assert logits.shape == (1, shown, pixels, pixels)


def test_a_distilled_unet_without_a_middle_block():
    with torch.device("meta"):
        whole = diffusers.UNet2DConditionModel(**SHAPES["tiny"].unet)
        cut = diffusers.UNet2DConditionModel(**SHAPES["tiny"].unet, mid_block_type=None)
    assert len(feature_taps(whole)) - len(feature_taps(cut)) == 1
    assert feature_channels(cut) == feature_channels(whole) | {4: feature_channels(whole)[4] - 48}


# --- tiny SD 2.1 and SDXL against plain diffusers


@pytest.mark.parametrize("name", TINY)
def test_sampling_is_plain_diffusers(pipes, name):
    pipe = pipes[name]
    plain = pipe(
        [TWO, ONE],
        generator=[torch.Generator().manual_seed(s) for s in (3, 4)],
        num_inference_steps=3,
        guidance_scale=4.0,
        output_type="np",
    ).images
    plain = (plain * 255).round().astype(np.uint8)
    made = sample(pipe, [TWO, ONE], [3, 4], words=[["dog", "dining table"], ["bus"]], **CALL)
    assert plain.std() > 5 and np.abs(made.images.astype(int) - plain).max() <= 1
    side = latent_shape(pipe)[-1]
    assert [tuple(m.shape) for m in made.daam] == [(2, side, side), (1, side, side)]
    assert all(m.std() > 1e-4 for m in made.daam)


@pytest.mark.parametrize("name", TINY)
def test_features_of_the_kept_latent_are_those_of_the_last_step(pipes, name):
    """Everything that the U-Net is told comes out the same as in diffusers' own loop."""
    pipe, seen = pipes[name], {}
    taps = feature_taps(pipe.unet)
    handles = [
        tap.module.register_forward_hook(
            lambda module, inputs, output, i=i: seen.update(
                {i: output[0] if isinstance(output, tuple) else output}
            )
        )
        for i, tap in enumerate(taps)
    ]
    made = sample(pipe, [TWO, ONE], [3, 4], **CALL)
    last = dict(seen)
    for handle in handles:
        handle.remove()
    features = denoiser_features(pipe, made.latents, [TWO, ONE], made.timestep)
    assert {r: f.shape[1] for r, f in features.items()} == feature_channels(pipe.unet)
    for side, maps in features.items():
        own = [last[i] for i in sorted(last) if last[i].shape[-1] == side]
        expected = torch.cat([m[:2] for m in own] + [m[2:] for m in own], dim=1)
        torch.testing.assert_close(maps, expected, atol=1e-3, rtol=1e-3)


def test_encoded_prompts_of_sdxl_are_its_own(pipes):
    pipe = pipes["tiny-xl"]
    got = encode_prompts(pipe, [TWO, "", ONE, TWO])
    hidden, empty, pooled, empty_pooled = pipe.encode_prompt(TWO)
    torch.testing.assert_close(got.hidden[[0]], hidden)
    torch.testing.assert_close(got.hidden[3], got.hidden[0])
    torch.testing.assert_close(got.pooled[[0]], pooled)
    assert torch.equal(got.hidden[[1]], empty) and torch.equal(got.pooled[[1]], empty_pooled)
    assert got.hidden.shape == (4, 24, 16 + 24) and got.pooled.shape == (4, 20)
    assert got.time_ids.tolist() == [[64, 64, 0, 0, 64, 64]] * 4
    assert word_embeddings(pipe, ["bus", "dining table"]).shape == (2, text_width(pipe)) == (2, 40)


def test_a_word_must_be_the_same_tokens_to_both_text_encoders(pipes, monkeypatch):
    pipe = pipes["tiny-xl"]
    assert word_positions(pipe, TWO, "dining table") == [8, 9]

    class Letters:
        model_max_length = 24

        def __call__(self, text, return_offsets_mapping):
            return {"offset_mapping": [(i, i + 1) for i in range(len(text))]}

    monkeypatch.setattr(pipe, "tokenizer_2", Letters())
    with pytest.raises(ValueError, match="tokenizers put 'dog'.*different tokens"):
        word_positions(pipe, TWO, "dog")


@pytest.mark.parametrize("name", TINY)
def test_leave_one_out_against_a_plain_loop(pipes, name):
    pipe = pipes[name]
    latents = torch.randn(2, *latent_shape(pipe), generator=torch.Generator().manual_seed(0))
    got = leave_one_out(pipe, latents, [TWO, ONE], [["a dog"], ["a bus"]], [250], [7, 8], 3)
    share = diffusers.DDPMScheduler.from_config(pipe.scheduler.config).alphas_cumprod[250]
    scale = {"epsilon": share**-0.5, "v_prediction": 1.0}[pipe.scheduler.config.prediction_type]
    for i, (text, left) in enumerate(
        [(TWO, "a photograph of a dining table"), (ONE, "a photograph of")]
    ):
        noisy, outputs = add_noise(pipe, latents[i : i + 1], 250, [7 + i]), []
        for prompt in (text, left):
            encoded = pipe.encode_prompt(
                prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
            )
            more = (
                {}
                if len(encoded) == 2
                else {
                    "added_cond_kwargs": {
                        "text_embeds": encoded[2],
                        "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]]),
                    }
                }
            )
            outputs.append(pipe.unet(noisy, 250, encoder_hidden_states=encoded[0], **more).sample)
        change = (outputs[0] - outputs[1]).abs().mean(dim=1)[0] * scale
        assert change.mean() > 1e-4
        torch.testing.assert_close(got[i][0, 0], change, atol=1e-4, rtol=1e-3)


def test_sdxl_vae_runs_in_float32_where_float16_overflows():
    pipe = random_pipeline("tiny-xl").to(torch.float16)
    images_ = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    dtypes = []
    handle = pipe.vae.encoder.register_forward_pre_hook(lambda m, x: dtypes.append(x[0].dtype))
    half = encode_images(pipe, images_)
    pipe.vae.register_to_config(force_upcast=False)  # as the mended VAE says
    encode_images(pipe, images_)
    handle.remove()
    assert dtypes == [torch.float32, torch.float16] and pipe.vae.dtype == torch.float16
    assert half.dtype == torch.float32
    exact = encode_images(random_pipeline("tiny-xl"), images_)
    torch.testing.assert_close(half, exact, atol=5e-3, rtol=5e-3)


def test_sdxl_goes_on_after_its_decoding_ran_out_of_memory(monkeypatch):
    """The pipeline has the VAE in float32 at that moment; the next try must find float16."""
    pipe = random_pipeline("tiny-xl", dtype=torch.float16)
    decode = pipe.vae.decode

    def small(latents, **kwargs):
        if len(latents) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried")
        return decode(latents, **kwargs)

    monkeypatch.setattr(pipe.vae, "decode", small)
    made = [
        found.images
        for _, found in Batches(2).run(
            [(TWO, 1), (ONE, 2)], lambda part: sample(pipe, *zip(*part, strict=True), **CALL)
        )
    ]
    assert len(made) == 2 and pipe.vae.dtype == torch.float16


@pytest.mark.parametrize("name, dtype", [("tiny-xl", "float16"), ("tiny-2.1", "bfloat16")])
def test_half_precision_goes_through_every_call(name, dtype):
    pipe = random_pipeline(name, dtype=getattr(torch, dtype))
    assert {p.dtype for p in pipe.unet.parameters()} == {getattr(torch, dtype)}
    config = make_config(
        small_grounding(),
        feature_channels(pipe.unet),
        text_width(pipe),
        picture_size(pipe)[0],
        1,
        "seeded",
    )
    grounded = GroundingEngine(pipe, GroundingModule(config), 2)
    made = grounded.draw([TWO, ONE], [["dog"], ["bus"]], seeds=[1, 2], **CALL)
    found = grounded.ground(made.images, [["dog"], ["bus"]])
    assert all(np.isfinite(p).all() for p in [*made.probabilities, *found.probabilities])


def small_grounding():
    return dataclasses.replace(
        load_params().grounding, width=32, layers=1, heads=2, evidence_timesteps=[200]
    )


# --- memory


def test_slicing_and_tiling_are_asked_for_by_params(tmp_path):
    random_pipeline("tiny").save_pretrained(tmp_path / "model")
    settings = dataclasses.replace(
        load_params().diffusion, model="model", device="cpu", dtype="float32"
    )
    workspace = Workspace(tmp_path, "micro")
    plain = load_pipeline(workspace.located(settings))
    saving = load_pipeline(
        workspace.located(dataclasses.replace(settings, attention_slicing=True, vae_tiling=True))
    )
    kinds = {type(p).__name__ for p in saving.unet.attn_processors.values()}
    assert kinds == {"SlicedAttnProcessor"} and not plain.vae.use_tiling
    assert (saving.vae.tile_sample_min_size, saving.vae.tile_latent_min_size) == (32, 8)
    a, b = (sample(pipe, [TWO], [1], words=[["dog"]], **CALL) for pipe in (plain, saving))
    torch.testing.assert_close(a.latents, b.latents, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(a.daam[0], b.daam[0], atol=1e-3, rtol=1e-3)
    # Not the same pixels: the VAE normalises over what it sees, a tile or the picture.
    assert np.corrcoef(a.images.ravel(), b.images.ravel())[0, 1] > 0.8


def test_a_tiled_vae_sees_tiles_of_half_the_side():
    pipe, sides = random_pipeline("tiny"), []
    pipe.vae.decoder.register_forward_pre_hook(lambda m, x: sides.append(x[0].shape[-1]))
    pipe.vae.encoder.register_forward_pre_hook(lambda m, x: sides.append(x[0].shape[-1]))
    tile_vae(pipe)
    made = sample(pipe, [ONE], [1], **CALL)
    assert made.images.shape == (1, 64, 64, 3) and max(sides) == 8
    sides.clear()
    assert encode_images(pipe, made.images).shape == (1, 4, 16, 16) and max(sides) == 32


def test_the_vae_goes_picture_by_picture_from_512_pixels_on():
    for name, sliced in (("tiny", False), ("sd-v1", True)):
        pipe = random_pipeline(name, "meta")
        settings = dataclasses.replace(load_params().diffusion, device="meta")
        assert prepare_pipeline(pipe, settings).vae.use_slicing is sliced


# --- the stages


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("xl")
    params = tiny_params(root)
    drawing = dataclasses.replace(params.diffusion, dtype="float32")  # as the door's on a CPU
    return dataclasses.replace(params, diffusion=drawing), make_workspace(
        root, lambda folder: tiny("tiny-xl").save_pretrained(folder)
    )


def test_sdxl_through_the_stages(world):
    """Loaded from a folder by the class it names, drawn, trained on, scored, labelled."""
    params, workspace = world
    pipe = load_pipeline(workspace.located(params.diffusion))
    assert type(pipe) is diffusers.StableDiffusionXLPipeline
    module = GroundingModule.from_pretrained(workspace.folder("grounding_model"))
    assert module.config.text_width == 40 and module.config.variant == "seeded"
    facts = grounding_scores.run(params, workspace, "r").facts
    assert facts["daam_training_miou"] == pytest.approx(100)  # the masks were made of these maps
    made = synthetic_dataset.run(params, workspace, "r")
    assert made.facts["pictures"] == 5
    drawn = read_shards(workspace.folder("images"), ["key", "image"]).set_index("key")["image"]
    other = Workspace(workspace.root, "again")
    workspace.folder("prompts").rename(
        other.folder("prompts").parent.mkdir() or other.folder("prompts")
    )
    images.run(params, other, "r")
    again = read_shards(other.folder("images"), ["key", "image"]).set_index("key")["image"]
    assert set(again.index) == set(drawn.index)
    grounded = GroundedDiffusionPipeline(pipe, module)
    black = np.zeros((64, 64, 3), np.uint8)
    found = grounded.ground(black, ["dog", "bus"])
    assert [mask.shape for mask in found.masks[0].values()] == [(64, 64)] * 2
    grounded.save_pretrained(workspace.root / "saved")
    same = GroundedDiffusionPipeline.from_pretrained(workspace.root / "saved")
    assert type(same.pipe) is diffusers.StableDiffusionXLPipeline
    again = same.ground(black, ["dog", "bus"])
    for word in ("dog", "bus"):
        np.testing.assert_allclose(
            again.probabilities[0][word], found.probabilities[0][word], atol=1e-4
        )


# --- the benchmark


def test_the_speed_benchmark_runs_anywhere(capsys):
    result = full_size_speed.main(
        ["--tiny", "--device", "cpu", "--batch-sizes", "1", "--steps", "2", "--repeats", "1"]
    )
    (own,) = result["by_batch"]
    assert result["dtype"] == "float32" and result["official"] > 0
    assert own["plain"] > 0 and own["grounded"]["seeded"] > 0
    once = 1 / own["training_with_pictures"] - 1 / own["training"]
    assert once > 1 / own["with_daam"] / result["visits"]
    table = capsys.readouterr().out.split("\n}\n")[1].splitlines()
    assert len({line.count("|") for line in table}) == 1 and len(table) == 3


@pytest.fixture(scope="module")
def bench():
    return Bench(
        argparse.Namespace(shape="tiny", device="cpu", dtype="float32", steps=2, repeats=1)
    )


def test_every_step_that_is_timed_has_the_precision_of_the_stage(bench, monkeypatch):
    """As on a GPU, which has bfloat16: whole jobs, both kinds of step, and the module alone."""
    monkeypatch.setattr(precision, "computes_bfloat16", lambda device: True)
    assert bench.grounding.precision == "bfloat16"
    autocast, drawn = set(), []

    def look(module, inputs):
        if module.training:
            autocast.add(torch.is_autocast_enabled("cpu"))

    def counted(*arguments, **options):
        drawn.append(len(arguments[1]))
        return sample(*arguments, **options)

    monkeypatch.setattr(jobs, "step_seconds", lambda run, batch: timed(lambda: run(1, batch)))
    monkeypatch.setattr(jobs, "sample", counted)
    hooks = [module.register_forward_pre_hook(look) for module in bench.modules.values()]
    whole = partial(all_ratios.whole_jobs, bench, 1, 1)
    for work in (whole, bench.training(1), bench.official()):
        autocast.clear()
        work()
        assert autocast == {True}
    for hook in hooks:
        hook.remove()
    # Twice a start of the kernels, and the pictures of the small job: nobody reads what the model
    # alone would take for those of the large one.
    assert drawn == [1, 1, 1]


def test_the_benchmarks_drawing_is_checked_as_a_stages_is_and_plain_diffusers_is_not(
    bench, monkeypatch
):
    checked = []
    monkeypatch.setattr(loading, "check_finite", lambda values, what, do: checked.append(what[:12]))
    bench.plain(1)
    assert "the denoiser" not in checked
    bench.with_daam(1)
    assert checked.count("the denoiser") == 2  # a step


def test_ten_times_the_pictures_are_measured_in_main_memory_on_a_gpu_too(monkeypatch):
    """The allocator's peak is the weights and one batch, whatever lies in main memory."""
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5 * 2**30)
    on_gpu, kept = argparse.Namespace(device=torch.device("cuda")), []

    def keep(megabytes: int) -> None:
        """Pages of their own: malloc may have as many left of what ran before."""
        kept.append(mmap.mmap(-1, megabytes * 2**20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        for start in range(0, len(kept[-1]), mmap.PAGESIZE):
            kept[-1][start] = 1

    once, more = (jobs._job(on_gpu, partial(keep, n), 1.0) for n in (10, 100))
    assert once.gpu_peak == more.gpu_peak == 5 * 2**10
    assert more.peak - once.peak > 90
    found = iter([once, more])
    monkeypatch.setattr(all_ratios, "drawing", lambda *_, **__: next(found))
    monkeypatch.setattr(all_ratios, "training", lambda *_: once)
    rows = {what: figure for what, figure, _ in all_ratios.whole_jobs(on_gpu, 1, 1)}
    assert rows["ten times the pictures: main memory"] == more.peak / once.peak > 1
    assert rows["ten times the pictures: GPU memory"] == 1


def test_the_speed_benchmark_says_where_memory_ends(bench, monkeypatch):
    forward = bench.pipe.unet.forward

    def small(x, *args, **kwargs):
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried")
        return forward(x, *args, **kwargs)

    monkeypatch.setattr(bench.pipe.unet, "forward", small)
    for work in (lambda: bench.plain(2), lambda: bench.grounded(2, "paper"), bench.training(2)):
        assert bench.rate(2, work) == (None, None)
    own = {
        "batch": 2,
        "plain": None,
        "with_daam": None,
        "training": None,
        "grounded": dict.fromkeys(("paper", "seeded")),
        "training_with_pictures": None,
        "peak_gb": {"drawing": None, "training": None},
    }
    result = {"device": "d", "shape": "s", "dtype": "t"}
    assert full_size_speed.row(result, own, 3.0).count("out of memory") == 6


@pytest.mark.slow
def test_all_ratios_in_one_run(capsys):
    small = ["--shape", "tiny", "--device", "cpu", "--batch-size", "2", "--steps", "2"]
    rows = all_ratios.main([*small, "--repeats", "1", "--pictures", "2"])
    figures = {what: figure for what, figure, _ in rows}
    assert all(figure > 0 for figure in figures.values()), figures
    assert {"grounded, seeded", "training", "images: job / model"} <= set(figures)
    assert capsys.readouterr().out.count("\n| ") == len(rows)


# --- full size with numbers


@pytest.mark.slow
def test_full_sd_v1_forward_and_backward_on_the_cpu():
    """3.4 GB of random weights, one guided U-Net pass of 1.6 TFLOP, one step of the module."""
    pipe = random_pipeline("sd-v1")
    latent = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    features = denoiser_features(pipe, latent, [TWO], 1)
    text = word_embeddings(pipe, ["dog", "dining table"])[None]
    del pipe
    assert {r: tuple(f.shape) for r, f in features.items()} == {
        8: (1, 15360, 8, 8),
        16: (1, 14080, 16, 16),
        32: (1, 8320, 32, 32),
        64: (1, 5120, 64, 64),
    }
    assert all(torch.isfinite(f).all() and f.std() > 0 for f in features.values())
    full = dataclasses.replace(load_params("sd15").grounding)
    torch.manual_seed(0)
    module = GroundingModule(
        make_config(full, {r: f.shape[1] for r, f in features.items()}, 768, 512, 1)
    )
    assert sum(p.numel() for p in module.parameters() if p.requires_grad) == 18_796_560
    module.encoder.fit_scales([features])
    with torch.no_grad():
        assert module.encoder(features).shape == (1, 240, 64, 64)
    valid = torch.ones(1, 2, dtype=torch.bool)
    masks = torch.zeros(1, 2, 512, 512)
    masks[0, 0, 100:300, 100:300] = masks[0, 1, 300:400, 50:500] = 1
    optimizer, losses = torch.optim.AdamW(module.parameters(), 1e-4), []
    for _ in range(3):
        logits = module(features, text, valid)
        assert logits.shape == (1, 2, 512, 512)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, masks)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
