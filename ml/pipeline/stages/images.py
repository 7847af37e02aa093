"""Stage `images`: pictures of the train and sim prompts.

Reads: `prompts`. Writes: shards in the IMAGES schema, contact_sheet.jpg. Settings: seed, diffusion,
shards. Kept of each picture are the latent before the last denoising step, from which later stages
compute features again (64 KB at full size instead of 130 MB), and DAAM's heat maps, which only the
sampling itself can give.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ml.compute.batching import Batches
from ml.compute.workers import Workers
from ml.diffusion.loading import load_pipeline
from ml.diffusion.pipeline import Pipeline
from ml.diffusion.sampling import Samples, sample
from ml.diffusion.tokens import refuse_long_prompts
from ml.images.contact_sheet import contact_sheet, spread
from ml.images.facts import picture_facts
from ml.images.png import encode_png
from ml.images.stored import load_pictures
from ml.pipeline.table import Output
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.behind import behind
from ml.store.making import write_shards
from ml.store.schemas import IMAGES, PROMPTS
from ml.store.shards import read_shards, split

PURPOSES = ("train", "sim")  # synthetic pictures are made, and labelled, by synthetic_dataset
SHEET = 40
"""Pictures on the contact sheet, from the head of the set."""


def run(params: Params, workspace: Workspace, recipe: str) -> Output:
    """Samples every train and sim prompt, in the order of the keys.

    Raises ValueError when there is no such prompt or one is too long for the text encoder.
    """
    prompts = read_shards(workspace.folder("prompts"), PROMPTS.names)
    wanted = prompts[prompts["purpose"].isin(PURPOSES)].sort_values("key")
    if wanted.empty:
        raise ValueError(
            f"no prompts of purpose {PURPOSES} in {workspace.folder('prompts')}: "
            "set prompts.train_one, train_two or sim_per_cell above 0"
        )
    folder = workspace.folder("images")
    make = ShardMaker(params, workspace)
    refuse_long_prompts(workspace.located(params.diffusion), wanted.to_dict("records"))
    plan = split(wanted.to_dict("records"), params.shards.size)
    rows = write_shards(
        folder, recipe, plan, make, IMAGES, Workers(params.executor, params.diffusion.device)
    )
    _contact_sheet(folder)
    return Output(facts=_facts(folder), rows=rows)


class ShardMaker:
    """Turns the prompts of a shard into its rows; loads the model when the first one is made."""

    def __init__(self, params: Params, workspace: Workspace):
        self.params, self.workspace = params, workspace
        self.batches = Batches(params.diffusion.batch_size)

    @cached_property
    def pipe(self) -> Pipeline:
        return load_pipeline(self.workspace.located(self.params.diffusion))

    def __call__(self, prompts: Sequence[dict[str, Any]]) -> pd.DataFrame:
        made = behind(self.batches.run(prompts, self._sample), _rows)
        return pd.DataFrame([row for rows in made for row in rows])

    def _sample(self, batch: Sequence[dict[str, Any]]) -> Samples:
        diffusion = self.params.diffusion
        return sample(
            self.pipe,
            [prompt["text"] for prompt in batch],
            [prompt["seed"] for prompt in batch],
            steps=diffusion.steps,
            guidance_scale=diffusion.guidance_scale,
            words=[list(prompt["words"]) for prompt in batch],
        )


def _rows(made: tuple[Sequence[dict[str, Any]], Samples]) -> list[dict[str, Any]]:
    """The rows of a batch of prompts that were drawn."""
    batch, samples = made
    return [_row(prompt, samples, i) for i, prompt in enumerate(batch)]


def _row(prompt: dict[str, Any], samples: Samples, i: int) -> dict[str, Any]:
    latent = samples.latents[i].numpy()
    if samples.daam is None:
        raise TypeError("pictures sampled without words have no heat maps of them")
    daam = samples.daam[i].numpy().astype(np.float16)
    return (
        prompt
        | picture_facts(samples.images[i])
        | {
            "image": encode_png(samples.images[i]),
            "latent": latent.astype("<f4").tobytes(),
            "latent_shape": list(latent.shape),
            "timestep": samples.timestep,
            "daam": daam.astype("<f2").tobytes(),
            "daam_shape": list(daam.shape),
        }
    )


def _contact_sheet(folder: Path) -> None:
    """Pictures from all over the set, so that every cell shows."""
    made = read_shards(folder, ["key", "text"])
    shown = made.iloc[spread(len(made), SHEET)]
    pictures = load_pictures(folder, list(shown["key"]))
    contact_sheet(
        [pictures[key] for key in shown["key"]],
        None,
        list(shown["text"]),
        folder / "contact_sheet.jpg",
        columns=8,
    )


def _facts(folder: Path) -> dict[str, Any]:
    columns = ["cell", "purpose", "entropy", "timestep", "latent_shape"]
    made = read_shards(folder, columns)
    return {
        "pictures": len(made),
        "by_cell": dict(sorted(Counter(made["purpose"] + "/" + made["cell"]).items())),
        "mean_entropy": float(made["entropy"].mean()),
        "timestep": int(made["timestep"].iloc[0]),
        "latent_shape": [int(side) for side in made["latent_shape"].iloc[0]],
    }
