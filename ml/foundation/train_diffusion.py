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
import hashlib
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image
from safetensors.torch import load_file
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ml.arguments import number
from ml.compute.precision import computes_bfloat16
from ml.errors import EXIT_CODES, exit_path
from ml.foundation.scenes import CHUNK, fingerprint, stream_scenes
from ml.foundation.tokenizer import build_tokenizer
from ml.foundation.train_autoencoder import to_signed
from ml.foundation.training import Budget, Run, add_arguments, choose_device
from ml.store.files import replace_folder

CHANNELS, HEADS = (48, 96, 128), 2
TEXT_WIDTH, TEXT_HEADS = 64, 4
PEAK_LR, WARMUP, EMA_DECAY, BATCH = 1.5e-3, 300, 0.999, 32
EMPTY_SHARE = 0.1
"""Captions replaced by the empty one, for classifier-free guidance."""

GAMMA = 5.0
TRAIN_SCENES = 100_000
SAME_CLASS_SCENES = 10_000
"""Further scenes with two objects of one class, told apart in the caption by their colours."""

LATENT_FILE_SCENES = 40 * CHUNK
"""Scenes a file of latents: 31 MB; 15 s of drawing and encoding on two cores."""

REPORT_SECONDS = 300.0
NOISE_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
}
"""Stable Diffusion's noise; its last step keeps 7 % of the signal's amplitude."""

SAMPLE_PROMPTS = tuple(
    f"a photograph of {thing}"
    for thing in (
        "a dog", "a person", "a bicycle", "an aeroplane", "a red car", "a cat and a sofa",
        "a horse and a train", "a bottle and a chair",
    )
)  # fmt: skip


def make_unet(channels: tuple[int, int, int] = CHANNELS) -> UNet2DConditionModel:
    """Random weights; 4.3 M parameters by default. Cross-attention at 16x16 and 8x8, not at 4x4
    (the mid block has it too). diffusers reads attention_head_dim as the number of heads."""
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=6,
        out_channels=6,
        layers_per_block=1,
        block_out_channels=channels,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=8,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=HEADS,
    )
    # Plain matrix products: torch's fused attention is slow on CPUs at 12 to 32 channels a head.
    # Training in bfloat16 on 2 cores, images/s: 4 heads fused 64, 4 heads plain 125, 2 heads 144.
    unet.set_attn_processor(AttnProcessor())
    return unet.to(memory_format=torch.channels_last)


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Random weights; a CLIP text model of 2 layers, trained together with the U-Net."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=TEXT_HEADS,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def token_ids(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """int64 (N, model_max_length), padded as StableDiffusionPipeline pads."""
    return tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids


def load_autoencoder(folder: Path) -> AutoencoderKL:
    """Read by hand: from_pretrained writes the folder's name into the config that is saved."""
    vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder))
    load_weights(vae, folder / "diffusion_pytorch_model.safetensors")
    return vae


def load_weights(model: torch.nn.Module, file: Path) -> None:
    """Fill a model from a safetensors file, which may be float16. RuntimeError if keys differ."""
    model.load_state_dict(load_file(file))


@torch.no_grad()
def encode(vae: AutoencoderKL, images: np.ndarray) -> torch.Tensor:
    """uint8 (N,64,64,3) -> float16 (N,6,16,16) on the CPU: posterior means x scaling_factor."""
    parts = [
        vae.encode(to_signed(part.to(vae.device))).latent_dist.mode()
        for part in torch.from_numpy(images).split(64)
    ]
    return (torch.cat(parts) * vae.config.scaling_factor).half().cpu()


def load_latents(
    vae: AutoencoderKL, purpose: str, count: int, cache_dir: Path
) -> tuple[torch.Tensor, list[str]]:
    """Latents float16 (count,6,16,16) and captions of the first scenes of a purpose.

    Cached in files of 10,240 scenes under a name that changes with the drawing and the weights;
    asking for more encodes the missing files only.
    """
    weights = b"".join(t.cpu().numpy().tobytes() for t in vae.state_dict().values())
    name = f"latents-{fingerprint(purpose)}-{hashlib.sha256(weights).hexdigest()[:12]}"
    folder = cache_dir / name
    folder.mkdir(parents=True, exist_ok=True)
    latents, captions = [], []
    with tqdm(total=count, desc="drawing and encoding", unit="scene", mininterval=10) as bar:
        for start in range(0, count, LATENT_FILE_SCENES):
            size = min(LATENT_FILE_SCENES, count - start)
            file = folder / f"latents-{start:07d}-{size}.npz"
            if not file.exists():
                _encode_file(vae, purpose, start, size, file)
            with np.load(file, allow_pickle=False) as arrays:
                latents.append(torch.from_numpy(arrays["latents"]))
                captions += arrays["captions"].tolist()
            bar.update(size)
    return torch.cat(latents), captions


def _encode_file(vae: AutoencoderKL, purpose: str, start: int, size: int, file: Path) -> None:
    parts, captions = [], []
    for scenes in stream_scenes(purpose, size, start=start):
        parts.append(encode(vae, scenes.images))
        captions += scenes.captions
    partial = file.with_suffix(".partial.npz")
    np.savez(partial, latents=torch.cat(parts).numpy(), captions=np.array(captions))
    os.replace(partial, file)


def alphas_cumprod() -> torch.Tensor:
    """float32 (1000,): the share of signal power left at each timestep (alpha-bar)."""
    betas = torch.linspace(
        NOISE_SCHEDULE["beta_start"] ** 0.5, NOISE_SCHEDULE["beta_end"] ** 0.5, 1000
    )
    return (1 - betas.square()).cumprod(0)


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


def assemble(
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
) -> StableDiffusionPipeline:
    """The pipeline over these modules themselves, not copies of them."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DPMSolverMultistepScheduler(**NOISE_SCHEDULE, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def export(pipe: StableDiffusionPipeline, out: Path) -> None:
    """Save as a diffusers folder, each part swapped in whole; other files in OUT stay.

    The U-Net goes out in float16 (8.7 MB; the checkpoints together have 25 MB) and diffusers loads
    it as float32 again; the text encoder stays float32, since transformers keeps the file's type.
    """
    partial = out / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    unet = UNet2DConditionModel.from_config(pipe.unet.config)
    unet.load_state_dict({k: v.cpu().contiguous() for k, v in pipe.unet.state_dict().items()})
    assemble(pipe.vae, pipe.text_encoder, pipe.tokenizer, unet.half()).save_pretrained(partial)
    for part in sorted(partial.iterdir()):
        if part.is_dir():
            replace_folder(part, out / part.name)
        else:
            os.replace(part, out / part.name)
    partial.rmdir()


def save_samples(pipe: StableDiffusionPipeline, path: Path) -> None:
    """One picture a prompt of SAMPLE_PROMPTS in a row, doubled in size, for the eye."""
    pipe.set_progress_bar_config(disable=True)
    pictures = pipe(
        list(SAMPLE_PROMPTS), num_inference_steps=15, guidance_scale=4.0, output_type="np",
        generator=torch.Generator().manual_seed(1),
    ).images  # fmt: skip
    row = Image.fromarray((np.concatenate(list(pictures), axis=1) * 255).round().astype(np.uint8))
    row.resize((2 * row.width, 2 * row.height), Image.Resampling.NEAREST).save(path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=EXIT_CODES)
    add_arguments(parser, ".scratch/train/diffusion")
    parser.add_argument("--out", type=Path, default=Path("data/foundation/micro/diffusion"))
    parser.add_argument("--vae", type=Path, help="autoencoder folder; default OUT/vae")
    parser.add_argument("--batch", type=number(int, 1), default=BATCH)
    parser.add_argument("--train-scenes", type=number(int, 1), default=TRAIN_SCENES)
    parser.add_argument("--same-class-scenes", type=number(int, 1), default=SAME_CLASS_SCENES)
    parser.add_argument("--peak-lr", type=number(float, 0, 1), default=PEAK_LR)
    parser.add_argument("--start-from", type=Path, help="an exported pipeline to go on from")
    parser.add_argument("--channels", type=number(int, 1, 4096), nargs=3, default=CHANNELS)
    args = parser.parse_args(arguments)
    device = choose_device(args.device)
    vae = load_autoencoder(args.vae or args.out / "vae").to(device).eval()
    latents, captions = load_latents(vae, "train", args.train_scenes, args.scenes)
    pairs, pair_captions = load_latents(vae, "same_class", args.same_class_scenes, args.scenes)
    latents, captions = torch.cat((latents, pairs)), captions + pair_captions
    # Kept beside the checkpoint: text embeddings mean nothing under other ids. 4,096 captions hold
    # every word of the world many times over.
    if not (args.work / "tokenizer").exists():
        if args.start_from:
            first = CLIPTokenizer.from_pretrained(args.start_from / "tokenizer")
        else:
            first = build_tokenizer(captions[:4096])
        first.save_pretrained(args.work / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(args.work / "tokenizer")
    ids, empty = token_ids(tokenizer, captions), token_ids(tokenizer, [""])

    torch.manual_seed(args.seed)
    unet = make_unet(tuple(args.channels)).to(device).train()
    text_encoder = make_text_encoder(tokenizer).to(device).train()
    if args.start_from:
        load_weights(unet, args.start_from / "unet/diffusion_pytorch_model.safetensors")
        load_weights(text_encoder, args.start_from / "text_encoder/model.safetensors")
    models = {"unet": unet, "text_encoder": text_encoder}
    weights = [p for model in models.values() for p in model.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=args.peak_lr, weight_decay=1e-3, fused=True)
    settings = {
        "model": "UNet2DConditionModel with CLIPTextModel",
        "channels": list(args.channels),
        "text_width": TEXT_WIDTH,
        "heads": HEADS,
        "text_heads": TEXT_HEADS,
        "loss": f"v-prediction, min-SNR {GAMMA}",
        "empty_captions": EMPTY_SHARE,
        "batch": args.batch,
        "train_scenes": args.train_scenes,
        "same_class_scenes": args.same_class_scenes,
        "starts_from": "an exported pipeline" if args.start_from else "random weights",
        "peak_lr": args.peak_lr,
        "warmup_steps": WARMUP,
        "ema_decay": EMA_DECAY,
        "seed": args.seed,
    }
    run = Run(
        models, optimizer, args.work, Budget(args.minutes, args.steps), settings,
        seed=args.seed, peak_lr=args.peak_lr, warmup=WARMUP, ema_decay=EMA_DECAY,
    )  # fmt: skip
    pipe = assemble(vae, text_encoder, tokenizer, unet)

    def report() -> None:
        with run.averaged():
            export(pipe, args.out)
            save_samples(pipe, args.work / "samples.png")
        print(f"step {run.step}: exported to {args.out}", flush=True)

    alpha_bar, bf16 = alphas_cumprod().to(device), computes_bfloat16(device.type)
    for _ in run.steps(every_seconds=REPORT_SECONDS, report=report):
        draw = run.generator
        rows = torch.randint(len(latents), (args.batch,), generator=draw)
        dropped = torch.rand((args.batch, 1), generator=draw) < EMPTY_SHARE
        # One timestep from each of `batch` equal stretches: every step sees all noise levels.
        t = (torch.arange(args.batch) + torch.rand(args.batch, generator=draw)) * 1000 / args.batch
        t = t.long().clamp(max=999).to(device)
        x_0 = latents[rows].float()
        noise = torch.randn(x_0.shape, generator=draw).to(device)
        prompt = torch.where(dropped, empty, ids[rows]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            text = text_encoder(prompt).last_hidden_state
            loss = diffusion_loss(unet, text, x_0.to(device), noise, t, alpha_bar)
        run.update(loss, args.batch)


if __name__ == "__main__":
    sys.exit(exit_path(main)())
