"""`python -m tests.chaos --kills 50 --engines cli,dagster`: kills the whole graph at random and at
aimed moments, starts it again, and judges what is left. Exit code 1 when anything is wrong."""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.chaos import table
from tests.chaos.checkout import data_of
from tests.chaos.engines import ENGINES, Engine
from tests.chaos.judge import Undisturbed
from tests.chaos.rounds import Kill, Round, play, undisturbed

MOST = 10  # kills a round


class Board:
    """Counts and prints the kills of engines that run at once."""

    def __init__(self) -> None:
        self.count, self.lock = 0, threading.Lock()

    def say(self, kill: Kill) -> None:
        with self.lock:
            self.count += 1
            print(table.row(self.count, kill), flush=True)


def lane(
    engine: Engine,
    kills: int,
    seed: int,
    expected: Undisturbed,
    folder: Path,
    out_of_time: float,
    board: Board,
) -> list[Round]:
    """The rounds of one engine, until its kills are spent, something is wrong or time is up."""
    chance, rounds = random.Random(f"{seed} {engine.name}"), []
    while (left := kills - sum(len(each.kills) for each in rounds)) > 0:
        successor = not engine.dagster and len(rounds) % 2 == 1
        rounds.append(Round(engine.name, len(rounds) + 1, successor))
        play(
            engine,
            expected,
            rounds[-1],
            min(MOST, left),
            folder / f"{engine.name}-{len(rounds)}",
            data_of(folder / "undisturbed"),
            chance,
            out_of_time,
            say=board.say,
        )
        if not rounds[-1].ended or table.faults(rounds):
            break
    return rounds


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--engines", default=",".join(ENGINES), help=f"of {', '.join(ENGINES)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=90, help="stops then, and says so")
    parser.add_argument("--together", action="store_true", help="all engines at once")
    parser.add_argument(
        "--folder",
        type=Path,
        help="for the checkouts (default: a temporary one); an undisturbed run in it is used again",
    )
    parser.add_argument("--json", type=Path, help="where the result goes")
    parser.add_argument("--page", type=Path, help=f"page whose '{table.HEADING}' gets the result")
    chosen = parser.parse_args(arguments)
    try:
        engines = [ENGINES[name] for name in chosen.engines.split(",")]
    except KeyError as error:
        parser.error(f"--engines: expected some of {', '.join(ENGINES)}, got {error.args[0]!r}")
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    expected = undisturbed(ENGINES["cli"], folder / "undisturbed")
    spent = sum(expected.seconds.values())
    print(f"undisturbed: {spent:.0f} s, in {folder}\n\n{table.HEAD}", flush=True)
    shares = [
        chosen.kills // len(engines) + (place < chosen.kills % len(engines))
        for place in range(len(engines))
    ]
    board, out_of_time = Board(), begun + 60 * chosen.minutes
    with ThreadPoolExecutor(len(engines) if chosen.together else 1) as pool:
        lanes = [
            pool.submit(lane, engine, kills, chosen.seed, expected, folder, out_of_time, board)
            for engine, kills in zip(engines, shares, strict=True)
        ]
        rounds = [each for future in lanes for each in future.result()]
    minutes = (time.monotonic() - begun) / 60
    command = f"python -m tests.chaos --kills {chosen.kills} --engines {chosen.engines}"
    command += f" --seed {chosen.seed}" + " --together" * chosen.together
    wrong, count = table.faults(rounds), sum(len(each.kills) for each in rounds)
    print(f"\n{table.summary(rounds)}\n\n" + "".join(f"WRONG: {text}\n" for text in wrong))
    short = count < chosen.kills or not all(each.ended for each in rounds)
    if short and not wrong:
        print(f"time was up after {minutes:.0f} minutes: raise --minutes")
    print(f"{count} of {chosen.kills} kills, {len(wrong)} faults, {minutes:.1f} minutes")
    result = table.as_json(rounds, expected, command, minutes)
    if chosen.json:
        chosen.json.write_text(json.dumps(result, indent=1) + "\n")
    if chosen.page:
        table.write_section(chosen.page, table.section([result]))
    return 1 if wrong or short else 0


if __name__ == "__main__":
    sys.exit(main())
