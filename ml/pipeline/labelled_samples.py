"""A user's own pictures as training samples: encoded by the VAE and noised to the timestep that the
generated pictures' features are taken at."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ml.compute.batching import Batches
from ml.diffusion.latents import add_noise, encode_images
from ml.diffusion.pipeline import Pipeline
from ml.grounding.samples import Sample, named_by
from ml.images.png import decode_png
from ml.images.stored import Pictures
from ml.pipeline.samples import accepted_masks
from ml.pipeline.workspace import Workspace
from ml.store.shards import read_frame
from ml.store.sidecars import OWN, shard_files

_COLUMNS = [
    *("key", "text", "entities", "words", "phrases", "seed", "ignored", "image"),
    *("height", "width"),
]


def labelled_samples(
    pipe: Pipeline, workspace: Workspace, timestep: int, batch_size: int
) -> list[Sample]:
    """The user's own pictures with at least one accepted mask, in the order of their keys; none
    where `triplets` was made without any.

    Their subset is train: they never judge. timestep: 0..999. batch_size: pictures encoded at once.
    """
    folder = workspace.folder("triplets")
    shards = shard_files(folder / OWN)
    if not shards:
        return []
    masks = {key: rles for key, (_, rles) in accepted_masks(folder, {OWN}).items()}
    pictures, batches = Pictures(), Batches(batch_size)
    samples: list[Sample] = []
    with tqdm(total=len(masks), desc="own pictures", unit="picture") as bar:
        for shard in shards:
            rows = [row for row in read_frame(shard, _COLUMNS).itertuples() if row.key in masks]

            def encode(part: Sequence[Any]) -> np.ndarray:
                images = np.stack([decode_png(row.image) for row in part])
                clean = encode_images(pipe, images)
                return add_noise(pipe, clean, timestep, [row.seed for row in part]).cpu().numpy()

            for part, latents in batches.run(rows, encode):
                for row, latent in zip(part, latents, strict=True):
                    own = masks[row.key]
                    samples.append(_sample(row, own, latent, timestep, shard, pictures))
                bar.update(len(part))
    return samples


def _sample(
    row: Any,
    rles: dict[str, str],
    latent: np.ndarray,
    timestep: int,
    shard: Path,
    pictures: Pictures,
) -> Sample:
    """One sample. row: a named tuple of LABELLED with _COLUMNS; rles: accepted ones, by entity."""
    return Sample(
        **named_by(row),
        cell="",
        subset="train",
        size=(int(row.height), int(row.width)),
        shard=shard,
        pictures=pictures,
        latent=latent.astype(np.float32),
        timestep=timestep,
        rles=tuple(rles.get(entity, "") for entity in row.entities),
        daam=np.zeros((len(row.entities), 0, 0), np.float32),
        ignored=row.ignored,
    )
