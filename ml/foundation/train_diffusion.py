"""Train the micro world's text-to-image model on its captions, in the autoencoder's latents:

    python -m ml.foundation.train_diffusion --minutes 70 \
        --out data/foundation/micro/diffusion --work .scratch/train/diffusion

The same command goes on after a stop. Needs the autoencoder in OUT/vae (`train_autoencoder.py`).
With --start-from FOLDER the weights are those of an exported pipeline, not random: that is how a
training goes on whose work folder is gone.
Exports a whole StableDiffusionPipeline folder every 5 minutes, so an early one is there soon.
Not here: how good its pictures are (`measure.py`), sampling for the pipeline (`ml/diffusion`).
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import (
    UNet2DConditionModel,
)
from transformers import CLIPTokenizer

from ml.arguments import number
from ml.compute.precision import computes_bfloat16
from ml.errors import exit_path
from ml.foundation.diffusion_model import (
    CHANNELS,
    HEADS,
    TEXT_HEADS,
    TEXT_WIDTH,
    alphas_cumprod,
    assemble,
    export,
    load_autoencoder,
    load_weights,
    make_text_encoder,
    make_unet,
    save_samples,
    token_ids,
)
from ml.foundation.latents import load_training_latents
from ml.foundation.schedule import Schedule
from ml.foundation.tokenizer import build_tokenizer
from ml.foundation.training import Training, run_training, trainer_parser

BATCH = 32
SCHEDULE = Schedule(1.5e-3, warmup=300, ema_decay=0.999, weight_decay=1e-3, fused=True)
EMPTY_SHARE = 0.1
"""Captions replaced by the empty one, for classifier-free guidance."""
GAMMA = 5.0
TRAIN_SCENES = 100_000
SAME_CLASS_SCENES = 10_000
"""Further scenes with two objects of one class, told apart in the caption by their colours."""
REPORT_SECONDS = 300.0


def diffusion_loss(
    unet: UNet2DConditionModel,
    text: torch.Tensor,
    x_0: torch.Tensor,
    noise: torch.Tensor,
    t: torch.Tensor,
    alpha_bar: torch.Tensor,
) -> torch.Tensor:
    """Squared error of v = sqrt(a) noise - sqrt(1 - a) x_0 (arXiv 2202.00512), min-SNR weighted.

    text: (B,T,D) hidden states. x_0, noise: float32 (B,6,16,16). t: int64 (B,). alpha_bar: the
    schedule, float32 (1000,). Weights min(SNR, gamma) / (SNR + 1) (arXiv 2303.09556, section 3.4).
    """
    a = alpha_bar[t][:, None, None, None]
    x_t = a.sqrt() * x_0 + (1 - a).sqrt() * noise
    v = a.sqrt() * noise - (1 - a).sqrt() * x_0
    error = (unet(x_t, t, text).sample.float() - v).square().mean(dim=(1, 2, 3))
    snr = alpha_bar[t] / (1 - alpha_bar[t])
    return (error * snr.clamp(max=GAMMA) / (snr + 1)).mean()


def kept_tokenizer(work: Path, start_from: Path | None, captions: Sequence[str]) -> CLIPTokenizer:
    """The tokenizer beside the checkpoint, put there at the first call.

    Text embeddings mean nothing under other ids, so a continued training has the same. At first it
    is that of the pipeline to start from, or one learned on captions: the first 4,096 hold every
    word of the world many times over.
    """
    folder = work / "tokenizer"
    if not folder.exists():
        if start_from:
            first = CLIPTokenizer.from_pretrained(start_from / "tokenizer")
        else:
            first = build_tokenizer(captions[:4096])
        first.save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


def prepare(chosen: argparse.Namespace, device: torch.device) -> Training:
    """U-Net and text encoder on the latents and captions of drawn scenes."""
    vae = load_autoencoder(chosen.vae or chosen.out / "vae").to(device).eval()
    scenes = load_training_latents(
        vae, chosen.train_scenes, chosen.same_class_scenes, chosen.scenes
    )
    tokenizer = kept_tokenizer(chosen.work, chosen.start_from, scenes.captions)
    ids, empty = token_ids(tokenizer, scenes.captions), token_ids(tokenizer, [""])

    torch.manual_seed(chosen.seed)
    unet = make_unet(tuple(chosen.channels)).to(device).train()
    text_encoder = make_text_encoder(tokenizer).to(device).train()
    if chosen.start_from:
        load_weights(unet, chosen.start_from / "unet/diffusion_pytorch_model.safetensors")
        load_weights(text_encoder, chosen.start_from / "text_encoder/model.safetensors")
    alpha_bar, bf16 = alphas_cumprod().to(device), computes_bfloat16(device.type)
    pipe = assemble(vae, text_encoder, tokenizer, unet)
    batch = chosen.batch

    def loss(generator: torch.Generator) -> torch.Tensor:
        rows = torch.randint(len(ids), (batch,), generator=generator)
        dropped = torch.rand((batch, 1), generator=generator) < EMPTY_SHARE
        # One timestep from each of `batch` equal stretches: every step sees all noise levels.
        t = (torch.arange(batch) + torch.rand(batch, generator=generator)) * 1000 / batch
        t = t.long().clamp(max=999).to(device)
        x_0 = scenes.latents[rows].float()
        noise = torch.randn(x_0.shape, generator=generator).to(device)
        prompt = torch.where(dropped, empty, ids[rows]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            text = text_encoder(prompt).last_hidden_state
            return diffusion_loss(unet, text, x_0.to(device), noise, t, alpha_bar)

    def save() -> str:
        export(pipe, chosen.out)
        save_samples(pipe, chosen.work / "samples.png")
        return f"exported to {chosen.out}"

    schedule = replace(SCHEDULE, peak_lr=chosen.peak_lr)
    return Training(
        {"unet": unet, "text_encoder": text_encoder},
        settings_of(chosen, schedule),
        schedule,
        batch,
        loss,
        save,
        REPORT_SECONDS,
    )


def settings_of(chosen: argparse.Namespace, schedule: Schedule) -> dict[str, object]:
    """What the model card tells of the training."""
    return {
        "model": "UNet2DConditionModel with CLIPTextModel",
        "channels": list(chosen.channels),
        "text_width": TEXT_WIDTH,
        "heads": HEADS,
        "text_heads": TEXT_HEADS,
        "loss": f"v-prediction, min-SNR {GAMMA}",
        "empty_captions": EMPTY_SHARE,
        "batch": chosen.batch,
        "train_scenes": chosen.train_scenes,
        "same_class_scenes": chosen.same_class_scenes,
        "starts_from": "an exported pipeline" if chosen.start_from else "random weights",
        "peak_lr": schedule.peak_lr,
        "warmup_steps": schedule.warmup,
        "ema_decay": schedule.ema_decay,
    }


def main(argv: list[str] | None = None) -> None:
    parser = trainer_parser(
        __doc__,
        work=".scratch/train/diffusion",
        out="data/foundation/micro/diffusion",
        train_scenes=TRAIN_SCENES,
    )
    parser.add_argument("--vae", type=Path, help="autoencoder folder; default OUT/vae")
    parser.add_argument("--batch", type=number(int, 1), default=BATCH)
    parser.add_argument("--same-class-scenes", type=number(int, 1), default=SAME_CLASS_SCENES)
    parser.add_argument("--peak-lr", type=number(float, 0, 1), default=SCHEDULE.peak_lr)
    parser.add_argument("--start-from", type=Path, help="an exported pipeline to go on from")
    parser.add_argument("--channels", type=number(int, 1, 4096), nargs=3, default=CHANNELS)
    run_training(prepare, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(exit_path(main)())
