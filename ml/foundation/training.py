"""One training for all micro checkpoints: options, device, optimiser, resuming, log, reports.

A trainer brings a `Training`: model, loss on its data, export. The same command after a stop goes
on where the last one was. Not here: models, losses, data, what is exported.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ml.arguments import number
from ml.compute.devices import find_device
from ml.errors import EXIT_CODES
from ml.foundation.run import Run
from ml.foundation.schedule import Budget, Schedule


@dataclass(frozen=True)
class Training:
    """What a trainer brings.

    models: name -> module with its first weights, on the device, in train mode.
    settings: plain values that are kept with the checkpoint and shown on the model card;
        `run_training` adds the seed.
    loss: a scalar for `batch` samples; draws everything random from the generator it is given.
    export: saves the models, which hold the averaged weights in eval mode, and returns a line
        that says how good they are. Called every `report_seconds` and at the end.
    """

    models: dict[str, nn.Module]
    settings: dict[str, object]
    schedule: Schedule
    batch: int
    loss: Callable[[torch.Generator], torch.Tensor]
    export: Callable[[], str]
    report_seconds: float


def run_training(prepare: Callable[[Namespace, torch.device], Training], chosen: Namespace) -> None:
    """Trains until the budget is spent or a signal comes.

    chosen: the options of `add_arguments`. prepare: makes the training from them and the device.
    Raises ValueError when the work folder has a checkpoint of other settings, or of another
    seed.
    """
    own = prepare(chosen, choose_device(chosen.device))
    budget = Budget(chosen.minutes, chosen.steps)
    settings = own.settings | {"seed": chosen.seed}
    run = Run(own.models, chosen.work, budget, settings, own.schedule, seed=chosen.seed)

    def report() -> None:
        with run.averaged():
            message = own.export()
        print(f"step {run.step}: {message}", flush=True)

    for _ in run.steps(every_seconds=own.report_seconds, report=report):
        run.update(own.loss(run.generator), own.batch)


def trainer_parser(doc: str, *, work: str, out: str, train_scenes: int) -> ArgumentParser:
    """A parser with the options of `add_arguments`; described by the first line of `doc`."""
    parser = ArgumentParser(description=doc.splitlines()[0], epilog=EXIT_CODES)
    add_arguments(parser, work=work, out=out, train_scenes=train_scenes)
    return parser


def add_arguments(parser: ArgumentParser, *, work: str, out: str, train_scenes: int) -> None:
    """The options that every trainer has, with the defaults of this one."""
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument(
        "--minutes", type=number(float, 0.01, 100_000), help="wall clock for all starts together"
    )
    length.add_argument("--steps", type=number(int, 1))
    parser.add_argument("--work", type=Path, default=Path(work), help="scratch: checkpoint, logs")
    parser.add_argument("--scenes", type=Path, default=Path(".scratch/scenes"), help="scene cache")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--seed", type=number(int, 0, 2**32 - 1), default=0)
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--train-scenes", type=number(int, 1), default=train_scenes)


def choose_device(name: str) -> torch.device:
    """The device of `--device`, its CPU set up for training (`ml.compute.devices`)."""
    # Numbers below 1e-38 (Adam's second moments) take a slow path on x86.
    torch.set_flush_denormal(True)
    return find_device(name, "--device")
