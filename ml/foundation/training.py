"""What the trainers of the micro world share: budget and schedule, checkpoints, the loss log.

A trainer makes a `Run` and loops over `run.steps()`; everything a step draws at random comes from
`run.generator`, a function of seed and step, so that a run that was stopped and started again gives
the same weights as one that was not. Not here: models, losses, data, what is exported.
"""

import csv
import json
import math
import os
import signal
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from ml.arguments import number
from ml.compute.devices import find_device

FINAL_LR_SHARE = 0.01
CURVE_ROWS = 400
LOG_SECONDS = 10.0


@dataclass(frozen=True)
class Budget:
    """How long to train: minutes of wall clock (all starts together), or steps. Exactly one."""

    minutes: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None):
            raise ValueError(
                f"minutes is {self.minutes} and steps is {self.steps}: give one of the two"
            )

    def progress(self, step: int, seconds: float) -> float:
        """Share of the budget that is used up, 0..1."""
        used = step / self.steps if self.steps else seconds / (60 * self.minutes)
        return min(1.0, used)


def learning_rate(peak: float, step: int, warmup: int, progress: float) -> float:
    """Linear warmup over `warmup` steps, then half a cosine in progress (0..1) to 1 % of peak.

    The rate follows the share of the budget: a run extended from 40 to 60 minutes goes on at the
    rate that a 60-minute run has after 40 minutes, which re-opens a schedule that had closed.
    """
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return peak * min(1.0, (step + 1) / warmup) * (FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * cosine)


def add_arguments(parser: ArgumentParser, work: str) -> None:
    """The options that every trainer has."""
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument(
        "--minutes", type=number(float, 0.01, 100_000), help="wall clock for all starts together"
    )
    length.add_argument("--steps", type=number(int, 1))
    parser.add_argument("--work", type=Path, default=Path(work), help="scratch: checkpoint, logs")
    parser.add_argument("--scenes", type=Path, default=Path(".scratch/scenes"), help="scene cache")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--seed", type=number(int, 0, 2**32 - 1), default=0)


def choose_device(name: str) -> torch.device:
    """The device of `--device`, its CPU set up for training (`ml.compute.devices`)."""
    # Numbers below 1e-38 (Adam's second moments) take a slow path on x86.
    torch.set_flush_denormal(True)
    return find_device(name, "--device")


class Run:
    """One resumable training: step count, clock, optimiser, moving averages, checkpoint and log.

    models: name -> module being trained, on its device. optimizer: over their parameters.
    ema_decay: of the moving average of all their weights. settings: plain values, kept in
    settings.json; a checkpoint of other settings is refused (ValueError).
    """

    def __init__(
        self,
        models: dict[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        work: Path,
        budget: Budget,
        settings: dict,
        *,
        seed: int,
        peak_lr: float,
        warmup: int,
        ema_decay: float,
    ) -> None:
        self.models, self.optimizer = models, optimizer
        self.work, self.budget, self.settings = work, budget, settings
        self.seed, self.peak_lr, self.warmup = seed, peak_lr, warmup
        self.parameters = [p for model in models.values() for p in model.parameters()]
        self.ema = EMAModel(self.parameters, decay=ema_decay, foreach=True)
        self.step = self.samples = 0
        self.seconds = 0.0
        self.stopped = False
        self.generator = torch.Generator()
        work.mkdir(parents=True, exist_ok=True)
        self.log, self.checkpoint = work / "log.jsonl", work / "checkpoint.safetensors"
        if self.checkpoint.exists():
            self._load()
        _write_json(work / "settings.json", settings)

    def steps(self, *, every_seconds: float, report: Callable[[], None]) -> Iterator[int]:
        """Yield step numbers until the budget is spent or SIGINT or SIGTERM comes.

        report() is called after saving, every `every_seconds` and at the end (not on a signal);
        its time counts. The caller calls `update` once a step.
        """
        handlers = {s: signal.signal(s, self._stop) for s in (signal.SIGINT, signal.SIGTERM)}
        self._mark = time.monotonic()
        self._losses: list[float] = []
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
        lr = learning_rate(self.peak_lr, self.step, self.warmup, self.progress())
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.step(self.parameters)
        self.step += 1
        self.samples += batch
        self._losses.append(loss.detach())

    def progress(self) -> float:
        return self.budget.progress(self.step, self.seconds)

    def averaged(self) -> "_Averaged":
        """Context in which the models hold the averaged weights, in eval mode and without grad."""
        return _Averaged(self)

    def save(self) -> None:
        """Write everything needed to go on, in one file, and curve.csv for the documents."""
        tensors = {f"ema.{i}": p for i, p in enumerate(self.ema.shadow_params)}
        for name, model in self.models.items():
            tensors |= {f"model.{name}.{key}": t for key, t in model.state_dict().items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{key}": t for key, t in state.items()}
        facts = {"step": self.step, "samples": self.samples, "seconds": self.seconds}
        metadata = {"facts": json.dumps(facts), "settings": json.dumps(self.settings)}
        partial = self.checkpoint.with_suffix(".partial")
        # A copy in plain layout: safetensors writes memory as it lies, whatever the strides.
        tensors = {key: t.detach().cpu().contiguous().clone() for key, t in tensors.items()}
        save_file(tensors, partial, metadata)
        os.replace(partial, self.checkpoint)
        self._write_curve()

    def _load(self) -> None:
        with safe_open(self.checkpoint, "pt") as file:
            metadata = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        before = json.loads(metadata["settings"])
        if before != json.loads(json.dumps(self.settings)):
            raise ValueError(
                f"{self.checkpoint} was trained with {before}, this run has {self.settings}: "
                "use the same options or another --work"
            )
        for name, model in self.models.items():
            start = f"model.{name}."
            model.load_state_dict(
                {k.removeprefix(start): t for k, t in tensors.items() if k.startswith(start)}
            )
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in tensors.items():
            if key.startswith("optimizer."):
                _, i, name = key.split(".")
                parameter = self.parameters[int(i)]
                if tensor.shape == parameter.shape and name != "step":
                    # Fused AdamW walks raw memory: moments must lie as their weights do.
                    tensor = torch.empty_like(parameter).copy_(tensor)
                state.setdefault(int(i), {})[name] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        for i, shadow in enumerate(self.ema.shadow_params):
            shadow.copy_(tensors[f"ema.{i}"])
        facts = json.loads(metadata["facts"])
        self.step, self.samples, self.seconds = (facts[k] for k in ("step", "samples", "seconds"))
        self.ema.optimization_step = self.step
        # Lines after the checkpoint belong to steps that are now made again.
        if self.log.exists():
            lines = self.log.read_text().splitlines(keepends=True)
            kept = [line for line in lines if json.loads(line)["step"] <= self.step]
            self.log.write_text("".join(kept))
        print(f"going on from step {self.step}, {self.seconds / 60:.1f} minutes in", flush=True)

    def _write_log(self) -> None:
        if not self._losses:
            return
        loss = torch.stack(self._losses).mean().item()
        line = {
            "step": self.step,
            "samples": self.samples,
            "seconds": round(self.seconds, 1),
            "loss": round(loss, 6),
            "lr": self.optimizer.param_groups[0]["lr"],
        }
        with self.log.open("a") as file:
            file.write(json.dumps(line) + "\n")
        rate = len(self._losses) / max(self.seconds - self._logged, 1e-9)
        print(
            f"step {self.step}  {self.progress():6.1%}  {self.seconds / 60:.1f} min  "
            f"loss {loss:.4f}  lr {line['lr']:.2e}  {rate:.2f} steps/s",
            flush=True,
        )
        self._losses = []
        self._logged = self.seconds

    def _write_curve(self) -> None:
        """At most 400 rows; each has the mean loss of the log lines that it stands for."""
        if not self.log.exists():
            return
        rows = [json.loads(line) for line in self.log.read_text().splitlines()]
        width = math.ceil(len(rows) / CURVE_ROWS) or 1
        with (self.work / "curve.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("step", "samples", "seconds", "loss", "lr"))
            for i in range(0, len(rows), width):
                part = rows[i : i + width]
                last, loss = part[-1], sum(row["loss"] for row in part) / len(part)
                writer.writerow(
                    (last["step"], last["samples"], last["seconds"], f"{loss:.5f}",
                     f"{last['lr']:.3e}")
                )  # fmt: skip

    def _tick(self) -> None:
        now = time.monotonic()
        self.seconds += now - self._mark
        self._mark = now

    def _stop(self, *_: object) -> None:
        self.stopped = True


class _Averaged:
    def __init__(self, run: Run) -> None:
        self.run = run

    def __enter__(self) -> None:
        self.run.ema.store(self.run.parameters)
        self.run.ema.copy_to(self.run.parameters)
        for model in self.run.models.values():
            model.eval()

    def __exit__(self, *_: object) -> None:
        self.run.ema.restore(self.run.parameters)
        for model in self.run.models.values():
            model.train()


def _write_json(path: Path, values: dict) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(values, indent=2) + "\n")
    os.replace(partial, path)
