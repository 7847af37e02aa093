"""Trainings for the processes of Ray Train, which import them from here."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from ml.pipeline.stages import segmenter
from ml.pipeline.table import Output
from ml.pipeline.workspace import Workspace
from ml.segmenters import learner, training
from ml.settings.params import Params
from ml.store.files import say

RUN, STEP = segmenter.run, learner.Learner.step
DEADLY = 5


@dataclass(frozen=True)
class Mortal:
    """`run` of the stage `segmenter`, with a checkpoint every 2 steps. The second process is killed
    once in its 5th step; it leaves a line in `steps` at each."""

    folder: Path

    def __call__(self, params: Params, workspace: Workspace, recipe: str) -> Output:
        training.CHECKPOINT_EVERY = 2
        steps, killed = self.folder / "steps", self.folder / "killed"

        def step(*arguments, **named):
            if os.environ["RANK"] == "1":
                with steps.open("a") as file:
                    print(os.getpid(), file=file)
                if steps.read_text().count("\n") == DEADLY and not killed.exists():
                    killed.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            return STEP(*arguments, **named)

        learner.Learner.step = step
        return RUN(params, workspace, recipe)


def refuses() -> None:
    """The second process alone raises, while the first one waits for it."""
    from ml.compute import processes

    if os.environ["RANK"] == "1":
        raise ValueError("the second process refuses")
    say("the first process waits")
    processes.state().wait_for_everyone()
