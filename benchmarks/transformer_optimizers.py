"""What Muon is worth to the micro transformer: loss after as many steps on the same batches.

    python -m benchmarks.transformer_optimizers --steps 400 [--start folder]

Trains an exported transformer on, once by AdamW alone and once with Muon for the matrices of its
blocks, in the trainer's own loop, and prints a Markdown row for each: the loss of the velocity at
fixed noise levels on the same 192 pictures, and seconds a step. The first row is the start's.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from transformers import CLIPTokenizer

from ml.arguments import number
from ml.errors import exit_path
from ml.foundation import train_transformer
from ml.foundation.diffusion_model import load_autoencoder, token_ids
from ml.foundation.latents import load_training_latents
from ml.foundation.run import Run
from ml.foundation.schedule import Budget
from ml.foundation.training import Training, choose_device
from ml.foundation.transformer_model import encode_text

LEVELS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.97)
PICTURES, WARMUP = 192, 30
START = Path("data/foundation/micro/transformer")


def train(own: Training, steps: int, muon: str, rate: float) -> float:
    """Seconds a step."""
    schedule = replace(own.schedule, peak_lr=rate, warmup=WARMUP, muon=muon)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(own.models, Path(folder), Budget(steps=steps), own.settings, schedule, seed=0)
        for _ in run.steps(every_seconds=float("inf"), report=lambda: None):
            run.update(own.loss(run.generator), own.batch)
    return run.seconds / run.step


def judge(options: argparse.Namespace) -> Callable[[Mapping[str, nn.Module]], str]:
    """The losses of models at LEVELS, as cells of a row."""
    first, generator = options.start_from, torch.Generator().manual_seed(0)
    scenes = load_training_latents(
        load_autoencoder(first / "vae").eval(),
        options.train_scenes,
        options.same_class_scenes,
        options.scenes,
    )
    rows = torch.randint(len(scenes.latents), (PICTURES,), generator=generator)
    x_0, noise = scenes.latents[rows].float(), torch.randn(PICTURES, 6, 16, 16, generator=generator)
    tokenizer = CLIPTokenizer.from_pretrained(first / "tokenizer")
    ids = token_ids(tokenizer, [scenes.captions[row] for row in rows])

    @torch.no_grad()
    def losses(models: Mapping[str, nn.Module]) -> str:
        towers = models["text_encoder"], models["text_encoder_2"]
        text, net = encode_text(towers, ids, train_transformer.ABSENT), models["transformer"]
        found = [
            train_transformer.flow_loss(net, text, x_0, noise, torch.full((PICTURES,), level))
            for level in LEVELS
        ]
        return " | ".join(f"{loss.item():.4f}" for loss in found)

    return losses


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=number(int, 1), default=400)
    parser.add_argument("--peak-lr", type=number(float, 0, 1), default=8e-4)
    parser.add_argument("--start", type=Path, default=START, help="an exported transformer")
    parser.add_argument("--scenes", type=Path, default=Path(".scratch/scenes"))
    chosen = parser.parse_args(argv)
    asked = ("--steps", chosen.steps, "--go-on-from", chosen.start, "--scenes", chosen.scenes)
    options = train_transformer.options().parse_args([str(part) for part in asked])
    losses, device = judge(options), choose_device("cpu")
    columns = " | ".join(f"σ {level}" for level in LEVELS)
    table = [f"| {chosen.steps} steps | {columns} | s a step |", "|---" * (len(LEVELS) + 2) + "|"]
    for name, muon in (("AdamW", ""), ("Muon", train_transformer.SCHEDULE.muon)):
        own = train_transformer.prepare(options, device)
        if not muon:
            table.append(f"| as it was | {losses(own.models)} | |")
        seconds = train(own, chosen.steps, muon, chosen.peak_lr)
        table.append(f"| {name} | {losses(own.models)} | {seconds:.3f} |")
    print("\n".join(table))


if __name__ == "__main__":
    sys.exit(exit_path(main)())
