"""Train the micro world's autoencoder, 64x64 RGB to 16x16x6 latents:

    python -m ml.foundation.train_autoencoder --minutes 40 \
        --out data/foundation/micro/diffusion/vae --work .scratch/train/autoencoder

The same command goes on after a stop. Exports a diffusers AutoencoderKL whose latents have mean 0
and standard deviation 1 in every channel. Not here: the diffusion model (`train_diffusion.py`).
"""

import argparse
import math
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from ml.arguments import number
from ml.compute.precision import computes_bfloat16
from ml.errors import exit_path
from ml.foundation.scenes import load_scenes
from ml.foundation.schedule import Schedule
from ml.foundation.training import Training, run_training, trainer_parser
from ml.store.files import atomic

CHANNELS = (16, 32, 48)
LATENT_CHANNELS = 6
SCHEDULE = Schedule(3e-3, warmup=100, ema_decay=0.999, weight_decay=1e-4, fused=True)
KL_WEIGHT = 1e-6
"""Just enough to keep the latents from growing without bound; the posterior's noise stays tiny."""

TRAIN_SCENES, EVAL_SCENES, MEASURED_SCENES = 40_000, 256, 2_048
REPORT_SECONDS = 120.0


def make_autoencoder(channels: tuple[int, int, int] = CHANNELS) -> AutoencoderKL:
    """Random weights; 0.4 M parameters with the default channels."""
    return AutoencoderKL(
        sample_size=64,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def to_signed(images: torch.Tensor) -> torch.Tensor:
    """uint8 (B,64,64,3) -> float32 (B,3,64,64) in -1..1, the range of diffusers' autoencoders."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 + 0.5 x L1 of the horizontal and vertical differences + MSE; both (B,3,H,W) in -1..1.

    The differences keep edges sharp, which L1 and MSE alone leave blurred (docs/ablations.md).
    """
    error = output - target
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.abs().mean() + 0.5 * edges + error.square().mean()


@torch.no_grad()
def psnr(vae: AutoencoderKL, images: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of the reconstructions, dB, from the mean squared error of all.

    images: uint8 (N,64,64,3) on the model's device.
    """
    squared = 0.0
    for part in images.split(64):
        target = to_signed(part)
        output = vae.decode(vae.encode(target).latent_dist.mode()).sample.clamp(-1, 1)
        squared += (output - target).square().mean(dim=(1, 2, 3)).sum().item()
    return 10 * math.log10(4 * len(images) / squared)


@torch.no_grad()
def standardise(vae: AutoencoderKL, images: torch.Tensor) -> None:
    """Make every latent channel mean 0 and standard deviation 1, without changing any picture.

    images: uint8 (N,64,64,3) that the statistics are measured on. Shift and scale go into the
    1x1 convolutions on both sides of the latents. StableDiffusionPipeline knows one scaling_factor
    and no shift: this way it needs neither, and scaling_factor stays 1.
    """
    latents = torch.cat([vae.encode(to_signed(p)).latent_dist.mode() for p in images.split(64)])
    mean, std = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    n = vae.config.latent_channels
    enter, leave = vae.post_quant_conv, vae.quant_conv
    enter.bias += enter.weight[:, :, 0, 0] @ mean
    enter.weight *= std[None, :, None, None]
    leave.weight[:n] /= std[:, None, None, None]
    leave.bias[:n] = (leave.bias[:n] - mean) / std
    leave.bias[n:] -= 2 * std.log()  # the other half is the posterior's log variance


def export(vae: AutoencoderKL, images: torch.Tensor, out: Path) -> None:
    """Save a copy with standardised latents as a diffusers folder (safetensors, float32)."""
    copy = AutoencoderKL.from_config(vae.config)
    copy.load_state_dict({key: value.cpu() for key, value in vae.state_dict().items()})
    copy = copy.to(images.device).eval()
    standardise(copy, images)
    with atomic(out) as partial:
        copy.cpu().save_pretrained(partial)


def prepare(chosen: argparse.Namespace, device: torch.device) -> Training:
    """The autoencoder on drawn scenes; every export is measured on scenes held out."""
    scenes = torch.from_numpy(load_scenes("train", chosen.train_scenes, chosen.scenes).images)
    held_out = torch.from_numpy(load_scenes("eval", EVAL_SCENES, chosen.scenes).images).to(device)
    torch.manual_seed(chosen.seed)
    vae = make_autoencoder(tuple(chosen.channels)).to(device).train()
    bf16 = computes_bfloat16(device.type)

    def loss(generator: torch.Generator) -> torch.Tensor:
        rows = torch.randint(len(scenes), (chosen.batch,), generator=generator)
        target = to_signed(scenes[rows].to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            posterior = vae.encode(target).latent_dist
            output = vae.decode(posterior.sample(generator)).sample
        # KL per latent number, so that its weight means the same at any size.
        kl = posterior.kl().float().mean() / posterior.mean[0].numel()
        return reconstruction_loss(output.float(), target) + KL_WEIGHT * kl

    def save() -> str:
        export(vae, scenes[:MEASURED_SCENES].to(device), chosen.out)
        return f"{psnr(vae, held_out):.2f} dB on held-out scenes"

    settings = {
        "model": "AutoencoderKL",
        "channels": list(chosen.channels),
        "latent_channels": LATENT_CHANNELS,
        "loss": f"L1 + 0.5 gradient L1 + MSE + {KL_WEIGHT} KL",
        "batch": chosen.batch,
        "train_scenes": len(scenes),
        "peak_lr": SCHEDULE.peak_lr,
        "warmup_steps": SCHEDULE.warmup,
        "ema_decay": SCHEDULE.ema_decay,
    }
    return Training({"vae": vae}, settings, SCHEDULE, chosen.batch, loss, save, REPORT_SECONDS)


def main(argv: list[str] | None = None) -> None:
    parser = trainer_parser(
        __doc__,
        work=".scratch/train/autoencoder",
        out="data/foundation/micro/diffusion/vae",
        train_scenes=TRAIN_SCENES,
    )
    parser.add_argument("--batch", type=number(int, 1), default=16)
    parser.add_argument("--channels", type=number(int, 1, 4096), nargs=3, default=CHANNELS)
    run_training(prepare, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(exit_path(main)())
