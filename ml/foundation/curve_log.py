"""The loss of a training over its steps: `log.jsonl`, and a thinned `curve.csv` for the documents.

How the curves of all trainings are collected and drawn is in `curves.py`.
"""

import csv
import json
import math
from pathlib import Path

from ml.store.files import atomic

CURVE_ROWS = 400


class CurveLog:
    """The log of one training, one line every few seconds; survives a restart."""

    def __init__(self, work: Path) -> None:
        self.path, self.curve = work / "log.jsonl", work / "curve.csv"

    def append(self, step: int, samples: int, seconds: float, loss: float, lr: float) -> None:
        """loss: mean since the line before."""
        line = {
            "step": step,
            "samples": samples,
            "seconds": round(seconds, 1),
            "loss": round(loss, 6),
            "lr": lr,
        }
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def cut_after(self, step: int) -> None:
        """Drops the lines of later steps: they were lost with the run and are made again. So is a
        last line that a kill or a full disk left half."""
        if not self.path.exists():
            return
        lines = self.path.read_text().splitlines()
        if lines and not _is_whole(lines[-1]):
            lines.pop()
        kept = [line + "\n" for line in lines if json.loads(line)["step"] <= step]
        with atomic(self.path) as temporary:
            temporary.write_text("".join(kept))

    def write_curve(self) -> None:
        """At most 400 rows; each has the mean loss of the log lines that it stands for."""
        if not self.path.exists():
            return
        rows = [json.loads(line) for line in self.path.read_text().splitlines()]
        width = math.ceil(len(rows) / CURVE_ROWS) or 1
        with self.curve.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("step", "samples", "seconds", "loss", "lr"))
            for i in range(0, len(rows), width):
                part = rows[i : i + width]
                last, loss = part[-1], sum(row["loss"] for row in part) / len(part)
                writer.writerow(
                    (last["step"], last["samples"], last["seconds"], f"{loss:.5f}",
                     f"{last['lr']:.3e}")
                )  # fmt: skip


def _is_whole(line: str) -> bool:
    try:
        json.loads(line)
    except json.JSONDecodeError:
        return False
    return True
