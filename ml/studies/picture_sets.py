"""The sets of pictures that the studies share, generated or drawn, each made once."""

from collections.abc import Sequence

import pandas as pd

from ml.images.stored import Pictures
from ml.store.making import write_shards
from ml.store.shards import split
from ml.studies.parallel import processes
from ml.studies.picture_makers import DrawnMaker, GeneratedMaker, evidence_timesteps
from ml.studies.records import SCHEMA, Record, read_record
from ml.studies.sizes import FRACTIONS
from ml.studies.study_run import StudyRun


def generated(
    run: StudyRun, name: str, prompts: Sequence[dict], keep: Sequence[float] = ()
) -> list:
    """The set's pictures, made where they are not. keep: shares of the denoising steps from the
    last, of whose inputs the latents are kept (`sizes.FRACTIONS`); the last one's always are."""
    steps = run.params.diffusion.steps
    kept = sorted({max(1, round(share * steps)) for share in (*keep, FRACTIONS[0])})
    recipe = run.recipe(prompts=list(prompts), keep=kept, evidence=evidence_timesteps(run))
    return _made(run, name, list(prompts), GeneratedMaker(run, tuple(kept)), recipe)


def drawn(run: StudyRun, name: str, classes: Sequence[tuple[str, ...]], start: int) -> list:
    """The set's drawn scenes, made where they are not. start: of their seeds in "paper"."""
    asked = [
        {"key": f"{name}-{i:06d}", "classes": list(own), "index": start + i}
        for i, own in enumerate(classes)
    ]
    recipe = run.recipe(scenes=asked, evidence=evidence_timesteps(run))
    return _made(run, name, asked, DrawnMaker(run), recipe)


def _made(run: StudyRun, name: str, asked: list, make, recipe: str) -> list[Record]:
    folder = run.folder / "pictures" / name
    plan = split(asked, run.size.shard)
    shards = write_shards(folder, recipe, plan, make, SCHEMA, processes(run.workers))
    pictures, columns = Pictures(), [column for column in SCHEMA.names if column != "image"]
    return [
        read_record(row, name, folder / shard, pictures)
        for shard in shards
        for row in pd.read_parquet(folder / shard, columns=columns).itertuples()
    ]
