"""What a stranger meets while a model is found, downloaded and read. Nothing reaches a network:
the hub's own exceptions are raised where its library would be called."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import StableDiffusionPipeline
from huggingface_hub import errors

from ml.cli.planning.models import find_diffusion
from ml.compute import precision
from ml.compute.devices import find_device
from ml.diffusion import checkpoint
from ml.diffusion.checkpoint import find_checkpoint
from ml.diffusion.loading import load_pipeline
from ml.diffusion.tokens import refuse_long_prompts
from ml.pipeline.workspace import Workspace
from ml.settings.profile import load_params
from tests.builders.tiny import settings, tiny_pipeline

ANSWER = SimpleNamespace(headers={}, request=None)


def hub_error(kind: type) -> Exception:
    if not issubclass(kind, errors.HfHubHTTPError):
        return kind("x", "snapshot") if kind is errors.IncompleteSnapshotError else kind("x")
    return kind("what the hub says", response=ANSWER)


@pytest.mark.parametrize(
    "kind, advice",
    [
        (errors.GatedRepoError, "gated: accept its licence.*hf auth login.*HF_TOKEN"),
        (errors.RepositoryNotFoundError, "no such model, or hides it.*no token.*hf auth login"),
        (errors.DisabledRepoError, "withdrawn: set diffusion.model to a mirror"),
        (errors.RevisionNotFoundError, "no such revision: set diffusion.revision to a commit"),
        (errors.RemoteEntryNotFoundError, "no model_index.json.*no pipeline of diffusers"),
        (errors.LocalEntryNotFoundError, "not on this machine.*unset HF_HUB_OFFLINE.*folder"),
        (errors.OfflineModeIsEnabled, "not on this machine.*unset HF_HUB_OFFLINE.*folder"),
        (errors.HTTPError, "not on this machine.*unset HF_HUB_OFFLINE.*folder"),
    ],
)
def test_the_hub_refuses(monkeypatch, kind, advice):
    def refuse(*_, **__):
        raise hub_error(kind)

    monkeypatch.setattr(checkpoint, "hf_hub_download", refuse)
    with pytest.raises(ValueError, match=f"'some/model'.*revision 'abc'.*{advice}") as caught:
        load_pipeline(
            Workspace(Path("/"), "micro").located(settings(model="some/model", revision="abc"))
        )
    assert isinstance(caught.value.__cause__, kind)


@pytest.mark.parametrize(
    "error, advice",
    [
        (lambda: OSError("wrapped"), "only half of it has been downloaded: run again"),
        (
            lambda: ValueError("no files of the `variant=fp16`"),
            "check diffusion.model, diffusion.revision and diffusion.variant.*variant=fp16",
        ),
    ],
)
def test_the_download_fails(monkeypatch, tiny_copy, error, advice):
    """diffusers wraps the hub's errors: the causes count."""
    monkeypatch.setattr(
        checkpoint, "hf_hub_download", lambda *_, **__: tiny_copy / "model_index.json"
    )

    def refuse(*_, **__):
        cause = hub_error(errors.IncompleteSnapshotError) if "half" in advice else None
        raise error() from cause

    monkeypatch.setattr(StableDiffusionPipeline, "download", refuse)
    with pytest.raises(ValueError, match=f"variant 'fp16'.*{advice}"):
        find_checkpoint("some/model", None, "fp16")


def test_a_hub_id_is_downloaded_by_its_own_class_without_pickles(monkeypatch, tiny_copy):
    asked = {}
    monkeypatch.setattr(
        checkpoint, "hf_hub_download", lambda *_, **__: tiny_copy / "model_index.json"
    )

    def download(name, **kwargs):
        asked.update(kwargs, name=name)
        return str(tiny_copy)

    monkeypatch.setattr(StableDiffusionPipeline, "download", download)
    assert find_checkpoint("some/model", "abc", None) == tiny_copy
    assert asked["use_safetensors"] is True and asked["safety_checker"] is None
    assert (asked["name"], asked["revision"], asked["variant"]) == ("some/model", "abc", None)


def test_settings_of_another_kind_are_refused_before_the_weights_are_downloaded(
    monkeypatch, tiny_copy
):
    monkeypatch.setattr(
        checkpoint, "hf_hub_download", lambda *_, **__: tiny_copy / "model_index.json"
    )
    monkeypatch.setattr(StableDiffusionPipeline, "download", lambda *_, **__: pytest.fail("loaded"))
    asked = settings("some/model", scheduler="FlowMatchEulerDiscreteScheduler")
    for refused in (lambda: load_pipeline(asked), lambda: refuse_long_prompts(asked, [])):
        with pytest.raises(ValueError, match="noise of Stable Diffusion 1, 2.*got 'FlowMatchEuler"):
            refused()


def test_a_folder_that_is_not_there_is_no_hub_id(tmp_path):
    for name in ("data/foundation/none/diffusion", "./model", str(tmp_path / "none")):
        with pytest.raises(ValueError, match="no folder.*expected a folder"):
            find_checkpoint(name)


def test_a_folder_has_no_revision(tiny_copy):
    """Also one that a profile took over from its base; what it would record means nothing."""
    own = settings(tiny_copy, revision="nosuch")
    for use in (load_pipeline, lambda one: refuse_long_prompts(one, [])):
        with pytest.raises(ValueError, match="diffusion.revision: expected null.*'nosuch'.*base:"):
            use(own)
    params = dataclasses.replace(load_params(), diffusion=own)
    with pytest.raises(ValueError, match="diffusion.revision: expected null"):
        find_diffusion(params, Workspace(Path("/"), "micro"))
    assert find_checkpoint(str(tiny_copy), "nosuch") == tiny_copy, "of a saved pipeline"


def test_half_a_file(tiny_copy):
    file = tiny_copy / "unet" / "diffusion_pytorch_model.safetensors"
    data = file.read_bytes()
    for part in (data[: len(data) // 2], data[:5], b"version https://git-lfs.github.com/spec/v1\n"):
        file.write_bytes(part)
        with pytest.raises(ValueError, match="unet.*bytes.*cut short or damaged.*half a download"):
            find_checkpoint(str(tiny_copy))


def shard_text_encoder(folder: Path, dot: str = "") -> list[Path]:
    """The text encoder's file as two shards with an index, as large models have them."""
    from safetensors.torch import load_file, save_file

    file = folder / "text_encoder" / f"model{dot}.safetensors"
    tensors = load_file(file)
    names = sorted(tensors)
    parts = [names[::2], names[1::2]]
    files = [file.with_name(f"model{dot}-0000{i}-of-00002.safetensors") for i in (1, 2)]
    for own, path in zip(parts, files, strict=True):
        save_file({name: tensors[name] for name in own}, path, metadata={"format": "pt"})
    where = {name: path.name for own, path in zip(parts, files, strict=True) for name in own}
    index = file.with_name(f"model.safetensors.index{dot}.json")
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    file.unlink()
    return files


def test_shards_load_and_a_missing_one_is_named(tiny_copy):
    files = shard_text_encoder(tiny_copy)
    pipe = load_pipeline(
        Workspace(tiny_copy.parent, "micro").located(
            settings(model=str(tiny_copy), dtype="float32")
        )
    )
    for name, value in tiny_pipeline().text_encoder.state_dict().items():
        assert torch.equal(pipe.text_encoder.state_dict()[name], value)
    files[1].unlink()
    with pytest.raises(ValueError, match="00002-of-00002.*missing.*index lists it.*half"):
        find_checkpoint(str(tiny_copy))


def test_pickled_weights_are_refused(tiny_copy):
    file = tiny_copy / "vae" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(ValueError, match="only pickled weights.*model.bin.*safe_serialization"):
        find_checkpoint(str(tiny_copy))
    file.with_suffix(".bin").unlink()
    with pytest.raises(ValueError, match="no weights in.*vae.*found none"):
        find_checkpoint(str(tiny_copy))


def test_variants(tiny_copy, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "computes_bfloat16", lambda device: True)  # of any processor
    with pytest.raises(ValueError, match="no files of the variant 'fp16'.*variant to null"):
        find_checkpoint(str(tiny_copy), None, "fp16")
    half = tmp_path / "half"
    tiny_pipeline().to(torch.float16).save_pretrained(half, variant="fp16")
    with pytest.raises(ValueError, match="diffusion.variant None.*fp16.safetensors"):
        find_checkpoint(str(half))
    pipe = load_pipeline(
        Workspace(tmp_path, "micro").located(
            settings(model=str(half), variant="fp16", dtype="bfloat16")
        )
    )
    assert {p.dtype for p in pipe.unet.parameters()} == {torch.bfloat16}
    plain = tiny_pipeline().unet.conv_in.weight
    torch.testing.assert_close(pipe.unet.conv_in.weight.float(), plain, atol=2e-3, rtol=2e-2)


@pytest.mark.parametrize(
    "content, match",
    [
        (
            '{"_class_name": "KandinskyPipeline"}',
            "'KandinskyPipeline': expected one of.*StableDiffusionXL",
        ),
        ('{"_class_name":', "model_index.json is damaged"),
        ("{}", "model_index.json is damaged"),
    ],
)
def test_another_pipeline(tiny_copy, content, match):
    (tiny_copy / "model_index.json").write_text(content)
    with pytest.raises(ValueError, match=match):
        find_checkpoint(str(tiny_copy))


def test_no_gpu_is_said_before_anything_is_downloaded(monkeypatch):
    monkeypatch.setattr(
        checkpoint, "hf_hub_download", lambda *_, **__: pytest.fail("went to the hub")
    )
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match="diffusion.device 'cuda'.*CUDA devices: 0.*auto, cpu"):
        load_pipeline(Workspace(Path("/"), "sd15").located(load_params("sd15").diffusion))
    with pytest.raises(ValueError, match="'cuda:3'"):
        find_device("cuda:3")
