"""How far trainings had come at a kill, and from where they went on."""

import re
from pathlib import Path

from ml.store.training_state import load_state

TRAININGS = {"grounding_model": "grounding", "segmenter": "segmenter", "real_bound": "segmenter"}
"""Stage -> what its progress bar is called."""
BAR = re.compile(r"(grounding|segmenter): +\d+%\|[^|]*\| (\d+)/\d+ \[")


def checkpoint_step(data: Path, stage: str) -> int | None:
    """The step of an unfinished training's checkpoint; 0 without one, None when the stage is not
    being made. Raises ValueError for a file that is no whole checkpoint."""
    folder = data / ".making" / stage
    if not folder.is_dir():
        return None
    for file in folder.glob(".progress/*.pt"):
        state = load_state(file)
        if state is None:
            raise ValueError(f"{file.name} of {stage} is damaged")
        return state["progress"]["step"] if "progress" in state else len(state["curve"])
    return 0


def output_of(log: Path, checkout: Path, since: float) -> str:
    """What a run that began at `since` wrote: to its own output, or to the files that Dagster leads
    a run's output to (it passes them on a second later, which a kill prevents)."""
    files = (checkout / ".dagster" / "storage").glob("*/compute_logs/*.err")
    led = [file for file in files if file.stat().st_mtime >= since]
    return "\n".join(file.read_text(errors="replace") for file in led or [log])


def shown(output: str, stages: list[str]) -> dict[str, tuple[int, int]]:
    """First and last step that the bars of a run's output show, by stage.

    stages: the trainings in the order in which the run began them.
    """
    bars: list[tuple[str, int, int]] = []
    for name, step in BAR.findall(output):
        number = int(step)
        if bars and bars[-1][0] == name and number >= bars[-1][2]:
            bars[-1] = (name, bars[-1][1], number)
        else:
            bars.append((name, number, number))
    begun = zip(stages, bars, strict=False)  # the last may have been killed before its first bar
    return {stage: bar[1:] for stage, bar in begun if TRAININGS[stage] == bar[0]}
