"""`python -m ml plan`: the arithmetic against hand-computed values, the literal tables against the
real classes, the probe on real models, and what is refused."""

import dataclasses
import gc
import json
import os
import re
import shutil
import weakref
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from ml.__main__ import main
from ml.cli.planning import known_models, machine, making, probe, timing, verdicts
from ml.cli.planning.counts import Counts, counts_of, with_images
from ml.cli.planning.disk import disk_needs
from ml.cli.planning.drawing import drawing_of
from ml.cli.planning.grounding_size import grounding_size
from ml.cli.planning.hours import Figures, passes, stage_seconds, times
from ml.cli.planning.known_models import DRAWINGS, SD1, SD2, SDXL
from ml.cli.planning.machine import ram_bytes
from ml.cli.planning.making import make_plan
from ml.cli.planning.memory import (
    CUDA_BYTES,
    feature_bytes,
    gpu_needs,
    kept_bytes,
    ram_needs,
    weight_bytes,
)
from ml.cli.planning.models import find_models
from ml.cli.planning.page import show_bytes, show_seconds
from ml.cli.planning.weight_files import count_parameters, weight_files
from ml.compute.devices import find_device
from ml.errors import INPUT, exit_path
from ml.pipeline.workspace import Workspace
from ml.settings.profile import ROOT, load_params
from ml.words.prompts import make_prompts
from ml.words.vocabulary import Vocabulary, load_vocabulary
from tests.builders import tiny
from tests.builders.own_pictures import scenes_of, write_folder

MICRO = load_params()
HERE = Workspace(ROOT, "micro")
BIG = """
diffusion: {model: stable-diffusion-v1-5/stable-diffusion-v1-5, dtype: float16}
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A hub cache of the test's own, so that what lies on the machine changes no result."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))


def changed(params=MICRO, **sections):
    """Settings with some fields of some sections replaced."""
    return dataclasses.replace(
        params,
        **{
            name: dataclasses.replace(getattr(params, name), **fields)
            for name, fields in sections.items()
        },
    )


def by_name(needs) -> dict:
    return {need.name: need.bytes for need in needs}


# Counts


def test_counts_are_those_of_the_prompts_stage():
    for vocabulary in (
        load_vocabulary("voc-1"),
        Vocabulary("one", ("cat", "dog"), ("car",), {n: (n,) for n in ("cat", "dog", "car")}),
    ):
        counts = counts_of(MICRO, vocabulary)
        made = make_prompts(vocabulary, MICRO.prompts, 0)[0]
        images = [p for p in made if p["purpose"] != "synthetic"]
        synthetic = [p for p in made if p["purpose"] == "synthetic"]
        assert (counts.images, counts.synthetic) == (len(images), len(synthetic))
        assert counts.image_words == sum(len(p["entities"]) for p in images)
        assert counts.synthetic_words == sum(len(p["entities"]) for p in synthetic)


def test_images_keep_the_proportion():
    prompts = with_images(MICRO, 10_000).prompts  # micro: 300 and 500
    assert (prompts.synthetic_one, prompts.synthetic_two) == (3750, 6250)
    none = changed(prompts={"synthetic_one": 0, "synthetic_two": 0})
    assert with_images(none, 9).prompts.synthetic_one == 4
    with pytest.raises(ValueError, match="--images: expected 1 or more, got 0"):
        with_images(MICRO, 0)


# Models


def count(model) -> int:
    return sum(weight.numel() for weight in model.parameters())


def test_the_table_of_diffusion_models_is_that_of_the_real_classes():
    """Every figure of the table, counted on diffusers' and transformers' own classes."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from ml.diffusion.features import feature_channels

    def text(width, layers, heads, kind=CLIPTextModel, **more):
        return count(
            kind(
                CLIPTextConfig(
                    hidden_size=width,
                    intermediate_size=4 * width,
                    num_hidden_layers=layers,
                    num_attention_heads=heads,
                    **more,
                )
            )
        )

    with torch.device("meta"):
        vae = count(
            AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                layers_per_block=2,
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
            )
        )
        units = {
            "sd1": UNet2DConditionModel(sample_size=64, cross_attention_dim=768),
            "sd2": UNet2DConditionModel(
                sample_size=64,
                cross_attention_dim=1024,
                attention_head_dim=[5, 10, 20, 20],
                use_linear_projection=True,
            ),
            "sdxl": UNet2DConditionModel(
                sample_size=128,
                cross_attention_dim=2048,
                attention_head_dim=[5, 10, 20],
                use_linear_projection=True,
                block_out_channels=(320, 640, 1280),
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                transformer_layers_per_block=[1, 2, 10],
                addition_embed_type="text_time",
                addition_time_embed_dim=256,
                projection_class_embeddings_input_dim=2816,
            ),
        }
        large = text(768, 12, 12)
        texts = {
            "sd1": {"text_encoder": large},
            "sd2": {"text_encoder": text(1024, 23, 16)},
            "sdxl": {
                "text_encoder": large,
                "text_encoder_2": text(
                    1280, 32, 20, CLIPTextModelWithProjection, projection_dim=1280
                ),
            },
        }
    for name, shape in {"sd1": SD1, "sd2": SD2, "sdxl": SDXL}.items():
        assert shape.parameters == {"unet": count(units[name]), "vae": vae} | texts[name]
        assert shape.features == feature_channels(units[name])
        assert shape.side == 8 * units[name].config.sample_size == 8 * shape.latent[1]


def test_the_table_of_detectors_and_backbones_is_that_of_the_real_classes():
    from transformers import (
        Mask2FormerConfig,
        Mask2FormerForUniversalSegmentation,
        ResNetConfig,
        ResNetForImageClassification,
        SegformerConfig,
        SegformerForImageClassification,
        SwinConfig,
        SwinForImageClassification,
    )

    def mask2former(depths):
        body = SwinConfig(
            embed_dim=96,
            depths=depths,
            num_heads=[3, 6, 12, 24],
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )
        return Mask2FormerForUniversalSegmentation(
            Mask2FormerConfig(backbone_config=body, num_labels=80)
        )

    def resnet(depths):
        return ResNetForImageClassification(ResNetConfig(depths=depths, num_labels=1000))

    def mit(depths):
        return SegformerForImageClassification(
            SegformerConfig(
                hidden_sizes=[64, 128, 320, 512],
                depths=depths,
                num_labels=1000,
                decoder_hidden_size=768,
            )
        )

    with torch.device("meta"):
        counted = {
            "facebook/mask2former-swin-tiny-coco-instance": mask2former([2, 2, 6, 2]),
            "facebook/mask2former-swin-small-coco-instance": mask2former([2, 2, 18, 2]),
            "microsoft/resnet-50": resnet([3, 4, 6, 3]),
            "microsoft/resnet-101": resnet([3, 4, 23, 3]),
            "microsoft/swin-base-patch4-window7-224": SwinForImageClassification(
                SwinConfig(
                    embed_dim=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32], num_labels=1000
                )
            ),
            "nvidia/mit-b2": mit([3, 4, 6, 3]),
            "nvidia/mit-b5": mit([3, 6, 40, 3]),
        }
    assert {name: count(model) for name, model in counted.items()} == known_models.PARAMETERS


def test_micro_models_are_measured_on_disk():
    diffusion, detector, backbone = find_models(MICRO, HERE)
    folder = ROOT / MICRO.diffusion.model
    assert diffusion.bytes == sum(p.stat().st_size for p in folder.rglob("*.safetensors"))
    assert {diffusion.state, detector.state, backbone.state} == {"on this machine"}
    shape = drawing_of(diffusion)
    assert (shape.side, shape.latent, shape.text_width) == (64, (6, 16, 16), 64)
    assert diffusion.parameters == sum(shape.parameters.values())


def test_the_shape_of_a_folder_is_that_of_its_pipeline(tmp_path):
    from ml.diffusion.features import feature_channels

    folder = tiny.save_tiny_pipeline(tmp_path / "tiny")
    pipe = tiny.tiny_pipeline()
    params = changed(diffusion={"model": str(folder)})
    found = find_models(params, Workspace(tmp_path, "micro"))[0]
    shape = drawing_of(found)
    assert shape.features == feature_channels(pipe.unet)
    assert shape.parameters == {
        part: count(getattr(pipe, part)) for part in ("unet", "vae", "text_encoder")
    }
    assert shape.text_width == tiny.WIDTH and shape.side == 64 and not shape.vae_float32


def test_what_is_not_here_is_to_be_downloaded_or_unknown(tmp_path):
    params = changed(
        diffusion={"model": "stable-diffusion-v1-5/stable-diffusion-v1-5"},
        detector={"model": "coco"},
        segmenter={"backbone": "somebody/elses-backbone"},
    )
    diffusion, detector, backbone = find_models(params, HERE)
    assert diffusion.state == "to download"
    assert diffusion.bytes == 4 * (859_520_964 + 83_653_863 + 123_060_480)  # 4.3 GB in float32
    assert (detector.state, detector.parameters) == ("to download", 46_359_409)
    assert detector.bytes == pytest.approx(4 * 46_359_409, rel=0.01)
    assert (backbone.state, backbone.bytes, backbone.parameters) == ("unknown", None, None)
    zoo = changed(detector={"backend": "detectron2", "model": "COCO-InstanceSegmentation/x.yaml"})
    assert find_models(zoo, HERE)[1].state == "unknown"  # never invented
    assert drawing_of(diffusion) is DRAWINGS[params.diffusion.model] is SD1


def test_a_snapshot_in_the_hubs_cache_is_found(tmp_path):
    from huggingface_hub import constants

    name, commit = "some/diffusion", "a" * 40
    repo = os.path.join(constants.HF_HUB_CACHE, "models--some--diffusion")
    folder = tiny.save_tiny_pipeline(tmp_path / "tiny")
    os.makedirs(os.path.join(repo, "refs"))
    with open(os.path.join(repo, "refs", "main"), "w") as handle:
        handle.write(commit)
    shutil.copytree(folder, os.path.join(repo, "snapshots", commit))
    found = find_models(changed(diffusion={"model": name}), HERE)[0]
    assert found.state == "on this machine" and found.folder.name == commit
    shutil.rmtree(os.path.join(repo, "snapshots", commit, "unet"))  # half a download
    assert find_models(changed(diffusion={"model": name}), HERE)[0].state == "unknown"


def test_files_of_a_variant_and_headers(tmp_path):
    save_file(
        {"a": torch.zeros(3, 5), "b": torch.zeros(2, dtype=torch.float16)},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    save_file({"a": torch.zeros(4)}, tmp_path / "model.fp16.safetensors")
    assert [f.name for f in weight_files(tmp_path)] == ["model.safetensors"]
    assert [f.name for f in weight_files(tmp_path, "fp16")] == ["model.fp16.safetensors"]
    assert [f.name for f in weight_files(tmp_path, "ema")] == ["model.safetensors"]
    assert count_parameters(tmp_path / "model.safetensors") == 17
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(ValueError, match="no whole safetensors file.*half a download"):
        count_parameters(tmp_path / "model.safetensors")


# Bytes, at the shape of Stable Diffusion v1


SD_PARAMS = changed(
    diffusion={"dtype": "float16", "batch_size": 8},
    grounding={
        "variant": "paper",
        "width": 512,
        "heads": 8,
        "batch_size": 8,
        "steps": 12_500,
        "evaluate_every": 500,
    },
    benchmark={"source": "none"},
)
COUNTS = Counts(
    train=10_000, sim=1_000, synthetic=10_000, image_words=17_600, synthetic_words=16_000
)


def test_the_papers_module_has_its_18_8_million_parameters():
    module, kept = grounding_size(SD_PARAMS, SD1)
    assert module == 18_796_560
    # A picture's features alone are 34.1 M numbers, 136 MB in float32; the encoder keeps more.
    assert 136e6 < kept < 500e6


def test_features_of_a_picture_are_65_mb_in_float16():
    """method.md 1.1: 34.1 M floats, 130 MB in float32 (binary)."""
    assert feature_bytes(SD1, 4) / 2**20 == pytest.approx(130, abs=0.5)
    assert feature_bytes(SD1, 2) * 2 == feature_bytes(SD1, 4)


def test_a_training_keeps_a_transformers_features_in_the_dtype_of_its_pass():
    flux = DRAWINGS["black-forest-labs/FLUX.1-dev"]
    half, whole = (
        dataclasses.replace(SD_PARAMS.diffusion, dtype=dtype) for dtype in ("bfloat16", "float32")
    )
    assert kept_bytes(flux, half) == 2 * 12_288 * 64**2
    assert kept_bytes(flux, whole) == 2 * kept_bytes(flux, half)
    assert kept_bytes(SD1, whole) == kept_bytes(SD1, half) == 2 * 34_078_720


def test_disk_by_stage():
    needs = disk_needs(COUNTS, SD1, SD_PARAMS, 24, 18_796_560, 44_549_160, picture_bytes=400_000)
    found = by_name(needs)
    assert found["images"] == 11_000 * (400_000 + 65_536 + 500) + 17_600 * 8_192
    assert "latent 64 KB" in next(n.how for n in needs if n.name == "images")
    assert found["masks"] == found["triplets"] == 17_600 * (2_048 + 500)
    assert found["grounding_model"] == 6 * 4 * 18_796_560
    assert found["synthetic_dataset"] == round(
        10_000 * (400_000 + 512 * 512 / 40 + 500) + 16_000 * 2_048
    )
    assert found["segmenter"] == round(4 * 1.3 * 44_549_160 * 6) + found["synthetic_dataset"]
    assert found["benchmark"] == found["real_bound"] == 0  # no real pictures
    assert found["benchmark_scores"] == 16 * 1_000 * 25**2  # a tenth of the set is held out
    assumed = by_name(disk_needs(COUNTS, SD1, SD_PARAMS, 24, 1, None))
    assert assumed["images"] == round(11_000 * (0.6 * 3 * 512**2 + 65_536 + 500) + 17_600 * 8_192)
    assert assumed["segmenter"] is None
    voc = changed(SD_PARAMS, benchmark={"source": "voc2012"})
    assert by_name(disk_needs(COUNTS, SD1, voc, 20, 1, 1))["benchmark"] == 1449 * 160_000
    own = changed(SD_PARAMS, benchmark={"source": "folder"})
    assert by_name(disk_needs(COUNTS, SD1, own, 20, 1, 1))["benchmark"] is None


def test_gpu_memory():
    found = by_name(gpu_needs(SD1, SD_PARAMS, 18_796_560, 177_000_000, 44_549_160))
    weights, features = 2 * 1_066_235_307, 2 * 34_078_720
    assert feature_bytes(SD1, 2) == features
    decode = 4 * 256 * 512**2 * 2
    assert found["images"] == weights + max(8 * 2 * features, decode) + CUDA_BYTES
    assert found["grounding_model"] == (
        weights + 16 * 18_796_560 + 8 * (177_000_000 + 3 * features) + CUDA_BYTES
    )
    assert found["segmenter"] == round(16 * 1.3 * 44_549_160) + CUDA_BYTES
    one = by_name(gpu_needs(SD1, SD_PARAMS, 18_796_560, 177_000_000, None, single=True, context=0))
    assert one["images"] == weights + decode and one["segmenter"] is None
    # SDXL's decoder works in float32 whatever the dtype.
    xl = by_name(gpu_needs(SDXL, SD_PARAMS, 1, 1, None, single=True, context=0))
    weights = 2 * sum(SDXL.parameters.values()) + 2 * 83_653_863
    assert xl["images"] == weights + 4 * 256 * 1024**2 * 4


def test_main_memory_holds_the_training_samples():
    found = by_name(ram_needs(COUNTS, SD1, SD_PARAMS, 1_500_000_000))
    libraries = 1_500_000_000
    assert found["images"] == libraries + 2 * 1_066_235_307  # float16
    assert found["grounding_model"] == (
        libraries + 10_000 * 65_536 + 17_600 * 16_384 + 3_000_000_000
    )
    seeded = changed(SD_PARAMS, grounding={"variant": "seeded"})  # three maps of evidence a word
    more = by_name(ram_needs(COUNTS, SD1, seeded, 1_500_000_000))["grounding_model"]
    assert more - found["grounding_model"] == 17_600 * 3 * 16_384


# Hours


@pytest.mark.parametrize(
    "pictures, uses, cached, expected",
    [
        (100, 1_000, 100, 100),  # all kept: once each
        (100, 1_000, 500, 100),
        (100, 1_000, 0, 1_000),  # none kept: at every use
        (100, 1_000, 25, 25 + 750),
        (100, 10, 100, 10),  # fewer uses than pictures
        (0, 10, 5, 0),
        (10, 0, 5, 0),
    ],
)
def test_passes_through_the_unet(pictures, uses, cached, expected):
    assert passes(pictures, uses, cached) == expected


FIGURES = Figures(
    draw=2.0,
    ground=0.3,
    evidence=0.4,
    features=0.1,
    grounding_step=0.5,
    validate=0.05,
    detect=0.08,
    segmenter_step=0.25,
)


def test_seconds_by_stage():
    params = changed(
        SD_PARAMS,
        triplets={"validation_share": 0.1},
        segmenter={"steps": 10_000},
        benchmark={"source": "voc2012"},
    )
    found = stage_seconds(COUNTS, FIGURES, params, cached=20)
    assert found["images"] == 11_000 * 2.0
    assert found["masks"] == pytest.approx(11_000 * 0.08)
    train = 20 + (1 - 20 / 9_000) * 12_500 * 8  # 25 evaluations of 1,000 pictures
    held = 20 + (1 - 20 / 1_000) * 25 * 1_000
    assert found["grounding_model"] == pytest.approx(
        (train + held) * 0.1 + 12_500 * 0.5 + 25 * 1_000 * 0.05
    )
    assert found["grounding_scores"] == pytest.approx(1_000 * 0.3)
    assert found["synthetic_dataset"] == pytest.approx(10_000 * 2.3)
    assert found["segmenter"] == found["real_bound"] == 2_500
    seeded = stage_seconds(COUNTS, FIGURES, changed(params, grounding={"variant": "seeded"}), 20)
    assert seeded["grounding_model"] == pytest.approx(found["grounding_model"] + 10_000 * 0.4)
    assert stage_seconds(COUNTS, FIGURES, SD_PARAMS, 20)["real_bound"] == 0


def test_a_step_is_timed_at_its_own_batch_whatever_comes_once(monkeypatch):
    """On a clock of its own: steps of an H200 at full size, of which sixteen take as long as two,
    and a second for what comes once a training. One picture, times sixteen, would say 1.07 s."""
    now, tried = [0.0], []

    def run(number, size):
        tried.append(size)
        now[0] += 1.0 + number * {1: 0.067, 16: 0.151}[size]

    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert timing.step_seconds(run, 16) == pytest.approx(0.151)
    assert tried[-2:] == [16, 16]


def test_a_slow_step_is_timed_with_one_picture(monkeypatch):
    now = [0.0]

    def run(number, size):
        now[0] += number * size * 2.0

    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert timing.step_seconds(run, 16) == pytest.approx(32.0)
    assert now[0] < 30


def test_what_was_not_measured_is_unknown():
    found = stage_seconds(
        COUNTS, dataclasses.replace(FIGURES, detect=None, ground=None), SD_PARAMS, 20
    )
    unknown = {name for name, value in found.items() if value is None}
    assert unknown == {"masks", "grounding_scores", "synthetic_dataset"}
    nothing = stage_seconds(
        Counts(0, 0, 0, 0, 0),
        Figures(),
        changed(SD_PARAMS, segmenter={"steps": 0}, grounding={"steps": 0}),
        0,
    )
    assert set(nothing.values()) == {0}  # what is not asked for costs nothing


def test_figures_are_shown_in_fitting_units():
    assert [show_seconds(s) for s in (59, 600, 7200, None)] == [
        "59 s",
        "10 min",
        "2.0 h",
        "unknown",
    ]
    assert [show_bytes(b) for b in (65_536, 3.2e6, 4.3e9, None)] == [
        "66 KB",
        "3.2 MB",
        "4.3 GB",
        "unknown",
    ]


# The command


def run(tmp_path, capsys, text="", *arguments) -> tuple[int, str]:
    profile = tmp_path / "mine.yaml"
    profile.write_text(text or "seed: 0\n")
    done = main(["plan", "--profile", str(profile), "--root", str(tmp_path), *arguments])
    said = capsys.readouterr()
    return done, said.out + said.err


def test_plan_of_the_micro_profile(tmp_path, capsys):
    done, said = run(tmp_path, capsys, "", "--no-probe", "--images", "3000")
    assert done == 0, said
    assert "3000 synthetic (prompts.synthetic_one 1125, synthetic_two 1875)" in said
    assert "data/foundation/micro/diffusion" in said and "time: not measured" in said
    assert "latent 6 KB" in said and "no features" in said and "free" in said


def test_plan_of_a_full_profile_without_its_weights(tmp_path, capsys):
    done, said = run(tmp_path, capsys, BIG, "--no-probe")
    assert done == 0, said
    assert "4.3 GB  to download" in said and "latent 64 KB" in said


FLOW_NAME = "FlowMatchEulerDiscreteScheduler"


@pytest.mark.parametrize(
    "model, scheduler, said",
    [
        ("black-forest-labs/FLUX.1-dev", "DDIMScheduler", "was trained by flow matching: expected"),
        ("stabilityai/stable-diffusion-3.5-medium", "DDIMScheduler", "by flow matching: expected"),
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", FLOW_NAME, "Stable Diffusion 1, 2 and XL"),
        ("", FLOW_NAME, "Stable Diffusion 1, 2 and XL"),
    ],
)
def test_a_scheduler_of_the_other_process_is_refused(tmp_path, capsys, model, scheduler, said):
    """Of a model that is to be downloaded, or in a folder, the last one."""
    text = small(tmp_path, model or tiny.save_tiny_pipeline(tmp_path / "tiny"))
    capsys.readouterr()  # the saving's progress
    text = text.replace("diffusion: {", f"diffusion: {{scheduler: {scheduler}, ")
    done, printed = run(tmp_path, capsys, text)
    assert done == INPUT and printed.startswith("error: diffusion.scheduler: ") and said in printed


def test_a_model_that_nobody_knows_is_not_planned(tmp_path, capsys):
    done, said = run(tmp_path, capsys, "diffusion: {model: some/model}\n", "--no-probe")
    assert done == 0 and "unknown          some/model" in said
    assert "neither on this machine nor in the table" in said and "disk, when" not in said


Usage = namedtuple("Usage", "total used free")


def test_a_full_disk_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2e9, 1e9, 100e6))
    done, said = run(tmp_path, capsys, "", "--no-probe", "--images", "10000")
    assert done == 4 and "refused: disk: " in said and "100.0 MB are free" in said
    assert "ask for fewer pictures" in said


def test_what_is_on_disk_already_is_not_needed_again(tmp_path, capsys, monkeypatch):
    need = sum(
        n.bytes for n in make_plan(load_params(), Workspace(tmp_path, "micro"), probe=False).disk
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, need))
    assert run(tmp_path, capsys, "", "--no-probe")[0] == 4  # 5 % more is asked for
    made = tmp_path / "data" / "mine" / "images"
    made.mkdir(parents=True)
    (made / "shard").write_bytes(bytes(need // 10))
    assert run(tmp_path, capsys, "", "--no-probe")[0] == 0


def test_downloads_count_where_the_cache_is(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 4e9))
    done, said = run(
        tmp_path,
        capsys,
        BIG + "prompts: {train_one: 10, train_two: 10, "
        "sim_per_cell: 1, synthetic_one: 5, synthetic_two: 5}\n",
        "--no-probe",
    )
    assert done == 4 and "refused: disk" in said  # 4.3 GB of weights do not fit


def test_too_little_main_memory_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(verdicts, "ram_bytes", lambda: 1_000_000_000)
    done, said = run(tmp_path, capsys, "", "--no-probe")
    assert done == 4 and "refused: main memory: " in said and "1.0 GB" in said
    assert "fewer training pictures" in said


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CGROUP_LIMIT", tmp_path / "memory.max")
    whole = ram_bytes()
    (tmp_path / "memory.max").write_text("123456\n")
    assert ram_bytes() == 123_456
    (tmp_path / "memory.max").write_text("max\n")
    assert ram_bytes() == whole


Card = namedtuple("Card", "total_memory")


def put_in_card(monkeypatch, gigabytes: float) -> None:
    """As if there were a GPU of so much memory, for what a plan says of it."""
    monkeypatch.setattr(making, "find_profile_device", lambda made: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda d: Card(gigabytes * 1e9))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda d: (gigabytes * 1e9, gigabytes * 1e9))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda d: "a card")
    monkeypatch.setattr(verdicts, "ram_bytes", lambda: 10**12)


def gpu_plan(tmp_path, monkeypatch, gigabytes: float, **diffusion):
    """A plan of SD 1.5 in float32, or another, with a GPU of so much memory."""
    put_in_card(monkeypatch, gigabytes)
    params = changed(
        SD_PARAMS,
        diffusion={"model": "stable-diffusion-v1-5/stable-diffusion-v1-5", "dtype": "float32"}
        | diffusion,
    )
    return make_plan(params, Workspace(tmp_path, "x"), probe=False)


def test_a_small_gpu_is_refused_a_middle_one_halves_its_batches(tmp_path, monkeypatch):
    small = gpu_plan(tmp_path, monkeypatch, 4)  # the weights alone are 4.3 GB
    assert any(
        r.startswith("GPU memory: ") and "set diffusion.dtype to float16" in r
        for r in small.refusals
    )
    middle = gpu_plan(tmp_path, monkeypatch, 8)
    assert not middle.refusals and any("halved as the run goes" in note for note in middle.notes)
    large = gpu_plan(tmp_path, monkeypatch, 80)
    assert not large.refusals and not any("halved" in note for note in large.notes)


FLUX = {
    "model": "black-forest-labs/FLUX.1-dev",
    "dtype": "bfloat16",
    "scheduler": "FlowMatchEulerDiscreteScheduler",
}


@pytest.mark.parametrize(
    "gigabytes, way",
    [
        (32, "set diffusion.offload to model \\(2"),  # the transformer alone is 23.8 GB
        (22, "set diffusion.quantise to int8 \\("),  # 11.9 + 4.8 GB and CLIP
        (15, "set diffusion.offload to model and diffusion.quantise to int8 \\(1"),
        (8, "set diffusion.offload to sequential \\("),
        (1, "take a smaller model"),
    ],
)
def test_plan_says_what_makes_a_large_model_fit(tmp_path, monkeypatch, gigabytes, way):
    plan = gpu_plan(tmp_path, monkeypatch, gigabytes, **FLUX)
    assert plan.models[0].bytes == 2 * (11_901_408_320 + 4_762_310_656 + 123_060_480 + 83_819_683)
    (refused,) = [r for r in plan.refusals if r.startswith("GPU memory")]
    assert re.search(way, refused)
    assert not [r for r in gpu_plan(tmp_path, monkeypatch, 80, **FLUX).refusals]


def test_plan_names_only_what_changes_and_what_goes_together(tmp_path, monkeypatch):
    """Weights of 8 bits can't come layer by layer; what is set already is not named again."""
    for gigabytes, asked, said in (
        (8, {"quantise": "int8"}, "diffusion.offload to sequential and diffusion.quantise to null"),
        (15, {"quantise": "int8"}, "diffusion.offload to model"),
        (15, {"offload": "model"}, "diffusion.quantise to int8"),
    ):
        plan = gpu_plan(tmp_path, monkeypatch, gigabytes, **FLUX, **asked)
        (refused,) = [r for r in plan.refusals if r.startswith("GPU memory")]
        assert f"set {said} (" in refused


def test_weights_that_wait_or_have_8_bits_are_counted_so():
    flux, both = DRAWINGS[FLUX["model"]], {"offload": "model", "quantise": "int8"}
    sizes = {
        name: weight_bytes(flux, dataclasses.replace(SD_PARAMS.diffusion, **FLUX, **more))[0]
        for name, more in {
            "plain": {},
            "offload": {"offload": "model"},
            "quantise": {"quantise": "int8"},
            "both": both,
        }.items()
    }
    large, t5, small = 11_901_408_320, 4_762_310_656, 123_060_480 + 83_819_683
    assert sizes == {
        "plain": 2 * (large + t5 + small),
        "offload": 2 * large,
        "quantise": large + t5 + 2 * small,
        "both": large,
    }


def test_real_data_that_is_not_there_is_refused_before_the_first_picture(tmp_path, capsys):
    text = f"benchmark: {{source: voc2012, root: {tmp_path / 'nowhere'}}}\n"
    done, said = run(tmp_path, capsys, text, "--no-probe")
    assert done == 2 and said.count("refused: benchmark.root: no folder") == 1
    assert "nothing is downloaded" in said


def test_no_gpu_where_one_is_asked_for(tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done, said = run(tmp_path, capsys, BIG.replace("dtype", "device: cuda, dtype"))
    assert done == 2 and "refused: diffusion.device 'cuda' is not available here" in said
    assert "disk, when all is made" in said  # the rest is planned all the same


def test_what_a_stage_would_refuse_ends_with_the_stages_code(tmp_path, capsys, monkeypatch):
    """A missing device and missing data end `plan` as they end a stage, also on a full disk."""
    absent = "cuda:99"  # on no machine
    device = BIG.replace("dtype", f"device: {absent}, dtype")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2e9, 1e9, 100e6))
    planned, said = run(tmp_path, capsys, device, "--no-probe")
    assert "refused: disk: " in said and f"refused: diffusion.device '{absent}'" in said
    monkeypatch.undo()
    staged = exit_path(lambda: find_device(absent))()
    assert planned == staged == INPUT
    text = f"benchmark: {{source: voc2012, root: {tmp_path / 'nowhere'}}}\n"
    planned, _ = run(tmp_path, capsys, text, "--no-probe")
    staged = main(["benchmark", "--profile", str(tmp_path / "mine.yaml"), "--root", str(tmp_path)])
    assert planned == staged == INPUT


@pytest.mark.parametrize(
    "text, match",
    [
        ("vocabulary: none.yaml\n", "unknown vocabulary 'none.yaml'"),
        ("prompts: {texts: none.txt}\n", "no file none.txt"),
        ("prompts: {plain_share: 2}\n", "plain_share: expected a number from 0 to 1"),
    ],
)
def test_settings_that_the_first_stage_would_refuse(tmp_path, capsys, text, match):
    done, said = run(tmp_path, capsys, text, "--no-probe")
    assert done == 2 and said.startswith("error: ") and match in said


def test_unknown_profile(capsys):
    assert main(["plan", "--profile", "sd16", "--no-probe"]) == 2
    assert "unknown profile 'sd16': expected 'micro'" in capsys.readouterr().err


# The probe


SMALL = """
vocabulary: {words}
diffusion: {{model: {folder}, batch_size: 2, steps: 4}}
grounding: {{width: 32, layers: 1, batch_size: 2}}
detector: {{batch_size: 2}}
segmenter: {{batch_size: 2, scale: 1}}
"""


def small(tmp_path, folder: Path) -> str:
    """SMALL with words that the tiny model's tokenizer knows."""
    words = tmp_path / "words.yaml"
    words.write_text(
        "seen: [cat, bus, car, horse]\nunseen: [dog, sheep]\nwords: {bus: [bus], car: [car]}\n"
    )
    return SMALL.format(folder=folder, words=words)


def test_the_probe_runs_real_models(tmp_path, capsys):
    """A tiny Stable Diffusion with random weights, the micro detector and backbone."""
    folder = tiny.save_tiny_pipeline(tmp_path / "tiny")
    done, said = run(tmp_path, capsys, small(tmp_path, folder))
    assert done == 0, said
    assert "time on " in said and "PNG measured" in said
    assert re.search(r"\b[12] pictures at once", said)  # one on a machine that is busy
    assert "unknown" not in said and "not measured" not in said
    assert not list((tmp_path / "data").rglob("*"))  # nothing is kept


def test_the_probe_names_what_it_cannot_load(tmp_path, capsys):
    folder = tiny.save_tiny_pipeline(tmp_path / "tiny")
    (folder / "unet" / "config.json").write_text(
        json.dumps(json.loads((folder / "unet" / "config.json").read_text()) | {"sample_size": 16})
    )
    (folder / "scheduler" / "scheduler_config.json").unlink()
    text = small(tmp_path, folder).replace("detector: {", "detector: {model: coco, ")
    done, said = run(tmp_path, capsys, text)
    assert done == 0 and "not measured: diffusion.model: " in said
    assert "not measured: detector.model: coco is not on this machine yet" in said
    assert "and what is unknown" in said


def test_each_part_of_the_probe_begins_without_the_models_of_the_one_before(
    tmp_path, capsys, monkeypatch
):
    """Also of those in a cycle of references, as accelerate leaves networks that wait."""
    load, detect, made, alive = probe.load_pipeline, probe.probe_detector, [], []

    def loaded(*arguments):
        pipe = load(*arguments)
        pipe.unet.waiting = [pipe]
        made.append(weakref.ref(pipe.unet))
        return pipe

    def detected(*arguments):
        alive.extend(network() is not None for network in made)
        return detect(*arguments)

    monkeypatch.setattr(probe, "load_pipeline", loaded)
    monkeypatch.setattr(probe, "probe_detector", detected)
    gc.disable()
    try:
        done, said = run(tmp_path, capsys, small(tmp_path, tiny.save_tiny_pipeline(tmp_path / "t")))
    finally:
        gc.enable()
    assert done == 0, said
    assert alive == [False]


def test_weights_that_do_not_fit_the_gpu_are_refused_on_the_page(tmp_path, capsys, monkeypatch):
    """They fail on their way to the device, before there is a batch to halve, by torch's error."""

    def full(pipe, device):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 64 MiB.\nMore of it")

    text = small(tmp_path, tiny.save_tiny_pipeline(tmp_path / "tiny"))
    monkeypatch.setattr(StableDiffusionPipeline, "to", full)
    put_in_card(monkeypatch, 0.5)
    done, said = run(tmp_path, capsys, text)
    assert done == 4 and "error" not in said, said
    assert "not measured: diffusion.model: CUDA out of memory. Tried to allocate 64 MiB.\n" in said
    assert "refused: GPU memory: " in said and "detector.model:" not in said


def test_a_defect_in_the_probe_is_not_taken_for_too_little_memory(tmp_path, capsys, monkeypatch):
    def broken(pipe, device):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    text = small(tmp_path, tiny.save_tiny_pipeline(tmp_path / "tiny"))
    monkeypatch.setattr(StableDiffusionPipeline, "to", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        run(tmp_path, capsys, text)


@pytest.mark.slow
def test_the_probe_at_micro_size_has_the_proportions_of_a_real_run(tmp_path, monkeypatch):
    """docs/summary.json has what each stage took on another machine. How fast a machine is
    cancels in the shares; 0.4 to 2.5 leaves room for cores and for early stopping."""
    took = json.loads((ROOT / "docs" / "summary.json").read_text())["wall_seconds"]
    found = make_plan(load_params(), Workspace(tmp_path, "micro"))
    assert found.probe.missed == {}
    stages = ("images", "grounding_model", "synthetic_dataset", "segmenter", "real_bound")
    planned, real = (sum(times[s] for s in stages) for times in (found.seconds, took))
    for stage in stages:
        share = (found.seconds[stage] / planned) / (took[stage] / real)
        assert 0.4 < share < 2.5, (stage, share)


def test_a_missing_figure_counts_only_where_something_is_multiplied_by_it():
    assert times((3, 2.0), (0, None)) == 6.0
    assert times((3, 2.0), (1, None)) is None


def test_own_pictures_with_masks_are_looked_through_before_anything_starts(tmp_path):
    """What they teach is noted; what the stages would refuse makes the profile unusable."""
    folder = write_folder(tmp_path / "own", scenes_of(["cat"], ["bird"], ["cat"]), ("cat", "bird"))
    params = changed(triplets={"labels": str(folder)})
    plan = make_plan(params, HERE, probe=False)
    assert not plan.unusable
    assert "own pictures with masks: 3 (bird in 1, cat in 2), which judge nothing" in plan.notes
    dogs = write_folder(tmp_path / "dogs", scenes_of(["dog"]), ("dog",))
    for labels, match in ((dogs, "lists under `unseen:`"), (tmp_path / "no", "no folder")):
        plan = make_plan(changed(triplets={"labels": str(labels)}), HERE, probe=False)
        assert len(plan.unusable) == 1 and match in plan.unusable[0]
