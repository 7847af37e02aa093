"""What can go wrong that is no defect of ours, and the one way out of every command.

Whoever reads what people bring raises ValueError with a message that says what was expected, what
came, and what to do. `exit_path` makes one line and an exit code of it; a traceback is for a defect
of ours alone (TRACEBACK=1 in the environment shows one for the others too). Here: the kinds, their
codes, the way out. Not here: command lines (`ml.arguments`).
"""

from __future__ import annotations  # so that an old Python gets as far as its first error

import errno
import io
import linecache
import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

from ml.stopping import stdout_closed, stoppable

if TYPE_CHECKING:  # old Pythons have no ParamSpec
    from typing import ParamSpec

    Given = ParamSpec("Given")


class ManifestError(RuntimeError):
    """A stage's folder is missing, unfinished or does not match its manifest."""


class QualityError(RuntimeError):
    """An input's data-quality checks failed; a stage refuses to build on it."""


class OutOfMemory(RuntimeError):
    """The device has not enough memory even for one item; says what to change."""


class WorkspaceBusy(RuntimeError):
    """Another run is writing in the same workspace."""


class WorkerLost(RuntimeError):
    """Worker processes were killed or their machine went away, again and again."""


class NotFinite(RuntimeError):
    """A model gave NaN or infinite numbers: its precision or its settings do not fit it."""


DONE, DEFECT, INPUT, STAGE, RESOURCES, BUSY, STOPPED, PIPE, TERMINATED = *range(6), 130, 141, 143
EXIT_CODES = """exit codes: 0 done; 1 a defect of this program, with a traceback; 2 a setting,
command line or file of yours that cannot be used; 3 a stage's folder that is missing, damaged, or
refused by its checks; 4 something ran out or is not there: memory, disk, permission, network, a
package, a killed worker; 5 the workspace is in use by another run; 130 stopped by Ctrl-C; 141 the
reader of a pipe went away; 143 terminated. What is finished is kept in all cases. TRACEBACK=1 in
the environment shows where an error came from."""

TABLE: tuple[tuple[type | str, int], ...] = (
    (WorkspaceBusy, BUSY),
    (ManifestError, STAGE),
    (QualityError, STAGE),
    (NotFinite, INPUT),
    (OutOfMemory, RESOURCES),
    (WorkerLost, RESOURCES),
    (MemoryError, RESOURCES),
    ("torch.OutOfMemoryError", RESOURCES),
    ("concurrent.futures.process.BrokenProcessPool", RESOURCES),
    (ConnectionError, RESOURCES),  # huggingface's offline mode is one
    (TimeoutError, RESOURCES),
    ("ray.exceptions.RayTaskError", DEFECT),  # of an error that could not travel
    ("ray.exceptions.RayError", RESOURCES),
    ("urllib.error.URLError", RESOURCES),
    ("httpx2.TransportError", RESOURCES),
    ("requests.exceptions.ConnectionError", RESOURCES),
    ("requests.exceptions.Timeout", RESOURCES),
    ("botocore.exceptions.BotoCoreError", RESOURCES),
    ("botocore.exceptions.ClientError", RESOURCES),
    ("aiohttp.client_exceptions.ClientError", RESOURCES),
    ("gcsfs.retry.HttpError", RESOURCES),
    ("google.auth.exceptions.GoogleAuthError", RESOURCES),
    (PermissionError, RESOURCES),
    ("huggingface_hub.errors.LocalEntryNotFoundError", RESOURCES),
    ("huggingface_hub.errors.HfHubHTTPError", INPUT),  # no such repository, or a gated one
    ("safetensors._safetensors_rust.SafetensorError", INPUT),
    ("PIL.Image.DecompressionBombError", INPUT),
    ("mlflow.exceptions.MlflowException", INPUT),  # a tracking URI that leads nowhere
)
"""Kind -> code, the first that fits; kinds of other packages by name, so that none is imported.
OSError, ImportError, RuntimeError and ValueError are distinguished by `exit_code`."""

PACKAGES = ("ml", "orchestration", "benchmarks")
OWN = tuple(f"{Path(__file__).resolve().parents[1] / name}{os.sep}" for name in PACKAGES)
READERS = ("diffusers", "huggingface_hub", "PIL", "safetensors", "tokenizers", "transformers")
"""Libraries that read what people bring: their ValueErrors (and bare Exceptions) are about that."""
OUT_OF = {
    errno.ENOSPC: "free some disk space, or put data/ on another disk (--root)",
    errno.EDQUOT: "your quota is used up: free some, or choose another --root",
    errno.EFBIG: "a limit on the size of files is reached (ulimit -f)",
    errno.EROFS: "the disk is read-only: choose another --root",
    errno.EACCES: "change its permissions, or choose another --root",
    errno.EPERM: "change its permissions, or choose another --root",
    errno.EMFILE: "too many files are open (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENOMEM: "main memory is used up",
    errno.EAGAIN: "no more processes (ulimit -u)",
    errno.EIO: "the disk does not work",
}
STORES = ("botocore.", "aiohttp.", "gcsfs.", "google.auth.")
NO_STORE = (
    "the object store did not answer, or refused: look at the network, the bucket of --root, "
    "AWS_ENDPOINT_URL and the keys in the environment; what is finished is kept, the same command "
    "goes on"
)
"""Of a workspace on an object store: packages whose errors are about it, and what to do."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Of these, those that only writing meets."""
SAYS_FULL = (
    "no space left",
    "os error 28",
    "writer failed writing",
    "disk is full",
    "disk i/o error",
)
SAYS_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def exit_path(command: Callable[Given, object]) -> Callable[Given, int]:
    """The command with one way out: returns its exit code (what is no int counts as 0).

    What went wrong becomes one line on stderr. A defect of ours goes on up: Python prints the
    traceback and ends with 1, which is its code.
    """

    @wraps(command)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> int:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a letter
                stream.reconfigure(errors="backslashreplace")
        received: list[int] = []  # signals
        try:
            with stoppable(received):
                done = command(*args, **kwargs)
                sys.stdout.flush()
        except SystemExit as stop:  # argparse has said why
            if not isinstance(stop.code, int):
                raise
            return stop.code
        except KeyboardInterrupt:
            ended = signal.SIGTERM in received  # Ray raises its own KeyboardInterrupt for both
            name = "terminated" if ended else "stopped by Ctrl-C"
            print(f"{name}: what is finished is kept, the same command goes on", file=sys.stderr)
            return TERMINATED if ended else STOPPED
        except Exception as error:
            if isinstance(error, BrokenPipeError) and stdout_closed():
                return PIPE
            if (code := exit_code(error)) == DEFECT:
                raise
            if os.environ.get("TRACEBACK"):
                traceback.print_exc()
            print(f"error: {shown(one_line(error))}", file=sys.stderr)
            return code
        return done if isinstance(done, int) else DONE

    return run


def exit_code(error: BaseException) -> int:
    """The code of what went wrong: its own, else that of what caused it, else DEFECT."""
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
    if not isinstance(error, ValueError) and not _ours(error) and _says(error, SAYS_FULL):
        return RESOURCES  # in whatever library: safetensors, sqlite under MLflow
    for kind, code in TABLE:
        if kind in names or (isinstance(kind, type) and isinstance(error, kind)):
            return code
    if not isinstance(error, ValueError) and _says(error, SAYS_FULL + SAYS_MEMORY):
        return RESOURCES
    if isinstance(error, OSError):
        return RESOURCES if error.errno in OUT_OF else INPUT
    if isinstance(error, ValueError) and _ours(error):
        return INPUT  # one that numpy, torch or Python raised amid our work is a defect
    if (isinstance(error, ValueError) or type(error) is Exception) and _read(error):
        return INPUT
    if isinstance(error, ImportError) and (
        _ours(error) or error.name is not None and error.name.partition(".")[0] not in PACKAGES
    ):
        return RESOURCES
    return exit_code(error.__cause__) if error.__cause__ is not None else DEFECT


def one_line(error: BaseException) -> str:
    """What the error says, on one line; of other people's errors also their kind."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{error.strerror}: {error.filename}"
    text = " ".join([text, *(f"({note})" for note in getattr(error, "__notes__", ()))])
    if len(text) > 2000:
        text = f"{text[:2000]} ..."
    if isinstance(error, OSError) and error.errno in OUT_OF:
        return f"{text}; {OUT_OF[error.errno]}"
    if isinstance(error, ModuleNotFoundError) and not _ours(error):
        return f"{text}; use the project's environment: .venv/bin/python, which `make` makes"
    if type(error).__module__.startswith(STORES):
        return f"{type(error).__name__}: {text}; {NO_STORE}"
    if _says(error, SAYS_FULL):
        return f"{text}; {OUT_OF[errno.ENOSPC]}"
    own = type(error).__module__ == __name__ or _ours(error)
    return text if text and own else f"{type(error).__name__}: {text}"


def unwritten(error: Exception, path: Path) -> Exception:
    """What to raise when `path` could not be written: an OSError that names it, where the disk is
    full or read-only or a limit is reached, whichever library met that; else the error itself."""
    number = error.errno if isinstance(error, OSError) else None
    if number not in FULL and not isinstance(error, ValueError) and _says(error, SAYS_FULL):
        number = errno.ENOSPC
    return OSError(number, os.strerror(number), str(path)) if number in FULL else error


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    text = str(error).lower()
    return any(word in text for word in words)


def shown(text: str) -> str:
    """A text as a terminal shows it: what is not printable, such as an escape sequence in a file's
    name, becomes its code. Line ends stay."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


def _origin(error: BaseException) -> tuple[str, int]:
    """File and line where an exception was raised, ("", 0) for one that never was."""
    place, trace = ("", 0), error.__traceback__
    while trace is not None:
        place, trace = (trace.tb_frame.f_code.co_filename, trace.tb_lineno), trace.tb_next
    return place


def _ours(error: BaseException) -> bool:
    """Whether a `raise` statement of ours raised it, so that its message is meant for people."""
    if type(error.__cause__).__name__.startswith(("_RemoteTraceback", "RayTaskError")):
        return True  # in a worker process, which cannot send its frames
    file, line = _origin(error)
    return file.startswith(OWN) and linecache.getline(file, line).lstrip().startswith("raise")


def _read(error: BaseException) -> bool:
    """Whether a library raised it that reads what people bring."""
    file, _ = _origin(error)
    return any(f"{os.sep}site-packages{os.sep}{name}{os.sep}" in file for name in READERS)
