"""Train the micro world's diffusion transformer on captions, in the autoencoder's latents:

    python -m ml.foundation.train_transformer --minutes 110 \
        --out data/foundation/micro/transformer --work .scratch/train/transformer

The same command goes on after a stop. Needs the pipeline of `train_diffusion.py` (--start-from):
its autoencoder, its tokenizer, and its text encoder as the first weights of the first text tower.
--go-on-from an exported transformer trains that one on, with another --work and its own schedule.
Exports a whole StableDiffusion3Pipeline folder every 10 minutes.
Not here: how good its pictures are (`measure.py`), sampling for the pipeline (`ml/diffusion`).
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import SD3Transformer2DModel
from transformers import CLIPTokenizer

from ml.arguments import number
from ml.compute.precision import computes_bfloat16
from ml.errors import exit_path
from ml.foundation.diffusion_model import load_autoencoder, load_weights, save_samples, token_ids
from ml.foundation.latents import load_training_latents
from ml.foundation.schedule import Schedule
from ml.foundation.train_diffusion import EMPTY_SHARE, SAME_CLASS_SCENES, TRAIN_SCENES
from ml.foundation.training import Training, run_training, trainer_parser
from ml.foundation.transformer_model import (
    HEAD_WIDTH,
    HEADS,
    LAYERS,
    SECOND_WIDTH,
    assemble,
    encode_text,
    export,
    first_tower,
    make_text_tower,
    make_transformer,
)

BATCH = 32
SCHEDULE = Schedule(
    1.5e-3, warmup=300, ema_decay=0.999, weight_decay=1e-3, fused=True, muon="transformer_blocks"
)
ABSENT, ABSENT_DEFAULT, DEFAULT_SHARE = 1, 256, 0.1
"""Zero tokens for the absent T5 in a step; in a share of the steps as many as diffusers takes
unless told otherwise, so that pictures are right with either."""
TIMESTEP_MEAN = 0.6
"""With 0 half of the samples have noise levels below 0.5; what class an object has is drawn between
0.5 and 0.8 (`benchmarks.noise_levels`)."""
REPORT_SECONDS = 600.0


def flow_loss(
    transformer: SD3Transformer2DModel,
    text: tuple[torch.Tensor, torch.Tensor],
    x_0: torch.Tensor,
    noise: torch.Tensor,
    sigma: torch.Tensor,
) -> torch.Tensor:
    """Squared error of the velocity noise - x_0 at (1 - sigma) x_0 + sigma noise, the rectified
    flow of arXiv 2403.03206 (equations 13 and 14).

    text: states (B,T,D) and pooled (B,D). x_0, noise: float32 (B,6,16,16). sigma: float32 (B,).
    """
    share = sigma[:, None, None, None]
    x_t = (1 - share) * x_0 + share * noise
    velocity = transformer(
        hidden_states=x_t,
        encoder_hidden_states=text[0],
        pooled_projections=text[1],
        timestep=sigma * 1000,
    ).sample
    return (velocity.float() - (noise - x_0)).square().mean()


def logit_normal(
    batch: int, generator: torch.Generator, mean: float = 0.0, deviation: float = 1.0
) -> torch.Tensor:
    """float32 (batch,) in 0..1: one from each of `batch` equally likely stretches of the
    logit-normal distribution (arXiv 2403.03206, section 3.1)."""
    share = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
    return (torch.special.ndtri(share.clamp(1e-5, 1 - 1e-5)) * deviation + mean).sigmoid()


def choose_rows(
    objects: torch.Tensor, batch: int, generator: torch.Generator, several_share: float | None
) -> torch.Tensor:
    """int64 (batch,): random scenes of those whose numbers of objects (N,) are given; with
    several_share (0..1) that share of them, on average, has more than one object."""
    if several_share is None:
        return torch.randint(len(objects), (batch,), generator=generator)
    several = torch.rand(batch, generator=generator) < several_share
    drawn = [
        rows[torch.randint(len(rows), (batch,), generator=generator)]
        for rows in ((objects > 1).nonzero()[:, 0], (objects == 1).nonzero()[:, 0])
    ]
    return torch.where(several, *drawn)


def prepare(chosen: argparse.Namespace, device: torch.device) -> Training:
    """Transformer and text towers on the latents and captions of drawn scenes."""
    first = chosen.start_from
    vae = load_autoencoder(first / "vae").to(device).eval()
    vae.register_to_config(shift_factor=0.0)  # which the pipeline adds
    scenes = load_training_latents(
        vae, chosen.train_scenes, chosen.same_class_scenes, chosen.scenes
    )
    tokenizer = CLIPTokenizer.from_pretrained(first / "tokenizer")
    ids, empty = token_ids(tokenizer, scenes.captions), token_ids(tokenizer, [""])

    torch.manual_seed(chosen.seed)
    towers = (first_tower(first), make_text_tower(tokenizer, SECOND_WIDTH))
    widths = [tower.config.hidden_size for tower in towers]
    transformer = make_transformer(sum(widths), LAYERS, HEADS, HEAD_WIDTH).to(device).train()
    if before := chosen.go_on_from:
        load_weights(transformer, before / "transformer/diffusion_pytorch_model.safetensors")
        for tower, part in zip(towers, ("text_encoder", "text_encoder_2"), strict=True):
            load_weights(tower, before / part / "model.safetensors")
    towers = tuple(tower.to(device).train() for tower in towers)
    bf16 = computes_bfloat16(device.type)
    pipe = assemble(vae, towers, tokenizer, transformer)
    fast = torch.compile(transformer, dynamic=False) if chosen.compile else transformer
    batch, timesteps = chosen.batch, (chosen.timestep_mean, chosen.timestep_deviation)

    def loss(generator: torch.Generator) -> torch.Tensor:
        rows = choose_rows(scenes.objects, batch, generator, chosen.several_share)
        dropped = torch.rand((batch, 1), generator=generator) < EMPTY_SHARE
        default = torch.rand((), generator=generator) < DEFAULT_SHARE
        sigma = logit_normal(batch, generator, *timesteps).to(device)
        x_0 = scenes.latents[rows].float()
        noise = torch.randn(x_0.shape, generator=generator).to(device)
        prompt = torch.where(dropped, empty, ids[rows]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            text = encode_text(towers, prompt, ABSENT_DEFAULT if default else ABSENT)
            return flow_loss(fast, text, x_0.to(device), noise, sigma)

    def save() -> str:
        export(pipe, chosen.out, first / "vae")
        save_samples(pipe, chosen.work / "samples.png", max_sequence_length=ABSENT)
        return f"exported to {chosen.out}"

    schedule = replace(SCHEDULE, peak_lr=chosen.peak_lr)
    return Training(
        {"transformer": transformer, "text_encoder": towers[0], "text_encoder_2": towers[1]},
        {
            "model": "SD3Transformer2DModel with two CLIPTextModelWithProjection",
            "layers": LAYERS,
            "heads": HEADS,
            "width": HEADS * HEAD_WIDTH,
            "text_widths": widths,
            "loss": "velocity, timesteps logit-normal ({:g}, {:g})".format(*timesteps),
            "empty_captions": EMPTY_SHARE,
            "batch": batch,
            "train_scenes": chosen.train_scenes,
            "same_class_scenes": chosen.same_class_scenes,
            "several_objects": "as drawn" if chosen.several_share is None else chosen.several_share,
            "starts_from": "an exported transformer"
            if chosen.go_on_from
            else "random weights; the first text tower from the U-Net's",
            "optimizer": "Muon for the blocks' matrices, AdamW for the rest",
            "peak_lr": schedule.peak_lr,
            "warmup_steps": schedule.warmup,
            "ema_decay": schedule.ema_decay,
        },
        schedule,
        batch,
        loss,
        save,
        REPORT_SECONDS,
    )


def options() -> argparse.ArgumentParser:
    """The options of this trainer."""
    parser = trainer_parser(
        __doc__,
        work=".scratch/train/transformer",
        out="data/foundation/micro/transformer",
        train_scenes=TRAIN_SCENES,
    )
    parser.add_argument(
        "--start-from",
        type=Path,
        default=Path("data/foundation/micro/diffusion"),
        help="the exported pipeline whose autoencoder, tokenizer and text encoder are taken",
    )
    parser.add_argument("--go-on-from", type=Path, help="an exported transformer to train on")
    parser.add_argument(
        "--timestep-mean",
        type=number(float, -5, 5),
        default=TIMESTEP_MEAN,
        help="mean of the logit-normal distribution of noise levels; above 0 more noise",
    )
    parser.add_argument(
        "--timestep-deviation",
        type=number(float, 0.01, 5),
        default=1.0,
        help="its deviation; below 1 fewer samples with hardly any noise or hardly any picture",
    )
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile; pays from some 10 minutes on"
    )
    parser.add_argument(
        "--several-share",
        type=number(float, 0, 1),
        help="share of the samples that have more than one object; without it as drawn, 0.55",
    )
    parser.add_argument("--batch", type=number(int, 1), default=BATCH)
    parser.add_argument("--same-class-scenes", type=number(int, 1), default=SAME_CLASS_SCENES)
    parser.add_argument("--peak-lr", type=number(float, 0, 1), default=SCHEDULE.peak_lr)
    return parser


def main(argv: list[str] | None = None) -> None:
    run_training(prepare, options().parse_args(argv))


if __name__ == "__main__":
    sys.exit(exit_path(main)())
