"""Checkpoints that people bring: every weight accounted for, finite numbers in every batch."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from transformers import ResNetConfig, ResNetForImageClassification

from benchmarks.random_weights import random_pipeline
from ml.compute.losses import CHECK_EVERY, Losses
from ml.compute.weights import account, load_whole
from ml.detectors.base import Detector
from ml.diffusion.evidence import leave_one_out, prediction_errors
from ml.diffusion.features import denoiser_features
from ml.diffusion.inversion import invert
from ml.diffusion.latents import encode_images
from ml.diffusion.sampling import sample
from ml.diffusion.tokens import text_length
from ml.errors import NotFinite
from ml.grounding.config import make_config
from ml.grounding.features import FeatureSource
from ml.grounding.module import GroundingModule
from ml.grounding.samples import Sample
from ml.images.stored import Pictures
from ml.pipeline.workspace import Workspace
from ml.segmenters import load_segmenter, maskformer, segformer
from ml.segmenters.backbones import load_backbone
from ml.settings.profile import ROOT, load_params
from ml.store.folder_digest import sha256_folder
from tests.builders.tiny import LENGTH, edit, load, save_tiny_pipeline, tiny_pipeline

MICRO = ROOT / "data/foundation/micro"
ONE = "a photograph of a bus"


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


SPOILT = {
    "missing": "1 of its weights are missing",
    "shape": "1 have another shape",
    "unknown": r"1 are unknown \(some.other.weight\)",
    "lora": "LoRA.*fuse_lora",
    "nan": "has NaN or infinite numbers",
}


# --- weights, in every part of every kind of model


@pytest.mark.parametrize("what", SPOILT)
@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_pipeline_of_which_a_part_has_other_weights(tiny_copy, part, what):
    spoil(tiny_copy / part, what)
    with pytest.raises(ValueError, match=f"{part}: .*{SPOILT[what]}"):
        load(tiny_copy)


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2"])
def test_both_text_encoders_of_sdxl(tmp_path, part):
    random_pipeline("tiny-xl").save_pretrained(tmp_path / "xl", safe_serialization=True)
    assert load(tmp_path / "xl").text_encoder_2 is not None
    spoil(tmp_path / "xl" / part, "lora")
    with pytest.raises(ValueError, match=f"{part}: .*LoRA"):
        load(tmp_path / "xl")


def test_the_names_of_published_files_are_no_other_weights(tiny_copy):
    """SD 1.5's text encoder has a prefix and a counted buffer that today's class has not."""
    (file,) = (tiny_copy / "text_encoder").glob("*.safetensors")
    tensors = {
        f"text_model.{name.removeprefix('text_model.')}": value
        for name, value in load_file(file).items()
    }
    tensors["text_model.embeddings.position_ids"] = torch.arange(LENGTH)[None]
    save_file(tensors, file, metadata={"format": "pt"})
    loaded = load(tiny_copy, dtype="float32").text_encoder.state_dict()
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
        maskformer.build(
            MICRO / "backbone", ["background", "dog"], load_params().segmenter
        ).save_pretrained(folder)
        read = lambda: load_segmenter(folder)  # noqa: E731
    else:
        params = dataclasses.replace(load_params().grounding, width=32, layers=1, heads=2)
        GroundingModule(make_config(params, {4: 16, 8: 8, 16: 8}, 16, 64, 60)).save_pretrained(
            folder
        )
        read = lambda: GroundingModule.from_pretrained(folder)  # noqa: E731
    read()
    spoil(folder, what)
    with pytest.raises(ValueError, match=SPOILT[what]):
        read()


def test_what_is_counted_or_computed_may_be_there_or_not():
    names = [
        "a.num_batches_tracked",
        "embeddings.position_ids",
        "criterion.empty_weight",
        "attention.relative_position_index",
    ]
    account("x", names, names, [])
    with pytest.raises(ValueError, match="x: .*1 of its weights are missing .a.running_mean"):
        account("x", ["a.running_mean"], [], [])


def test_a_detector_whose_scores_are_not_finite():
    class Broken(Detector):
        def predict(self, images):
            return [(np.ones((1, 4, 4), bool), [np.nan], ["dog"], np.zeros((1, 4)))]

    with pytest.raises(NotFinite, match="Broken: expected finite scores"):
        Broken(["dog"], score_threshold=0.5, batch_size=1).detect([np.zeros((4, 4, 3), np.uint8)])


@pytest.mark.parametrize(
    "name", ["ml.words.vocabulary", "ml.diffusion.schedulers", "ml.cli.planning.models"]
)
def test_settings_are_checked_without_the_seconds_of_an_import(name):
    code = f"import sys, {name}; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def small_classifier(folder: Path, labels: int) -> None:
    ResNetForImageClassification(
        ResNetConfig(
            embedding_size=8,
            hidden_sizes=[8, 8, 8, 8],
            depths=[1, 1, 1, 1],
            layer_type="basic",
            num_labels=labels,
        )
    ).save_pretrained(folder)


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
        assert all(
            torch.equal(body[n.removeprefix("resnet.")], v)
            for n, v in tensors.items()
            if n.startswith("resnet.")
        )


# --- files that there need not be


def test_a_model_that_names_a_feature_extractor_it_does_not_have(tiny_copy):
    edit(
        tiny_copy / "model_index.json",
        feature_extractor=["transformers", "CLIPImageProcessor"],
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        image_encoder=["transformers", "CLIPVisionModelWithProjection"],
    )
    pipe = load(tiny_copy)
    assert pipe.feature_extractor is None and pipe.safety_checker is None
    assert sample(pipe, [ONE], [0], steps=2, guidance_scale=3.0).images.shape == (1, 64, 64, 3)


def test_a_tokenizer_that_does_not_know_its_length(tiny_copy):
    edit(tiny_copy / "tokenizer" / "tokenizer_config.json", model_max_length=None)
    pipe = load(tiny_copy)
    assert text_length(pipe) == LENGTH
    ours = sample(pipe, [ONE], [0], steps=2, guidance_scale=3.0, words=[["bus"]])
    theirs = sample(
        load(save_tiny_pipeline(tiny_copy.parent / "whole")),
        [ONE],
        [0],
        steps=2,
        guidance_scale=3.0,
        words=[["bus"]],
    )
    assert np.array_equal(ours.images, theirs.images)
    assert torch.equal(ours.daam[0], theirs.daam[0])


def test_a_tokenizer_with_more_tokens_than_embeddings(tiny_copy):
    pipe = tiny_pipeline()
    pipe.tokenizer.add_tokens(["<my-cat>"])
    pipe.tokenizer.save_pretrained(tiny_copy / "tokenizer")
    with pytest.raises(ValueError, match="tokenizer has .* tokens, text_encoder embeddings of"):
        load(tiny_copy)


# --- finite numbers


def big(module, factor: float) -> None:
    """Makes a module's output too large for its dtype."""
    for weight in module.parameters():
        weight.data.mul_(factor)


def test_the_first_batch_that_is_not_finite_stops(tiny_model):
    said = "diffusion.dtype float32, diffusion.scheduler DDIMScheduler.*bfloat16 or float32"
    latents, picture = torch.ones(1, 6, 16, 16), np.zeros((1, 64, 64, 3), np.uint8)
    pipe = load(tiny_model, scheduler="DDIMScheduler", dtype="float32")
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
        lambda: denoiser_features(pipe, latents, [ONE], 60),
    ):
        with pytest.raises(NotFinite, match=f"the denoiser's predictions.*{said}"):
            work()


def test_float16_that_overflows_stops_at_the_first_batch(tiny_model):
    """The weights fit, but what the VAE makes of latents passes 65,504."""
    pipe = load(tiny_model, scheduler="DDIMScheduler", dtype="float16")
    for weight in pipe.vae.decoder.conv_in.parameters():
        large = weight.float()
        weight.data = (large * (60_000 / large.abs().max())).half()
    assert all(torch.isfinite(p).all() for p in pipe.vae.parameters())
    with pytest.raises(NotFinite, match="diffusion.dtype float16.*DDIMScheduler"):
        sample(pipe, [ONE], [0], steps=2, guidance_scale=3.0)


def test_features_that_a_training_would_keep_as_infinity(tiny_model):
    """Features are kept in float16 whatever the dtype."""
    pipe = load(tiny_model)
    shown = Sample(
        "a",
        ONE,
        ("bus",),
        ("bus",),
        ("a bus",),
        "",
        "train",
        0,
        (64, 64),
        tiny_model,
        0,
        Pictures(),
        np.ones((6, 16, 16), np.float32),
        60,
        ("",),
        np.zeros((1, 16, 16)),
    )
    assert all(
        torch.isfinite(f).all() for f in FeatureSource(pipe, [shown]).batch([0]).features.values()
    )
    big(pipe.unet.conv_in, 1e7)
    with pytest.raises(NotFinite, match="features at 4x4 pixels, kept in float16.*float32"):
        FeatureSource(pipe, [shown]).batch([0])


def test_a_training_whose_loss_is_not_finite_stops():
    """Both trainings give their losses to `Losses`."""
    losses = Losses("Linear")
    for value in (0.5, 0.25):
        losses.add(torch.tensor(value))
    assert losses.taken() == [0.5, 0.25] and losses.taken() == []
    for bad in (torch.nan, torch.inf):
        with pytest.raises(NotFinite, match="loss of Linear.*learning_rate.*precision"):
            losses.add(torch.tensor(bad))


def test_losses_of_a_gpu_are_read_a_few_at_a_time_and_none_is_missed():
    """Here of torch's own device without numbers but its name: the reading is counted instead."""
    read = []

    class Far(torch.Tensor):
        """A number that says it lies elsewhere."""

        device = torch.device("cuda")

    class Watched(Losses):
        def _look(self) -> None:
            read.append(len(self._pending))
            self._pending = [loss.as_subclass(torch.Tensor) for loss in self._pending]
            super()._look()

    losses = Watched("Linear")
    for _ in range(2 * CHECK_EVERY + 3):
        losses.add(torch.tensor(1.0).as_subclass(Far))
    assert read == [CHECK_EVERY] * 2
    assert losses.taken() == [1.0] * (2 * CHECK_EVERY + 3)
    losses.add(torch.tensor(torch.nan).as_subclass(Far))
    with pytest.raises(NotFinite, match="loss of Linear"):
        losses.taken()


def test_a_segmenter_that_is_not_finite_does_not_say_background():
    params = load_params().segmenter
    model = maskformer.build(MICRO / "backbone", ["background", "dog"], params).eval()
    big(model.class_predictor, torch.nan)
    with torch.no_grad(), pytest.raises(NotFinite, match="segmenter's scores"):
        maskformer.label_scores(model, torch.zeros(1, 3, 64, 64))
    assert segformer.finite_scores is maskformer.finite_scores


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


@pytest.mark.parametrize(
    "backend, name",
    [
        ("torchvision", "coco"),
        ("detectron2", "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"),
    ],
)
def test_a_backends_own_name_comes_before_a_folder_of_that_name(tmp_path, backend, name):
    (tmp_path / name).mkdir(parents=True)
    workspace = Workspace(tmp_path, "micro")
    detector = dataclasses.replace(load_params().detector, backend=backend, model=name)
    assert workspace.detector(detector) == name
    own = dataclasses.replace(detector, backend="transformers")
    assert workspace.detector(own) == str(tmp_path / name)
