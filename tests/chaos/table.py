"""The result as a table, as JSON and as a part of a page.

`python -m tests.chaos.table a.json b.json --page docs/kills.md` puts results together that
were made one after the other.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.chaos.judge import Undisturbed
from tests.chaos.rounds import Kill, Round

HEADING = "## What came out"
BEGIN, END = "<!-- written by tests.chaos -->", "<!-- end of what tests.chaos wrote -->"
HEAD = """| kill | run | killed | moment | stage | on disk | recovered |
|---|---|---|---|---|---|---|"""
SUMMARY = """| run | workspace | kills | starts | whole at a kill, the same at the end | training \
steps repeated | end |
|---|---|---|---|---|---|---|"""
NAMES = {"all": "all", "parent": "parent alone", "child": "one child"}


def row(number: int, kill: Kill) -> str:
    """A line of a Markdown table."""
    stage = f"`{kill.stage}`" if kill.stage else "between two"
    outcome = "; ".join(kill.wrong).replace("|", "\\|") or "yes"
    return (
        f"| {number} | {kill.engine} {kill.round} | {NAMES[kill.how]} | {kill.moment} | {stage} | "
        f"{kill.on_disk or '(went on)'} | {outcome} |"
    )


def summary(rounds: Sequence[Round]) -> str:
    """A line a run."""
    lines = [SUMMARY]
    for each in rounds:
        end = "as undisturbed" if each.ended else "time was up"
        end = "**wrong**" if faults([each]) else end
        starts = f"{each.starts} ({each.refused} told to wait)" if each.refused else each.starts
        before = "of an earlier version" if each.successor else "empty"
        lines.append(
            f"| {each.engine} {each.number} | {before} | {len(each.kills)} | {starts} | "
            f"{each.whole} files | {each.repeated} | {end} |"
        )
    return "\n".join(lines)


def faults(rounds: Sequence[Round]) -> list[str]:
    return [
        f"{each.engine} {each.number}: {text}"
        for each in rounds
        for text in [*(wrong for kill in each.kills for wrong in kill.wrong), *each.wrong]
    ]


def as_json(rounds: Sequence[Round], expected: Undisturbed, command: str, minutes: float) -> dict:
    return {
        "command": command,
        "minutes": round(minutes, 1),
        "digests": expected.digests,
        "seconds_undisturbed": expected.seconds,
        "rounds": [asdict(each) for each in rounds],
        "faults": faults(rounds),
    }


def rounds_of(result: dict) -> list[Round]:
    """The rounds of what `as_json` made."""
    return [
        Round(**each | {"kills": [Kill(**kill) for kill in each["kills"]]})
        for each in result["rounds"]
    ]


def section(results: Sequence[dict]) -> str:
    """What stands in the page below the heading."""
    lines, rounds = [], [each for result in results for each in rounds_of(result)]
    for result in results:
        own = rounds_of(result)
        lines.append(
            f"- `{result['command']}`: {sum(len(each.kills) for each in own)} kills in "
            f"{result['minutes']:.0f} minutes, {len(result['faults'])} faults, "
            f"{sum(each.ended for each in own)} of {len(own)} runs ended."
        )
    lines += ["", summary(rounds), ""]
    if wrong := faults(rounds):
        lines += [*(f"- {text}" for text in wrong), ""]
    kills = [kill for each in rounds for kill in each.kills]
    lines += [HEAD, *(row(number, kill) for number, kill in enumerate(kills, start=1)), ""]
    lines += [
        "Digests of the undisturbed run, and of every run above (`report` shows how long each "
        "stage took: there the rest of the page is compared):",
        "",
        "| stage | digest |",
        "|---|---|",
    ]
    digests = results[0]["digests"].items()
    return "\n".join([*lines, *(f"| `{name}` | `{digest[:12]}` |" for name, digest in digests)])


def write_section(page: Path, text: str) -> None:
    """Puts a text below the heading's own introduction, in place of an earlier one."""
    whole, block = page.read_text(), f"{BEGIN}\n{text}\n{END}"
    if BEGIN in whole:
        before, rest = whole.split(BEGIN, 1)
        page.write_text(before + block + rest.split(END, 1)[1])
        return
    before, after = whole.split(f"{HEADING}\n", 1)
    introduction, *others = after.split("\n## ", 1)
    after = f"\n## {others[0]}" if others else ""
    page.write_text(f"{before}{HEADING}\n{introduction.rstrip()}\n\n{block}\n{after}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.table", description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="files of `--json`")
    parser.add_argument("--page", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    write_section(chosen.page, section([json.loads(file.read_text()) for file in chosen.results]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
