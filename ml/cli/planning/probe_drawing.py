"""The probe draws pictures as the stage `images` does, and times it."""

from dataclasses import replace

import pandas as pd

from ml.cli.planning.timing import FEW, MORE, PATIENCE, steady, timed
from ml.pipeline.stages.images import ShardMaker
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.words.prompts import make_prompts
from ml.words.vocabulary import Vocabulary


class Draw:
    """Pictures made as the stage `images` makes a shard, which halves its batch if it must."""

    def __init__(self, pipe, params: Params, workspace: Workspace, prompts: list[dict]):
        self.pipe, self.params, self.workspace, self.prompts = pipe, params, workspace, prompts
        self.rows: pd.DataFrame | None = None

    def __call__(self, steps: int, batch: int) -> None:
        diffusion = replace(self.params.diffusion, steps=steps, batch_size=batch)
        maker = ShardMaker(replace(self.params, diffusion=diffusion), self.workspace)
        maker.pipe = self.pipe
        self.rows = maker(self.prompts[:batch])

    def seconds_a_picture(self) -> float:
        """At the profile's number of steps: the cost of a step, and what comes once."""
        one = steady(lambda: self(FEW, 1))
        steps = self.params.diffusion.steps
        if one * MORE / FEW > PATIENCE:  # a large model on a CPU: this one run must do
            return one / FEW * steps
        most = int(PATIENCE * FEW / (one * MORE))
        batch = max(1, min(len(self.prompts), most))
        self(FEW, batch)
        few, more = timed(lambda: self(FEW, batch)), timed(lambda: self(MORE, batch))
        step = max(more - few, 0) / (MORE - FEW)
        return (max(few - FEW * step, 0) + steps * step) / batch


def probe_prompts(params: Params, vocabulary: Vocabulary) -> list[dict]:
    """As many prompts of the profile's training sets as are drawn at once, two objects first."""
    size = params.diffusion.batch_size
    few = replace(
        params.prompts,
        train_one=size,
        train_two=size if len(vocabulary.seen) > 1 else 0,
        sim_per_cell=0,
        synthetic_one=0,
        synthetic_two=0,
    )
    return make_prompts(vocabulary, few, params.seed)[0][-size:]
