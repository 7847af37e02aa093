"""Latents and captions of drawn scenes for the diffusion models' trainings, from a cache.

The cache is scratch: what is missing is drawn and encoded again, the same.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from tqdm import tqdm

from ml.foundation.scenes import CHUNK, NO_CLASS, fingerprint, stream_scenes
from ml.foundation.train_autoencoder import to_signed
from ml.store.files import atomic

LATENT_FILE_SCENES = 40 * CHUNK
"""Scenes a file of latents: 31 MB; 15 s of drawing and encoding on two cores."""


@dataclass(frozen=True)
class SceneLatents:
    """N scenes as a text-to-image model learns from them.

    latents: float16 (N,6,16,16) on the CPU. captions: N strings. objects: uint8 (N,), how many
    each scene has, 1..3.
    """

    latents: torch.Tensor
    captions: list[str]
    objects: torch.Tensor


@torch.no_grad()
def encode(vae: AutoencoderKL, images: np.ndarray) -> torch.Tensor:
    """uint8 (N,64,64,3) -> float16 (N,6,16,16) on the CPU: posterior means x scaling_factor."""
    parts = [
        vae.encode(to_signed(part.to(vae.device))).latent_dist.mode()
        for part in torch.from_numpy(images).split(64)
    ]
    return (torch.cat(parts) * vae.config.scaling_factor).half().cpu()


def load_latents(vae: AutoencoderKL, purpose: str, count: int, cache_dir: Path) -> SceneLatents:
    """The first scenes of a purpose.

    Cached in files of 10,240 scenes under a name that changes with the drawing and the weights;
    asking for more encodes the missing files only.
    """
    weights = b"".join(t.cpu().numpy().tobytes() for t in vae.state_dict().values())
    name = f"captioned-{fingerprint(purpose)}-{hashlib.sha256(weights).hexdigest()[:12]}"
    folder = cache_dir / name
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    with tqdm(total=count, desc="drawing and encoding", unit="scene", mininterval=10) as bar:
        for start in range(0, count, LATENT_FILE_SCENES):
            size = min(LATENT_FILE_SCENES, count - start)
            file = folder / f"latents-{start:07d}-{size}.npz"
            if not file.exists():
                _encode_file(vae, purpose, start, size, file)
            with np.load(file, allow_pickle=False) as arrays:
                parts.append(
                    SceneLatents(
                        torch.from_numpy(arrays["latents"]),
                        arrays["captions"].tolist(),
                        torch.from_numpy(arrays["objects"]),
                    )
                )
            bar.update(size)
    return _joined(parts)


def load_training_latents(
    vae: AutoencoderKL, scenes: int, same_class: int, cache_dir: Path
) -> SceneLatents:
    """`load_latents` of the scenes that a text-to-image model learns from, and then of those with
    two objects of one class."""
    return _joined(
        [
            load_latents(vae, "train", scenes, cache_dir),
            load_latents(vae, "same_class", same_class, cache_dir),
        ]
    )


def _joined(parts: list[SceneLatents]) -> SceneLatents:
    return SceneLatents(
        torch.cat([part.latents for part in parts]),
        [caption for part in parts for caption in part.captions],
        torch.cat([part.objects for part in parts]),
    )


def _encode_file(vae: AutoencoderKL, purpose: str, start: int, size: int, file: Path) -> None:
    latents, captions, objects = [], list[str](), []
    for scenes in stream_scenes(purpose, size, start=start):
        latents.append(encode(vae, scenes.images))
        captions += scenes.captions
        objects.append((scenes.classes != NO_CLASS).sum(1).astype(np.uint8))
    with atomic(file) as temporary, temporary.open("wb") as opened:  # savez adds .npz to a name
        np.savez(
            opened,
            latents=torch.cat(latents).numpy(),
            captions=np.array(captions),
            objects=np.concatenate(objects),
        )
