"""`python -m ml convert-grounding`: the authors' checkpoint becomes a folder that users open; and
`python -m ml score-grounding`, which holds a module against a run."""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from ml import GroundedDiffusionPipeline
from ml.__main__ import main
from ml.diffusion.encoding import word_embeddings
from ml.diffusion.features import feature_channels, feature_taps, tapped
from ml.grounding import authors, authors_table
from ml.grounding.authors_table import CONFIG
from ml.grounding.module import GroundingModule
from ml.store.files import sha256_file
from tests.builders.authors import Authors, full_size, gathered, stirred
from tests.builders.tiny import WIDTH, tiny_pipeline


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Iterator[Path]:
    file = tmp_path_factory.mktemp("theirs") / "grounding_module.pth"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(full_size().state_dict(), file)
    yield file
    file.unlink()  # 75 MB


def convert(checkpoint, out, *arguments) -> int:
    return main(["convert-grounding", str(checkpoint), "--out", str(out), *arguments])


def test_a_folder_for_stable_diffusion_1_is_written(checkpoint, tmp_path, capsys):
    out = tmp_path / "deep" / "authors"
    assert convert(checkpoint, out) == 0
    said = capsys.readouterr().out
    assert "18,796,560 parameters" in said and "guidance 7.5" in said
    assert "from settled" in said  # a fresh checkpoint's power iteration has not begun
    module = GroundingModule.from_pretrained(out / "grounding")
    assert module.config == CONFIG and not module.training
    reference = json.loads((out / "pipeline.json").read_text())
    assert reference["diffusion"] == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert len(reference["revision"]) == 40 and reference["scheduler"] == "DDIMScheduler"
    assert (reference["steps"], reference["guidance_scale"]) == (50, 7.5)
    assert json.loads((out / "converted.json").read_text())["sha256"] == sha256_file(checkpoint)
    assert [entry.name for entry in out.parent.iterdir()] == ["authors"]


def small_model(folder: Path) -> Path:
    """A Stable Diffusion with the blocks and sides of version 1, a few channels in each."""
    pipe = tiny_pipeline("epsilon")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        unet = UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(8, 16, 24, 24),
            norm_num_groups=4,
            cross_attention_dim=WIDTH,
            attention_head_dim=2,
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            norm_num_groups=4,
            sample_size=512,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
    pipe.register_modules(unet=unet, vae=vae)
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def test_a_picture_drawn_through_the_folder_has_the_authors_masks(tmp_path, monkeypatch, capsys):
    """From the command to the masks, on a small model of the same build: what theirs makes of the
    very blocks' outputs of the last step, the unconditional half first."""
    folder = small_model(tmp_path / "model")
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(
            json.loads((folder / "unet/config.json").read_text())
        )
    channels, blocks = feature_channels(unet), dict[int, tuple[int, ...]]()
    for tap in feature_taps(unet):
        blocks[tap.resolution] = (*blocks.get(tap.resolution, ()), tap.channels)
    config = dataclasses.replace(
        CONFIG,
        feature_channels=channels,
        encoder_widths=(4, 8, 12, 16),
        text_width=WIDTH,
        width=32,
        heads=4,
        pixel_width=40,
    )
    for place in (authors, authors_table):
        monkeypatch.setattr(place, "CONFIG", config)
        monkeypatch.setattr(place, "BLOCKS", dict(sorted(blocks.items())))
    torch.manual_seed(2)
    theirs = stirred(Authors(channels, [4, 8, 12, 16], WIDTH, 32, 3, 4, 4, 512))
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    profile = tmp_path / "mine.yaml"
    profile.write_text(
        f"base: sd15\ndiffusion: {{model: {folder}, revision: null, variant: null, device: cpu, "
        "dtype: float32}\n"
    )
    assert convert(tmp_path / "theirs.pth", tmp_path / "out", "--profile", str(profile)) == 0
    pipe = GroundedDiffusionPipeline.from_pretrained(tmp_path / "out")
    prompt, words, at = "a photograph of a dog and a cat", ["dog", "cat"], []
    with tapped(pipe.pipe) as outputs:
        out = pipe(
            prompt,
            words,
            seed=3,
            num_inference_steps=2,
            callback_on_step_end=lambda own, step, time, given: at.append(int(time)) or given,
        )
        last = [outputs[index] for index in sorted(outputs)]
    assert at[-1] == config.feature_timestep == 1  # where theirs takes its features
    with torch.no_grad():
        expected = theirs(gathered(last), word_embeddings(pipe.pipe, words)).sigmoid()
    found = torch.stack([torch.as_tensor(out.probabilities[0][word]) for word in words])
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (("--profile", "micro"), "choose --profile sd15"),
        (("--profile", "sd21"), "words of 1024"),
        (("--profile", "sdxl"), "pictures of 1024 pixels"),
        (("--profile", "sd16"), "unknown profile 'sd16'"),
    ],
)
def test_a_profile_of_another_model_is_refused(checkpoint, tmp_path, capsys, arguments, expected):
    assert convert(checkpoint, tmp_path / "out", *arguments) == 2
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["a folder", "an empty folder", "a link to nowhere"])
def test_what_is_there_stays(checkpoint, tmp_path, capsys, what):
    out = tmp_path / "out"
    if what == "a link to nowhere":
        out.symlink_to(tmp_path / "gone")
    else:
        out.mkdir()
        if what == "a folder":
            (out / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert convert(checkpoint, out) == 2
    assert str(out) in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


class Runs:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_refused_checkpoint_leaves_one_line_and_nothing_else(checkpoint, tmp_path, capsys):
    evil, marker = tmp_path / "evil.pth", tmp_path / "ran"
    torch.save({"to_q.weight": Runs(marker)}, evil)
    for file, expected in ((evil, "nothing in it was run"), (tmp_path / "no.pth", "no file ")):
        assert convert(file, tmp_path / "out") == 2
        said = capsys.readouterr().err.strip()
        assert expected in said and said.startswith("error: ") and "\n" not in said
    assert [entry.name for entry in tmp_path.iterdir()] == ["evil.pth"]


def test_a_module_for_another_diffusion_model_is_refused_at_opening(checkpoint, tmp_path, capsys):
    """The shape of a hub's model that is not on this machine is not known when it is converted."""
    profile = tmp_path / "mine.yaml"
    profile.write_text("base: sd15\ndiffusion: {model: somebody/finetune, revision: null}\n")
    out = tmp_path / "out"
    assert convert(checkpoint, out, "--profile", str(profile)) == 0
    assert "its shape is not known here" in capsys.readouterr().out
    reference = json.loads((out / "pipeline.json").read_text())
    model = tmp_path / "model"
    tiny_pipeline().save_pretrained(model, safe_serialization=True)
    (out / "pipeline.json").write_text(
        json.dumps(reference | {"diffusion": str(model), "variant": None})
    )
    with pytest.raises(
        ValueError, match="name the diffusion model that the module was trained with"
    ):
        GroundedDiffusionPipeline.from_pretrained(out)


def test_scoring_says_what_is_missing(grounding_folder, tmp_path, capsys):
    """The scores themselves: tests/pipeline/test_grounding_stages.py."""
    score = ["score-grounding", "--root", str(tmp_path), "--profile", "micro"]
    for folder, code, expected in (
        (tmp_path / "gone", 2, "does not exist"),
        (tmp_path, 2, "no config.json"),
        (grounding_folder, 3, "images"),
    ):
        assert main([*score, str(folder)]) == code
        said = capsys.readouterr().err.strip()
        assert expected in said and "\n" not in said
