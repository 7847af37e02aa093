"""The loop of a training that can be stopped and continued: steps, clock, averages, reports."""

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from torch import nn

from ml.foundation.checkpoint import load_checkpoint, save_checkpoint
from ml.foundation.curve_log import CurveLog
from ml.foundation.optimizers import make_optimizers, parameters_of
from ml.foundation.schedule import Budget, Schedule, learning_rate
from ml.store.files import atomic

LOG_SECONDS = 10.0


class Run:
    """One resumable training: step count, clock, optimiser, moving averages, checkpoint and log.

    models: name -> module to train, on its device. work: folder of the checkpoint and the log.
    settings: plain values, kept in settings.json; a checkpoint of other settings is refused
    (ValueError). Everything a step draws at random must come from `generator`, which depends on
    seed and step only: a run of so many steps that was stopped and continued gives the same
    weights as one that was not. With minutes the learning rate follows the clock, and no two runs
    are the same.
    """

    def __init__(
        self,
        models: dict[str, nn.Module],
        work: Path,
        budget: Budget,
        settings: Mapping[str, object],
        schedule: Schedule,
        *,
        seed: int,
    ) -> None:
        self.models, self.work, self.budget = models, work, budget
        self.settings, self.schedule, self.seed = settings, schedule, seed
        self.parameters = parameters_of(models)
        self.optimizers = make_optimizers(models, schedule)
        self.ema = EMAModel(self.parameters, decay=schedule.ema_decay, foreach=True)
        self.step = self.samples = 0
        self.seconds = 0.0
        self.stopped = False
        self.generator = torch.Generator()
        work.mkdir(parents=True, exist_ok=True)
        self.log, self.checkpoint = CurveLog(work), work / "checkpoint.safetensors"
        if self.checkpoint.exists():
            self._continue()
        else:
            self.log.cut_after(0)  # of a run that was killed before it saved
        # In the order given, which is the order of the model card.
        with atomic(work / "settings.json") as temporary:
            temporary.write_text(json.dumps(settings, indent=2) + "\n")

    def steps(self, *, every_seconds: float, report: Callable[[], None]) -> Iterator[int]:
        """Yield step numbers until the budget is spent or SIGINT or SIGTERM comes.

        report() is called after saving, every `every_seconds` and at the end (not on a signal);
        its time counts. The caller calls `update` once a step.
        """
        handlers = {s: signal.signal(s, self._stop) for s in (signal.SIGINT, signal.SIGTERM)}
        self._mark = time.monotonic()
        self._losses: list[torch.Tensor] = []
        self._logged = self._reported = self.seconds
        try:
            while self.progress() < 1 and not self.stopped:
                self.generator.manual_seed(self.seed * 1_000_003 + self.step)
                yield self.step
                self._tick()
                if self.seconds - self._logged > LOG_SECONDS or self.progress() == 1:
                    self._write_log()
                if self.seconds - self._reported > every_seconds:
                    self.save()
                    report()
                    self._tick()
                    self._reported = self.seconds
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        self._write_log()
        self.save()
        if self.stopped:
            print(f"stopped at step {self.step}; the same command goes on from here", flush=True)
        else:
            report()

    def update(self, loss: torch.Tensor, batch: int) -> None:
        """One optimiser step on a scalar loss that `batch` samples gave."""
        own = self.schedule
        lr = learning_rate(own.peak_lr, self.step, own.warmup, self.progress())
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.ema.step(self.parameters)
        self.step += 1
        self.samples += batch
        self._losses.append(loss.detach())

    def progress(self) -> float:
        """Share of the budget that is used up, 0..1."""
        return self.budget.progress(self.step, self.seconds)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Context in which the models hold the averaged weights, in eval mode."""
        self.ema.store(self.parameters)
        self.ema.copy_to(self.parameters)
        for model in self.models.values():
            model.eval()
        try:
            yield
        finally:
            self.ema.restore(self.parameters)
            for model in self.models.values():
                model.train()

    def save(self) -> None:
        """Write everything needed to go on, and curve.csv for the documents."""
        numbers = {"step": self.step, "samples": self.samples, "seconds": self.seconds}
        save_checkpoint(
            self.checkpoint, self.models, self.optimizers, self.ema, numbers, self.settings
        )
        self.log.write_curve()

    def _continue(self) -> None:
        numbers = load_checkpoint(
            self.checkpoint, self.models, self.optimizers, self.ema, self.settings
        )
        self.step, self.samples = int(numbers["step"]), int(numbers["samples"])
        self.seconds = numbers["seconds"]
        self.log.cut_after(self.step)
        print(f"going on from step {self.step}, {self.seconds / 60:.1f} minutes in", flush=True)

    def _write_log(self) -> None:
        if not self._losses:
            return
        loss = torch.stack(self._losses).mean().item()
        lr = self.optimizers[0].param_groups[0]["lr"]
        self.log.append(self.step, self.samples, self.seconds, loss, lr)
        rate = len(self._losses) / max(self.seconds - self._logged, 1e-9)
        print(
            f"step {self.step}  {self.progress():6.1%}  {self.seconds / 60:.1f} min  "
            f"loss {loss:.4f}  lr {lr:.2e}  {rate:.2f} steps/s",
            flush=True,
        )
        self._losses = []
        self._logged = self.seconds

    def _tick(self) -> None:
        now = time.monotonic()
        self.seconds += now - self._mark
        self._mark = now

    def _stop(self, *_: object) -> None:
        self.stopped = True
