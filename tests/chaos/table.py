"""The result as a table, as JSON and as a part of a page."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.chaos.judge import Undisturbed
from tests.chaos.rounds import Kill, Round

HEADING = "## Killed anywhere"


def row(number: int, kill: Kill) -> str:
    """A line of a Markdown table."""
    stage = f"`{kill.stage}`" if kill.stage else "between two"
    outcome = "; ".join(kill.wrong).replace("|", "\\|") or "yes"
    return (
        f"| {number} | {kill.engine} {kill.round} | {kill.how} | {kill.moment} | {stage} | "
        f"{kill.on_disk or '(went on)'} | {outcome} |"
    )


HEAD = """| kill | run | killed | moment | stage | on disk | recovered |
|---|---|---|---|---|---|---|"""


def summary(rounds: Sequence[Round]) -> str:
    """A line a run, then what is wrong."""
    lines = [
        "| run | workspace | kills | starts | whole at a kill, same at the end | training steps "
        "repeated | end |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in rounds:
        end = "as undisturbed" if each.ended and not faults([each]) else "**wrong**"
        end = end if each.ended or faults([each]) else "time was up"
        before = "of an earlier version" if each.successor else "empty"
        lines.append(
            f"| {each.engine} {each.number} | {before} | {len(each.kills)} | {each.starts} | "
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


def section(rounds: Sequence[Round], expected: Undisturbed, command: str, minutes: float) -> str:
    """What stands in the page below the heading."""
    kills = [kill for each in rounds for kill in each.kills]
    wrong, ended = faults(rounds), sum(each.ended for each in rounds)
    digests = [f"| `{name}` | `{digest[:12]}` |" for name, digest in expected.digests.items()]
    return "\n".join(
        [
            f"`{command}`: {len(kills)} kills in {minutes:.0f} minutes, "
            f"{len(wrong)} faults, {ended} of {len(rounds)} runs ended.",
            "",
            summary(rounds),
            "",
            *([f"- {text}" for text in wrong] + [""] if wrong else []),
            HEAD,
            *(row(number, kill) for number, kill in enumerate(kills, start=1)),
            "",
            "Digests of the undisturbed run, and of every run above (`report` shows how long each "
            "stage took: there the rest of the page is compared):",
            "",
            "| stage | digest |",
            "|---|---|",
            *digests,
        ]
    )


def write_section(page: Path, text: str) -> None:
    """Puts a text below the heading's own introduction, in place of an earlier one."""
    begin, end = "<!-- written by tests.chaos -->", "<!-- end of what tests.chaos wrote -->"
    whole = page.read_text()
    block = f"{begin}\n{text}\n{end}"
    if begin in whole:
        before, rest = whole.split(begin, 1)
        after = rest.split(end, 1)[1]
        page.write_text(f"{before}{block}{after}")
        return
    before, after = whole.split(f"{HEADING}\n", 1)
    introduction, *others = after.split("\n## ", 1)
    after = f"\n## {others[0]}" if others else ""
    page.write_text(f"{before}{HEADING}\n{introduction.rstrip()}\n\n{block}\n{after}")
