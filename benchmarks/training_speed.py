"""Speed of one training step of the micro text-to-image model by attention and number format.

    python -m benchmarks.training_speed [--seconds 6]

Prints pictures a second and the ratio to the first row (four heads, torch's fused attention,
float32) for the settings that `ml/foundation/train_diffusion.py` chose among. Needs no data: the
step is the trainer's own, on random latents.
"""

import argparse
import sys
import time

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from ml.arguments import number
from ml.errors import EXIT_CODES, exit_path
from ml.foundation import diffusion_model, train_diffusion

# heads, attention processor, autocast to bfloat16
SETTINGS = (
    (4, AttnProcessor2_0, False),
    (4, AttnProcessor2_0, True),
    (4, AttnProcessor, False),
    (4, AttnProcessor, True),
    (2, AttnProcessor, False),
    (2, AttnProcessor, True),
)


def make_unet(heads: int, processor: type) -> UNet2DConditionModel:
    """The trainer's U-Net with another number of heads and another attention."""
    config = dict(diffusion_model.make_unet().config) | {"attention_head_dim": heads}
    unet = UNet2DConditionModel.from_config(config)
    unet.set_attn_processor(processor())
    return unet.to(memory_format=torch.channels_last).train()


def pictures_a_second(heads: int, processor: type, bf16: bool, seconds: float) -> float:
    """Steps of forward, backward and update for so many seconds, after two that are not counted."""
    unet = make_unet(heads, processor)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, fused=True)
    alpha_bar, batch = diffusion_model.alphas_cumprod(), train_diffusion.BATCH
    x_0, noise = torch.randn(2, batch, 6, 16, 16)
    text = torch.randn(batch, 24, diffusion_model.TEXT_WIDTH)
    t = torch.arange(batch) * 1000 // batch
    started, steps = 0.0, -2
    while steps < 1 or time.perf_counter() - started < seconds:
        if steps == 0:
            started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = train_diffusion.diffusion_loss(unet, text, x_0, noise, t, alpha_bar)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps += 1
    return steps * batch / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=number(float, 0, 86_400), default=6.0, help="for each row"
    )
    chosen = parser.parse_args()
    torch.set_flush_denormal(True)
    base = None
    for heads, processor, bf16 in SETTINGS:
        speed = pictures_a_second(heads, processor, bf16, chosen.seconds)
        base = base or speed
        kind = "fused" if processor is AttnProcessor2_0 else "plain"
        print(
            f"{heads} heads, {kind}, {'bfloat16' if bf16 else 'float32':8}"
            f"  {speed:6.1f} pictures/s  {speed / base:4.2f}x",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(exit_path(main)())
