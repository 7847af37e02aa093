"""The three kinds of folders that are opened, and those that are refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from diffusers import LCMScheduler
from PIL import Image

import ml
from ml import GroundedDiffusionPipeline, load_segmenter, load_vocabulary
from ml.segmenters.prediction import predict
from ml.segmenters.processor import image_processor
from ml.store.manifest import read_manifest, write_manifest
from tests.builders.doors import BACKBONE, DIFFUSION, downloaded_folder, segmenter_folder
from tests.builders.grounded import make_pipeline

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
SMOOTH = np.asarray(Image.fromarray(PICTURE[:4, :4]).resize((64, 64), Image.Resampling.BICUBIC))


def masks(pipe: GroundedDiffusionPipeline) -> np.ndarray:
    found = pipe.ground(PICTURE, entities=["dog", "bus"])
    return np.stack(list(found.probabilities[0].values()))


@pytest.fixture
def copied(grounding_folder, door_root, tmp_path):
    """The stage's grounding_folder under another door_root, its diffusion model linked."""
    shutil.copytree(grounding_folder, tmp_path / grounding_folder.relative_to(door_root))
    (tmp_path / DIFFUSION).parent.mkdir(parents=True)
    shutil.copytree(door_root / DIFFUSION, tmp_path / DIFFUSION)
    return tmp_path / grounding_folder.relative_to(door_root)


def test_what_is_saved_opens_as_it_was(door, tmp_path):
    door.save_pretrained(tmp_path / "saved")
    again = GroundedDiffusionPipeline.from_pretrained(tmp_path / "saved")
    assert np.allclose(masks(again), masks(door), atol=1e-5)
    assert (again.num_inference_steps, again.guidance_scale) == (15, 4.0)
    assert type(again.pipe.scheduler) is type(door.pipe.scheduler)
    assert again.engine.batches.size == 40


@pytest.mark.parametrize("where", ["diffusion", "grounding", "after both"])
def test_a_stopped_save_leaves_no_mixture(where, tmp_path, monkeypatch):
    """Before the copy is whole the older folder is as it was, later none is opened; what somebody
    else put there stays."""
    first, other = make_pipeline(), make_pipeline()
    with torch.no_grad():
        for weight in other.module.parameters():
            weight.mul_(1.5)
    first.save_pretrained(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")

    def stop(*given, **named):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if where == "diffusion":
            patch.setattr(type(other.pipe), "save_pretrained", stop)
        elif where == "grounding":
            patch.setattr(type(other.module), "save_pretrained", stop)
        else:
            patch.setattr("ml.grounding.saving.write_json", stop)
        with pytest.raises(OSError, match="No space left"):
            other.save_pretrained(tmp_path)
    if where == "diffusion":
        assert np.allclose(masks(GroundedDiffusionPipeline.from_pretrained(tmp_path)), masks(first))
    else:
        with pytest.raises(ValueError, match="no pipeline.json"):
            GroundedDiffusionPipeline.from_pretrained(tmp_path)
    other.save_pretrained(tmp_path)
    assert np.allclose(masks(GroundedDiffusionPipeline.from_pretrained(tmp_path)), masks(other))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_refused_save_leaves_the_older_folder(tmp_path):
    own = make_pipeline()
    own.save_pretrained(tmp_path)
    (tmp_path / "diffusion/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="diffusion holds notes.txt"):
        own.save_pretrained(tmp_path)
    assert np.allclose(masks(GroundedDiffusionPipeline.from_pretrained(tmp_path)), masks(own))


def test_what_could_not_be_opened_is_not_written(tmp_path):
    own = make_pipeline()
    for given, match in (
        ({"variant": "fp16"}, "got variant='fp16' alone; add diffusion="),
        ({"revision": "main"}, "got revision='main' alone; add diffusion="),
    ):
        with pytest.raises(ValueError, match=match):
            own.save_pretrained(tmp_path / "saved", **given)
    own.pipe.scheduler = LCMScheduler.from_config(own.pipe.scheduler.config)
    with pytest.raises(ValueError, match="LCMScheduler is not opened.*expected one of .*DDIM"):
        own.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_stage_opens_from_any_place_and_writes_nothing(copied, door, monkeypatch, tmp_path):
    before = sorted(copied.rglob("*"))
    monkeypatch.chdir(tmp_path.parent)
    for path in (copied, str(copied)):
        assert np.allclose(masks(GroundedDiffusionPipeline.from_pretrained(path)), masks(door))
    monkeypatch.chdir(copied)
    assert GroundedDiffusionPipeline.from_pretrained(".").num_inference_steps == 15
    assert sorted(copied.rglob("*")) == before


def test_a_stage_that_recorded_a_revision_of_a_folder_opens(copied):
    """As earlier versions let it: what is finished stays valid."""
    manifest = read_manifest(copied)
    drawing = manifest.params["diffusion"] | {"revision": "nosuch"}
    write_manifest(copied, dataclasses.replace(manifest, params={"diffusion": drawing}))
    assert GroundedDiffusionPipeline.from_pretrained(copied).num_inference_steps == 15


def test_a_stage_with_another_diffusion_model_is_refused(copied, tmp_path):
    weights = tmp_path / DIFFUSION / "scheduler/scheduler_config.json"
    weights.write_text(weights.read_text() + "\n")
    with pytest.raises(ValueError, match="is not the diffusion model that .* was trained with"):
        GroundedDiffusionPipeline.from_pretrained(copied)


def test_a_stage_whose_diffusion_model_is_gone_is_refused(copied, monkeypatch, tmp_path):
    shutil.rmtree(tmp_path / DIFFUSION)
    monkeypatch.setattr("ml.grounding.opening.ROOT", tmp_path)
    with pytest.raises(ValueError, match="bring it back"):
        GroundedDiffusionPipeline.from_pretrained(copied)


def test_a_damaged_stage_is_refused(copied):
    manifest = copied / "manifest.json"
    values = json.loads(manifest.read_text())
    values["params"]["diffusion"]["steps"] = 3
    manifest.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="manifest"):
        GroundedDiffusionPipeline.from_pretrained(copied)


def test_a_changed_module_is_refused(copied):
    file = copied / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\1\0")
    with pytest.raises(ValueError, match="model.safetensors"):
        GroundedDiffusionPipeline.from_pretrained(copied)


def test_a_download_from_the_registry_opens(door, tmp_path):
    door.save_pretrained(tmp_path / "packed")
    folder = downloaded_folder(tmp_path / "downloaded", tmp_path / "packed")
    for path in (folder, folder / "artifacts" / "model"):
        again = GroundedDiffusionPipeline.from_pretrained(path)
        assert np.allclose(masks(again), masks(door), atol=1e-5)


@pytest.mark.parametrize("opener", [GroundedDiffusionPipeline.from_pretrained, load_segmenter])
def test_an_address_of_the_registry_says_how_to_download_it(opener):
    with pytest.raises(ValueError, match="mlflow artifacts download --artifact-uri models:/x@y "):
        opener("models:/x@y")


def test_other_folders_are_refused(tmp_path, segmenter_made, grounding_folder):
    for other in (tmp_path, segmenter_made / "model"):
        with pytest.raises(ValueError, match="no pipeline.json in .*save_pretrained.*registry"):
            GroundedDiffusionPipeline.from_pretrained(other)
    for other in (tmp_path, grounding_folder):
        with pytest.raises(ValueError, match="no segmenter in"):
            load_segmenter(other)


OPENERS = [GroundedDiffusionPipeline.from_pretrained, load_segmenter]


@pytest.mark.parametrize("opener", OPENERS)
def test_a_folder_that_is_not_there_is_named_whole(opener, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for name, what in (("data/nowhere", "does not exist"), ("file", "is a file")):
        with pytest.raises(ValueError) as error:
            opener(name)
        assert f"'{tmp_path / name}' {what}" in str(error.value)
        assert f"(working directory: '{tmp_path}')" in str(error.value)


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("folder", [None, 3, ["data"]])
def test_what_is_no_path_is_refused(opener, folder):
    with pytest.raises(ValueError, match="_(pretrained|segmenter): expected the path of a folder"):
        opener(folder)


def test_a_vocabulary_that_is_not_there_is_named_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as error:
        load_vocabulary("farm.yaml")
    assert f"no file {tmp_path / 'farm.yaml'}" in str(error.value)
    (tmp_path / "farm.yaml").write_text("seen: [cow]\n")
    assert load_vocabulary(Path("farm.yaml")).seen == ("cow",)
    for wrong in (["dog"], None, 3):
        with pytest.raises(ValueError, match="expected a vocabulary's name or the path of a YAML"):
            load_vocabulary(wrong)


def test_docstrings_say_what_transformers_needs():
    assert "preprocessor_config.json" in load_segmenter.__doc__
    for call in (load_segmenter, image_processor):
        assert 'subtask="semantic"' in call.__doc__ and "(64, 64)" in call.__doc__


def test_the_grounding_module_alone_opens_too(grounding_folder, door):
    module = ml.GroundingModule.from_pretrained(grounding_folder)
    for name, value in module.state_dict().items():
        assert torch.equal(value, door.module.state_dict()[name])


@pytest.mark.parametrize("kind", ["maskformer", "segformer"])
def test_the_segmenter_goes_into_a_pipeline_of_transformers(kind, tmp_path):
    """Label maps at the picture's own size, and close to ours at the size it was trained on.

    They differ at edges, as theirs enlarges probabilities and ours logits: the picture is smooth.
    """
    backbone = BACKBONE if kind == "maskformer" else mit_backbone(tmp_path / "mit")
    folder = segmenter_folder(tmp_path, kind, backbone)
    (tmp_path / "download").mkdir()
    downloaded = downloaded_folder(tmp_path / "download", folder / "model")
    model = load_segmenter(folder)
    for other in (folder / "model", downloaded, str(folder)):
        weights = load_segmenter(other).state_dict()
        assert all(torch.equal(weights[name], own) for name, own in model.state_dict().items())
    segment = transformers.pipeline(
        "image-segmentation", model=model, image_processor=image_processor(model, (64, 64))
    )
    for picture in (Image.fromarray(SMOOTH), Image.fromarray(SMOOTH).resize((100, 70))):
        found = segment(picture, subtask="semantic")
        assert {entry["mask"].size for entry in found} == {picture.size}
    labels = np.zeros((64, 64), np.uint8)
    for entry in segment(Image.fromarray(SMOOTH), subtask="semantic"):
        labels[np.asarray(entry["mask"]) > 0] = model.config.label2id[entry["label"]]
    ours = predict(model, SMOOTH[None])[0]
    assert len(np.unique(ours)) > 1 and (labels == ours).mean() > 0.9


def mit_backbone(folder: Path) -> Path:
    """A SegFormer classifier with fresh weights that takes normalised pixels."""
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], num_attention_heads=[1, 1, 2, 2]
    )
    transformers.SegformerForImageClassification(config).save_pretrained(folder)
    processor = transformers.ViTImageProcessor(image_mean=[0.5] * 3, image_std=[0.2] * 3)
    processor.save_pretrained(folder)
    return folder
