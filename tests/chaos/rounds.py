"""A round: one workspace, killed and started again until its kills are spent, then let alone."""

import json
import random
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ml.errors import RESOURCES
from orchestration.runs import UNBEGUN
from tests.chaos import history
from tests.chaos.checkout import age, data_of, environment, make_checkout, scratch_of
from tests.chaos.disk import describe, making
from tests.chaos.engines import Engine
from tests.chaos.judge import Memory, Undisturbed, read_undisturbed, wrong_end
from tests.chaos.moments import START, Moment, View, aimed, drawn, in_order
from tests.chaos.processes import Attempt
from tests.chaos.training import TRAININGS, output_of, shown

LOOK = 0.001  # seconds between two looks at the disk
SLOWEST = 10
"""Times the undisturbed run's time after which a run that nobody killed counts as hanging."""
REFUSALS = 5  # in a round at most
CHECKPOINTS = 100  # steps between those of a segmenter


@dataclass
class Kill:
    """A row of the table."""

    engine: str
    round: int
    how: str
    moment: str
    stage: str  # that was being made, "" between two
    on_disk: str
    wrong: list[str] = field(default_factory=list)


@dataclass
class Round:
    engine: str
    number: int
    successor: bool  # over a finished workspace of an earlier version
    kills: list[Kill] = field(default_factory=list)
    starts: int = 0
    refused: int = 0  # of these, by a machine with too much else to do
    repeated: int = 0  # training steps
    whole: int = 0  # files that were whole at a kill and are the same at the end
    scratch: int = 0  # files that killed processes left in TMPDIR
    wrong: list[str] = field(default_factory=list)
    ended: bool = False  # undisturbed, and judged


def undisturbed(engine: Engine, folder: Path, settings: dict | None = None) -> Undisturbed:
    """Runs the graph once, or finds that an earlier call did. Raises RuntimeError with the end of
    its output when that fails."""
    note = folder.with_name(f"{folder.name}.json")
    if note.is_file():
        return _with_start(read_undisturbed(data_of(folder)), json.loads(note.read_text())["start"])
    checkout = make_checkout(folder, engine.settings | (settings or {}))
    attempt = Attempt.start(engine.command, checkout, uuid.uuid4().hex, folder / "log.txt")
    begun, started = time.monotonic(), 0.0
    while attempt.process.poll() is None:
        if not started and making(data_of(checkout)):
            started = time.monotonic() - begun
        time.sleep(0.01)
    if attempt.process.returncode:
        raise RuntimeError(f"the undisturbed run failed:\n{attempt.log.read_text()[-3000:]}")
    note.write_text(json.dumps({"start": started}))
    return _with_start(read_undisturbed(data_of(checkout)), started)


def _with_start(found: Undisturbed, seconds: float) -> Undisturbed:
    return Undisturbed(**vars(found) | {"seconds": {START: seconds} | found.seconds})


class Watcher:
    """Starts the command in a round's checkout, and kills it at one moment after the other."""

    def __init__(self, engine: Engine, checkout: Path, expected: Undisturbed, result: Round):
        self.engine, self.checkout, self.expected, self.result = engine, checkout, expected, result
        self.data, self.memory, self.mark = data_of(checkout), Memory(), uuid.uuid4().hex
        params = yaml.safe_load((checkout / "params.yaml").read_text())
        self.every = dict.fromkeys(TRAININGS, CHECKPOINTS) | {
            "grounding_model": params["grounding"]["evaluate_every"]
        }
        self.limit = SLOWEST * sum(expected.seconds.values()) + 120

    def attempt(self, moments: list[Moment], chance: random.Random, out_of_time: float) -> bool:
        """One start; takes the moments that it met from the list. Returns whether it ended well by
        itself. Raises TimeoutError when `out_of_time` (of time.monotonic) is past."""
        self.result.starts += 1
        log = self.checkout.with_name(f"{self.checkout.name}-{self.result.starts}.log")
        run = Attempt.start(self.engine.command, self.checkout, self.mark, log)
        view = View(self.checkout, self.data, time.time())
        seen_at, seen_in, begun, trainings, hurt = None, "", time.monotonic(), [], False
        while run.process.poll() is None:
            now, stage = time.monotonic(), making(self.data)
            if stage in TRAININGS and stage not in trainings:
                trainings.append(stage)
            if now > out_of_time or now - begun > self.limit:
                run.kill_all()
                if now > out_of_time:
                    raise TimeoutError
                self.result.wrong.append(f"start {self.result.starts} did not end: {_tail(log)}")
                return False
            if moments and seen_at is None and moments[0].seen(view):
                seen_at, seen_in = now, stage
            # the machine may be faster than in the undisturbed run: no later than the next stage
            if seen_at is not None and (
                now >= seen_at + moments[0].delay or stage not in ("", seen_in)
            ):
                moment, seen_at = moments.pop(0), None
                killed, gone = self._kill(run, moment, chance)
                killed.moment = moment.label_after(view) if gone else moment.label
                self.result.kills.append(killed)
                if gone:
                    self._look(killed)
                    killed.wrong += self._trained(log, trainings, view.since)
                    return False
                hurt = True
            time.sleep(LOOK)
        ended_well = run.process.returncode == 0
        if not ended_well and not hurt and self._refused(run, log):
            self.result.refused += 1
        elif not ended_well and not hurt:
            self.result.wrong.append(f"start {self.result.starts} failed: {_tail(log)}")
        self.result.wrong += self._trained(log, trainings, view.since)
        self.result.wrong += [f"orphan {line}" for line in run.left()]
        return ended_well

    def _refused(self, run: Attempt, log: Path) -> bool:
        """Whether a start ended with the documented code and asks for another one."""
        text = self.engine.refusal
        told = bool(text) and run.process.returncode == RESOURCES and text in log.read_text()
        return told and self.result.refused < REFUSALS

    def _kill(self, run: Attempt, moment: Moment, chance: random.Random) -> tuple[Kill, bool]:
        """The row of the table, and whether the run is over by that."""
        stage = making(self.data)
        children = run.descendants() if moment.how == "child" else []
        how = "all" if moment.how == "child" and not children else moment.how
        killed = Kill(self.engine.name, self.result.number, how, moment.label, stage, "")
        if how == "child":
            run.kill_child(chance.choice(children))
            return killed, False
        run.kill_all() if how == "all" else run.kill_parent()
        killed.stage = making(self.data)
        killed.wrong += [f"orphan {line}" for line in run.left()]
        if killed.wrong:
            run.kill_all()
        return killed, True

    def _look(self, killed: Kill) -> None:
        killed.on_disk = describe(self.data, self.expected.recipes)
        killed.wrong += self.memory.look(self.data, self.expected.recipes)

    def _trained(self, log: Path, trainings: list[str], since: float) -> list[str]:
        bars = shown(output_of(log, self.checkout, since), trainings)
        return self.memory.trained(self.data, bars, self.every)

    def end(self) -> None:
        """Judges the round once a run has ended well."""
        result = self.result
        if self.engine.dagster:
            self._write_off()
        before = len(self.memory.whole)
        result.wrong += self.memory.look(self.data, self.expected.recipes)
        result.wrong += wrong_end(self.checkout, self.expected, self.engine.dagster)
        result.whole, result.repeated = before, self.memory.repeated
        result.scratch = sum(path.is_file() for path in scratch_of(self.checkout).rglob("*"))
        result.ended = True

    def _write_off(self) -> None:
        """What `make ui` begins with. A run that never began is written off after a while only."""
        end = time.monotonic() + UNBEGUN + 30
        while True:
            subprocess.run(
                [sys.executable, "-m", "orchestration.runs"],
                cwd=self.checkout,
                env=environment(self.checkout, self.mark),
                check=True,
                capture_output=True,
            )
            if set(history.runs_of(self.checkout)) <= history.OVER or time.monotonic() > end:
                return
            time.sleep(20)


def play(
    engine: Engine,
    expected: Undisturbed,
    result: Round,
    kills: int,
    folder: Path,
    earlier: Path,
    chance: random.Random,
    out_of_time: float,
    settings: dict | None = None,
    say: Callable[[Kill], None] = lambda _: None,
) -> None:
    """Plays a round into `result`. folder: for its checkout, removed when all was well. earlier:
    the data of the undisturbed run, which a successor's round begins with, aged."""
    checkout = make_checkout(folder, engine.settings | (settings or {}))
    if result.successor:
        shutil.copytree(earlier, data_of(checkout))
        age(data_of(checkout))
    narrow = [
        moment
        for moment in aimed(chance, expected.shards, engine.dagster)
        if (moment.label == "old folder set aside") <= result.successor
    ]
    chosen = chance.sample(narrow, min(len(narrow), kills // 2))
    moments = in_order(
        chosen + drawn(chance, kills - len(chosen), expected.seconds, expected.recipes)
    )
    watcher = Watcher(engine, checkout, expected, result)
    told, ended = 0, False
    while not ended and not result.wrong:
        try:
            ended = watcher.attempt(moments, chance, out_of_time)
        except TimeoutError:
            break
        for killed in result.kills[told:]:
            say(killed)
        told = len(result.kills)
        if any(killed.wrong for killed in result.kills):
            break
    if ended and not result.wrong:
        watcher.end()
    if result.ended and not result.wrong:
        for place in folder.parent.glob(f"{folder.name}*"):
            shutil.rmtree(place) if place.is_dir() else place.unlink()


def _tail(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " / ".join(line.rsplit("\r", 1)[-1][:200] for line in lines[-4:])
