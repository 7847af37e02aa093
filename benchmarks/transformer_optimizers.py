"""What Muon is worth to the micro transformer: loss after as many steps on the same batches.

    python -m benchmarks.transformer_optimizers --steps 400

Trains the exported micro transformer on, once by AdamW alone and once with Muon for the matrices of
its blocks, the learning rate falling to 0 in a line, and prints a Markdown row for each: the loss
of the velocity at fixed noise levels on the same 192 pictures, and seconds a step.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from transformers import CLIPTokenizer

from ml.arguments import number
from ml.errors import exit_path
from ml.foundation import train_transformer
from ml.foundation.diffusion_model import load_autoencoder, token_ids
from ml.foundation.latents import load_training_latents
from ml.foundation.optimizers import make_optimizers
from ml.foundation.transformer_model import encode_text

LEVELS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.97)
PICTURES, WARMUP = 192, 30
FOLDER = Path("data/foundation/micro")


def trained(chosen: argparse.Namespace, muon: str, rate: float) -> str:
    """A Markdown row."""
    own = train_transformer.prepare(chosen, torch.device("cpu"))
    schedule = replace(own.schedule, peak_lr=rate, muon=muon)
    optimizers = make_optimizers(own.models, schedule)
    parameters = [p for model in own.models.values() for p in model.parameters()]
    generator, seconds = torch.Generator(), list[float]()
    for step in range(chosen.steps):
        started = time.perf_counter()
        share = min(1.0, (step + 1) / WARMUP) * (1 - step / chosen.steps)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * share
        own.loss(generator.manual_seed(step)).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    middle = sorted(seconds)[len(seconds) // 2] if seconds else 0.0
    losses = " | ".join(f"{loss:.4f}" for loss in losses_of(chosen, own.models))
    name = "as exported" if not chosen.steps else "Muon" if muon else "AdamW"
    return f"| {name} | {losses} | {middle:.3f} |"


@torch.no_grad()
def losses_of(chosen: argparse.Namespace, models: dict[str, torch.nn.Module]) -> list[float]:
    """At each of LEVELS."""
    first, generator = chosen.start_from, torch.Generator().manual_seed(0)
    vae = load_autoencoder(first / "vae").eval()
    latents, captions = load_training_latents(
        vae, chosen.train_scenes, chosen.same_class_scenes, chosen.scenes
    )
    rows = torch.randint(len(latents), (PICTURES,), generator=generator)
    noise = torch.randn((PICTURES, *latents.shape[1:]), generator=generator)
    tokenizer = CLIPTokenizer.from_pretrained(first / "tokenizer")
    ids = token_ids(tokenizer, [captions[row] for row in rows])
    towers = (models["text_encoder"], models["text_encoder_2"])
    text = encode_text(towers, ids, train_transformer.ABSENT)
    x_0 = latents[rows].float()
    return [
        train_transformer.flow_loss(
            models["transformer"], text, x_0, noise, torch.full((PICTURES,), level)
        ).item()
        for level in LEVELS
    ]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=number(int, 1), default=400)
    parser.add_argument("--peak-lr", type=number(float, 0, 1), default=8e-4)
    parser.add_argument("--scenes", type=Path, default=Path(".scratch/scenes"))
    chosen = parser.parse_args(argv)
    columns = " | ".join(f"σ {level}" for level in LEVELS)
    print(f"| {chosen.steps} steps | {columns} | s a step |\n|{'---|' * (len(LEVELS) + 2)}")
    for steps, muon in ((0, ""), (chosen.steps, ""), (chosen.steps, "transformer_blocks")):
        options = train_transformer.parser().parse_args([
            "--steps", "1", "--go-on-from", str(FOLDER / "transformer"),
            "--scenes", str(chosen.scenes), "--timestep-mean", "0.6",
        ])  # fmt: skip
        options.steps = steps
        print(trained(options, muon, chosen.peak_lr), flush=True)


if __name__ == "__main__":
    sys.exit(exit_path(main)())
