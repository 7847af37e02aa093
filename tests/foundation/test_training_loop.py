"""The trainers of the autoencoder and the diffusion model: a few real steps on real scenes."""

import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline
from diffusers.training_utils import compute_snr
from safetensors.torch import load_file
from transformers import AutoTokenizer, CLIPTokenizer

from ml.drawn_world.world import draw_scene, scene_seed
from ml.foundation import diffusion_model, latents, scenes, train_autoencoder, train_diffusion
from ml.foundation.card import holds
from ml.foundation.curve_log import CurveLog
from ml.foundation.diffusion_model import NOISE_SCHEDULE, alphas_cumprod
from ml.foundation.run import Run
from ml.foundation.scenes import load_scenes, stream_scenes
from ml.foundation.schedule import Budget, Schedule, learning_rate
from ml.foundation.tokenizer import MAX_LENGTH, build_tokenizer
from ml.foundation.train_autoencoder import make_autoencoder, standardise, to_signed
from ml.foundation.train_diffusion import GAMMA, diffusion_loss

SMALL = ("--channels", "8", "16", "16", "--batch", "4", "--train-scenes", "24", "--device", "cpu")
SCHEDULE = Schedule(1e-3, warmup=1, ema_decay=0.9, weight_decay=0.01)


@pytest.fixture(scope="module", autouse=True)
def small_caches():
    """Files of 8 scenes, and 8 scenes to tell drawings apart: a test draws 32, not 600."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "CHUNK", 8)
        patch.setattr(scenes, "FINGERPRINT_SCENES", 8)
        patch.setattr(train_autoencoder, "EVAL_SCENES", 8)
        patch.setattr(latents, "LATENT_FILE_SCENES", 16)
        patch.setattr(diffusion_model, "SAMPLE_PROMPTS", ("a dog",))
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("scenes")


@pytest.fixture(scope="module")
def vae(tmp_path_factory, cache) -> Path:
    """The folder of an autoencoder after three steps."""
    folder = tmp_path_factory.mktemp("autoencoder")
    train_autoencoder.main([
        "--steps", "3", "--out", str(folder / "vae"), "--work", str(folder / "work"),
        "--scenes", str(cache), *SMALL,
    ])  # fmt: skip
    return folder / "vae"


def stop_after(monkeypatch, step: int) -> None:
    """Let the process get a SIGTERM right after a step, as a machine that is taken away sends."""
    update = Run.update

    def update_and_stop(run: Run, *arguments) -> None:
        update(run, *arguments)
        if run.step == step:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Run, "update", update_and_stop)


def read_log(work: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (work / "log.jsonl").read_text().splitlines()]


def test_scenes_are_the_worlds(tmp_path):
    loaded = load_scenes("test", 11, tmp_path)
    assert len(loaded) == 11 and not list(tmp_path.rglob("*.partial*"))
    for i, label_map in enumerate(loaded.label_maps()):
        scene = draw_scene(scene_seed("test", i))
        assert loaded.captions[i] == scene.caption
        np.testing.assert_array_equal(loaded.images[i], scene.image)
        np.testing.assert_array_equal(label_map, scene.label_map())
        for k, mask in enumerate(scene.masks):
            np.testing.assert_array_equal(loaded.instances[i] == k + 1, mask)


def test_more_scenes_draw_only_the_missing_ones(tmp_path):
    load_scenes("test", 5, tmp_path)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.npz")}
    more = load_scenes("test", 20, tmp_path)
    after = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.npz")}
    assert len(before) == 1 and len(after) == 3 and before.items() <= after.items()
    streamed = list(stream_scenes("test", 5, start=15, chunk=3))
    assert [len(part) for part in streamed] == [3, 2]
    assert [c for part in streamed for c in part.captions] == more.captions[15:]


def test_learning_rate_by_hand():
    assert learning_rate(1.0, 0, 100, 0.0) == pytest.approx(0.01)
    assert learning_rate(1.0, 500, 100, 0.5) == pytest.approx(0.01 + 0.99 / 2)
    assert learning_rate(1.0, 500, 100, 1.0) == pytest.approx(0.01)


def test_a_longer_budget_opens_the_schedule_again():
    assert Budget(minutes=40).progress(1, 2400) == 1
    assert Budget(minutes=60).progress(1, 2400) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="give one of the two"):
        Budget(minutes=1, steps=1)


def test_autoencoder_goes_on_where_it_was_stopped(tmp_path, cache, monkeypatch):
    def train(name: str) -> None:
        train_autoencoder.main([
            "--steps", "5", "--out", str(tmp_path / name / "vae"), "--work", str(tmp_path / name),
            "--scenes", str(cache), *SMALL,
        ])  # fmt: skip

    train("whole")
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        train("parts")
    assert read_log(tmp_path / "parts") == [2]
    assert not (tmp_path / "parts" / "vae").exists()
    train("parts")
    assert read_log(tmp_path / "parts") == [2, 5]
    whole, parts = (load_file(tmp_path / n / "checkpoint.safetensors") for n in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert any(key.startswith("optimizer.") and key.endswith("exp_avg_sq") for key in whole)
    for key in whole:
        torch.testing.assert_close(parts[key], whole[key], rtol=1e-5, atol=1e-7, msg=key)
    assert holds(tmp_path / "whole" / "vae", tmp_path / "whole")


def test_other_settings_refuse_the_checkpoint(tmp_path):
    def run(settings: dict) -> Run:
        model = torch.nn.Linear(2, 2)
        return Run({"m": model}, tmp_path, Budget(steps=1), settings, SCHEDULE, seed=0)

    run({"width": 2}).save()
    run({"width": 2})
    with pytest.raises(ValueError, match="width.*width.*another --work"):
        run({"width": 3})


def test_a_log_without_a_checkpoint_is_of_a_lost_run(tmp_path):
    CurveLog(tmp_path).append(30, 120, 9.0, 0.5, 1e-3)
    run = Run({"m": torch.nn.Linear(2, 2)}, tmp_path, Budget(steps=1), {}, SCHEDULE, seed=0)
    run.log.append(1, 4, 0.1, 0.9, 1e-3)
    assert read_log(tmp_path) == [1]


def test_half_a_last_line_of_the_log_is_dropped(tmp_path):
    log = CurveLog(tmp_path)
    for step in (1, 2):
        log.append(step, 4 * step, 0.1, 0.9, 1e-3)
    whole = log.path.read_text()
    log.path.write_text(whole + whole[:20])
    log.cut_after(3)
    assert log.path.read_text() == whole
    log.path.write_text(whole.rstrip())  # what is added does not end up on the last line
    log.cut_after(3)
    assert log.path.read_text() == whole
    log.path.write_text(whole[:20] + "\n" + whole)
    with pytest.raises(json.JSONDecodeError):
        log.cut_after(3)


def test_a_checkpoint_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    flushed = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda f: (flushed.append(os.fstat(f).st_ino), fsync(f)))
    run = Run({"m": torch.nn.Linear(2, 2)}, tmp_path, Budget(steps=1), {}, SCHEDULE, seed=0)
    run.save()
    assert run.checkpoint.stat().st_ino in flushed


def test_two_processes_may_fill_the_cache_of_latents(tmp_path, vae, monkeypatch):
    """The second one writes the same file while the first is about to rename its own."""
    model, file, savez = AutoencoderKL.from_pretrained(vae), tmp_path / "latents.npz", np.savez

    def and_another_process(to, **arrays):
        savez(to, **arrays)
        with monkeypatch.context() as patch:
            patch.setattr(np, "savez", savez)
            patch.setattr(os, "getpid", os.getppid)
            latents._encode_file(model, "test", 0, 8, file)

    monkeypatch.setattr(np, "savez", and_another_process)
    latents._encode_file(model, "test", 0, 8, file)
    assert list(tmp_path.iterdir()) == [file]
    with np.load(file) as arrays:
        assert arrays["latents"].shape == (8, 6, 16, 16)


def test_standardised_latents_leave_pictures_as_they_were(cache):
    images = torch.from_numpy(load_scenes("train", 24, cache).images)
    torch.manual_seed(0)
    vae = make_autoencoder((8, 16, 16)).eval()
    with torch.no_grad():
        before = vae.encode(to_signed(images)).latent_dist
        picture = vae.decode(before.mode()).sample
        standardise(vae, images)
        after = vae.encode(to_signed(images)).latent_dist
        torch.testing.assert_close(vae.decode(after.mode()).sample, picture, rtol=0, atol=1e-4)
    torch.testing.assert_close(after.mean.mean((0, 2, 3)), torch.zeros(6), rtol=0, atol=1e-4)
    torch.testing.assert_close(after.mean.std((0, 2, 3)), torch.ones(6), rtol=1e-3, atol=0)
    # The posterior is the same one seen through a ruler with another scale.
    scale = before.mean.std((0, 2, 3))[None, :, None, None]
    torch.testing.assert_close(after.std * scale, before.std, rtol=1e-3, atol=1e-6)


def test_exported_autoencoder_loads(vae):
    model = AutoencoderKL.from_pretrained(vae)
    assert model.config.scaling_factor == 1.0 and model.config.shift_factor is None
    assert model.encode(torch.zeros(1, 3, 64, 64)).latent_dist.mean.shape == (1, 6, 16, 16)


def test_loss_agrees_with_diffusers():
    """v and SNR from diffusers' own scheduler; a network that says nothing errs by v itself."""
    scheduler = DDPMScheduler(**NOISE_SCHEDULE)
    torch.testing.assert_close(alphas_cumprod(), scheduler.alphas_cumprod)
    torch.manual_seed(0)
    x_0, noise = torch.randn(2, 4, 6, 16, 16)
    t = torch.tensor([0, 60, 500, 999])

    def silent(x_t, timestep, text):
        torch.testing.assert_close(x_t, scheduler.add_noise(x_0, noise, t))
        return type("Output", (), {"sample": torch.zeros_like(x_t)})

    v = scheduler.get_velocity(x_0, noise, t)
    snr = compute_snr(scheduler, t)
    weights = torch.minimum(snr, torch.tensor(GAMMA)) / (snr + 1)
    expected = (weights * v.square().mean((1, 2, 3))).mean()
    loss = diffusion_loss(silent, torch.zeros(4, 1, 8), x_0, noise, t, alphas_cumprod())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_diffusion_goes_on_where_it_was_stopped_and_loads(tmp_path, cache, vae, monkeypatch):
    def train(name: str) -> Path:
        train_diffusion.main([
            "--steps", "4", "--vae", str(vae), "--out", str(tmp_path / name / "out"),
            "--work", str(tmp_path / name), "--scenes", str(cache), *SMALL,
            "--same-class-scenes", "8",
        ])  # fmt: skip
        return tmp_path / name / "out"

    out = train("whole")
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        train("parts")
    # Ids in another order would scramble what the text encoder has learned so far.
    monkeypatch.setattr(train_diffusion, "build_tokenizer", lambda captions: 1 / 0)
    train("parts")
    whole, parts = (load_file(tmp_path / n / "checkpoint.safetensors") for n in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    for key in whole:
        torch.testing.assert_close(parts[key], whole[key], rtol=1e-5, atol=1e-7, msg=key)

    assert holds(out, tmp_path / "whole")
    assert not (out / ".partial").exists() and not list(out.rglob("*.bin"))
    assert load_file(out / "unet/diffusion_pytorch_model.safetensors")[
        "conv_in.weight"
    ].dtype == torch.float16  # fmt: skip
    pipe = StableDiffusionPipeline.from_pretrained(out)
    assert {part.dtype for part in (pipe.unet, pipe.vae, pipe.text_encoder)} == {torch.float32}
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    # The first averaged weight is the U-Net's first parameter.
    torch.testing.assert_close(
        next(pipe.unet.parameters()).detach(), whole["ema.0"], rtol=1e-3, atol=1e-4
    )
    pictures = pipe("a red forklift", num_inference_steps=2, output_type="np").images
    assert pictures.shape == (1, 64, 64, 3) and np.isfinite(pictures).all()
    assert str(tmp_path) not in "".join(p.read_text() for p in out.rglob("*.json"))


def test_diffusion_goes_on_from_an_exported_pipeline(tmp_path, cache, vae, monkeypatch):
    """What a machine without the first one's work folder does: a learning rate of 0 shows that
    the weights and the token ids are the exported ones."""

    def train(name: str, *more: str) -> Path:
        train_diffusion.main([
            "--steps", "1", "--vae", str(vae), "--out", str(tmp_path / name / "out"), "--work",
            str(tmp_path / name), "--scenes", str(cache), *SMALL, "--same-class-scenes", "8", *more,
        ])  # fmt: skip
        return tmp_path / name / "out"

    first = train("first", "--seed", "3")
    monkeypatch.setattr(train_diffusion, "build_tokenizer", lambda captions: 1 / 0)
    second = train("second", "--start-from", str(first), "--peak-lr", "0")
    for part in ("unet/diffusion_pytorch_model", "text_encoder/model"):
        before, after = (load_file(f / f"{part}.safetensors") for f in (first, second))
        for key, tensor in before.items():
            torch.testing.assert_close(after[key].float(), tensor.float(), msg=key)
    settings = json.loads((tmp_path / "second" / "settings.json").read_text())
    assert settings["starts_from"] == "an exported pipeline"


def test_tokenizer_knows_captions_and_spells_the_rest(tmp_path):
    captions = [draw_scene(scene_seed("test", i)).caption for i in range(200)]
    tokenizer = build_tokenizer(captions)
    assert tokenizer.get_vocab() == build_tokenizer(captions[::-1]).get_vocab()
    for word in {w.strip(",") for caption in captions for w in caption.split()}:
        assert len(tokenizer.tokenize(word)) == 1
    for caption in captions:
        ids = tokenizer(caption).input_ids
        assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
        assert len(ids) == 2 + len(caption.replace(",", " ,").split()) <= MAX_LENGTH
        assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ,", ",") == caption
    pieces = tokenizer.tokenize("forklift Ünï")
    assert len(pieces) > 2 and tokenizer.unk_token not in pieces
    assert tokenizer.decode(tokenizer("Forklift").input_ids[1:-1]) == "forklift"

    tokenizer.save_pretrained(tmp_path)
    for kind in (CLIPTokenizer, AutoTokenizer):
        again = kind.from_pretrained(tmp_path)
        assert again.model_max_length == MAX_LENGTH
        for text in [*captions[:50], "a forklift", ""]:
            assert again(text, padding="max_length").input_ids == tokenizer(
                text, padding="max_length"
            ).input_ids  # fmt: skip


def test_curve_is_thinned(tmp_path):
    model = torch.nn.Linear(1, 1)
    run = Run({"m": model}, tmp_path, Budget(steps=1), {}, SCHEDULE, seed=0)
    rows = [
        {"step": i, "samples": 4 * i, "seconds": i, "loss": i % 2, "lr": 0.1} for i in range(1000)
    ]
    run.log.path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run.save()
    lines = (tmp_path / "curve.csv").read_text().splitlines()
    assert lines[0] == "step,samples,seconds,loss,lr"
    assert len(lines) == 1 + math.ceil(1000 / 3)
    assert lines[-1].startswith("999,3996,999,")
