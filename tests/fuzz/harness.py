"""One input, the command that gets it, and what came out: the only place that judges.

An input is nonsense (to be refused with a documented code, in one line that names what is wrong) or
sound (to be done, with the right value). Whatever it is, no file of the user may change or vanish,
and nothing may be written outside the root.
"""

import contextlib
import fnmatch
import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ml.errors import exit_path
from ml.settings.profile import ROOT
from ml.store import files

SECONDS = 60
"""For one input; whatever takes longer counts as a traceback."""
REFUSED, ACCEPTED, UNCLEAR, TRACEBACK, NONSENSE, WRONG, LOST = (
    "refused clearly",
    "accepted rightly",
    "unclear refusals",
    "tracebacks",
    "nonsense accepted",
    "sound spoilt",
    "data lost",
)
VERDICTS = (REFUSED, ACCEPTED, UNCLEAR, TRACEBACK, NONSENSE, WRONG, LOST)
FAULTS = (UNCLEAR, TRACEBACK, NONSENSE, WRONG, LOST)
MINE = {
    "mine/holiday.jpg": b"\xff\xd8 not yours",
    "mine/deep/notes.txt": b"keep\n",
    "root/data/notes.txt": b"beside the profiles\n",
}
"""Lies around every input."""


@dataclass(frozen=True)
class Case:
    """prepare: writes what the user brings below a folder; returns the command's arguments.

    command: a module with `main(arguments)`, or a function of the library as it is called by
    programs. names: what the refusal must hold, of a tuple any one. check: what is wrong with the
    outcome of a sound input (folder, stdout), None for nothing. ours: patterns of files below the
    folder that the command may change or remove, since we made them.
    """

    family: str
    name: str
    sound: bool
    prepare: Callable[[Path], Sequence[str]]
    command: str | Callable[[Sequence[str]], object] = "ml.__main__"
    names: tuple[str | tuple[str, ...], ...] = ()
    codes: tuple[int, ...] = (2,)
    check: Callable[[Path, str], str | None] | None = None
    ours: tuple[str, ...] = ()
    either: bool = False  # may be refused or mended, as long as it is never wrong
    process: bool = False  # in a process of its own


@dataclass(frozen=True)
class Result:
    case: Case
    verdict: str
    said: str = field(default="", repr=False)


def judge(case: Case, folder: Path) -> Result:
    """Runs one input in an empty folder."""
    for name, data in MINE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "here").mkdir()
    arguments = [str(argument) for argument in case.prepare(folder)]
    before = snapshot(folder)
    code, out, err = (_as_process if case.process else _in_process)(case, arguments, folder)
    after = snapshot(folder)
    if lost := _lost(case, before, after):
        return Result(case, LOST, lost)
    if code is None:
        return Result(case, TRACEBACK, err)
    if code == 0:
        if not case.sound and not case.either:
            return Result(case, NONSENSE, err[-200:] or out[-200:])
        wrong = case.check(folder, out) if case.check else None
        return Result(case, WRONG if wrong else ACCEPTED, f"{wrong}\n{err}" if wrong else err)
    if case.sound and not case.either:
        return Result(case, WRONG, f"refused, code {code}: {err}")
    fault = unclear(case, code, err)
    return Result(case, UNCLEAR if fault else REFUSED, f"{fault}: {err}" if fault else err)


def unclear(case: Case, code: int, err: str) -> str | None:
    """What is wrong with how an input was refused."""
    lines = [part for line in err.splitlines() if (part := line.rpartition("\r")[2].strip())]
    errors = [line for line in lines if re.match(r"(error|[\w. -]+: error): ", line)]
    if code not in case.codes:
        return f"code {code}, expected {case.codes}"
    if len(errors) != 1 or lines[-1] != errors[0]:
        return f"{len(errors)} error lines, expected one, the last"
    if len(errors[0]) > 2300:
        return f"a line of {len(errors[0])} characters"
    for name in case.names:
        if not any(each in errors[0] for each in ((name,) if isinstance(name, str) else name)):
            return f"does not name {name!r}"
    return None


def snapshot(folder: Path) -> dict[str, str]:
    """What every file and link below a folder is."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _lost(case: Case, before: dict[str, str], after: dict[str, str]) -> str:
    changed = [
        name
        for name, what in before.items()
        if after.get(name) != what
        and not any(fnmatch.fnmatch(name, pattern) for pattern in case.ours)
    ]
    moved = {what for name, what in after.items() if "/.strays/" in name}
    gone = [name for name in changed if before[name] not in moved]
    outside = [
        name
        for name in sorted(after.keys() - before.keys())
        if not name.startswith("root/")
        and not any(fnmatch.fnmatch(name, pattern) for pattern in case.ours)
    ]
    return "; ".join(
        [
            *(f"changed or gone: {name}" for name in gone[:3]),
            *(f"written outside the root: {name}" for name in outside[:3]),
        ]
    )


class _TooLong(BaseException):
    pass


def _in_process(case: Case, arguments: list[str], folder: Path) -> tuple[int | None, str, str]:
    """Exit code (None for a traceback), stdout and stderr."""

    def stop(*_):
        raise _TooLong(f"no end in {SECONDS} s")

    import importlib

    run = (
        importlib.import_module(case.command).main
        if isinstance(case.command, str)
        else exit_path(case.command)
    )
    files.say.cache_clear()
    out, err, where = io.StringIO(), io.StringIO(), Path.cwd()
    alarm = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    os.chdir(folder / "here")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(arguments)
    except (Exception, _TooLong, SystemExit):
        code = None
        err.write(traceback.format_exc())
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, alarm)
        os.chdir(where)
    text = err.getvalue()
    return (None if "Traceback (most" in text else code), out.getvalue(), text


def _as_process(case: Case, arguments: list[str], folder: Path) -> tuple[int | None, str, str]:
    module = case.command.removesuffix(".__main__")
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder / "here",
        text=True,
        capture_output=True,
        timeout=5 * SECONDS,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    told = "Traceback (most" in done.stderr or done.returncode < 0
    return (None if told else done.returncode), done.stdout, done.stderr


def run_all(
    cases: Sequence[Case], folder: Path, say: Callable[[Result], None] = lambda result: None
) -> list[Result]:
    """Every input in a folder of its own, which is removed after it."""
    results = []
    for number, case in enumerate(cases):
        place = folder / f"{number:04d}"
        place.mkdir(parents=True)
        results.append(judge(case, place))
        say(results[-1])
        shutil.rmtree(place)
    return results


def table(results: Sequence[Result]) -> str:
    """Counts by family."""
    families = list(dict.fromkeys(result.case.family for result in results))
    lines = [f"{'family':<14}{'inputs':>8}" + "".join(f"{name:>19}" for name in VERDICTS)]
    for name in [*families, "all"]:
        own = [result for result in results if name in ("all", result.case.family)]
        counts = [sum(result.verdict == verdict for result in own) for verdict in VERDICTS]
        lines.append(f"{name:<14}{len(own):>8}" + "".join(f"{count:>19}" for count in counts))
    return "\n".join(lines)


def faults(results: Sequence[Result]) -> list[str]:
    """What must be mended, in words."""
    return [
        f"{r.verdict}: {r.case.family}: {r.case.name}\n    {r.said.strip()[-1500:]}"
        for r in results
        if r.verdict in FAULTS
    ]
