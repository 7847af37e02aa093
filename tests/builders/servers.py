"""The web servers that people look at, for real: Dagster's with its daemon, and MLflow's. They
listen on this machine alone and are ended by their ids."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ml.settings.profile import ROOT

PATIENCE = 300.0
"""Seconds until a server answers; many, because the machine may be busy."""
LOADED = """{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus
  locationOrLoadError { __typename ... on PythonError { message } } } } } }"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def started(
    *command: str, env: Mapping[str, str], folder: Path = ROOT
) -> Iterator[subprocess.Popen[bytes]]:
    """A process group of its own, ended by its id: these outlive a polite signal."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(ready: Callable[[], bool], *processes: subprocess.Popen[bytes]) -> None:
    """Until it is so; an address that does not answer is not ready. Fails when a process ends."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert all(process.poll() is None for process in processes), "a process ended"
        try:
            if ready():
                return
        except OSError:
            pass
        time.sleep(0.3)
    raise AssertionError(f"not ready in {PATIENCE:.0f} s")


def ask(url: str, query: str, **variables: object) -> dict:
    """Dagster's answer to a question in GraphQL."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{url}/graphql", body, {"Content-Type": "application/json"})
    answer = json.loads(urllib.request.urlopen(request, timeout=60).read())
    assert "errors" not in answer, answer
    return answer["data"]


@contextmanager
def dagster_ui(home: Path, **env: str) -> Iterator[str]:
    """The address of the web server on workspace.yaml, beside the daemon, on the history in `home`.

    env: more of the environment of both, and of the runs that they start.
    """
    if not (home / "dagster.yaml").exists():
        (home / "dagster.yaml").symlink_to(ROOT / ".dagster" / "dagster.yaml")
    whole = os.environ | {"DAGSTER_HOME": str(home)} | env
    port = str(free_port())
    url = f"http://127.0.0.1:{port}"
    # As `make ui`: two processes that make the history's tables at once can spoil them.
    subprocess.run([sys.executable, "-m", "orchestration.runs"], cwd=ROOT, env=whole, check=True)
    with ExitStack() as stack:
        served = ("dagster_webserver", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", port)
        web = stack.enter_context(started(*served, env=whole))
        work = ("dagster._daemon", "run", "-w", "workspace.yaml")
        daemon = stack.enter_context(started(*work, env=whole))
        entries: list[dict] = []

        def loaded() -> bool:
            entries[:] = ask(url, LOADED)["workspaceOrError"]["locationEntries"]
            return entries[0]["loadStatus"] == "LOADED"

        wait_until(loaded, web, daemon)
        assert entries[0]["locationOrLoadError"]["__typename"] == "RepositoryLocation", entries
        yield url


@contextmanager
def mlflow_ui(store: Path, folder: Path, *artifacts: str) -> Iterator[str]:
    """The address of MLflow's server on an sqlite store, as `make mlflow` starts it. folder: its
    root. artifacts: MLflow's own options about where models and pictures lie, of a new store."""
    port = str(free_port())
    url = f"http://127.0.0.1:{port}"
    command = ("orchestration.mlflow.serve", "--root", str(folder), "--tracking-uri")
    if artifacts:
        command = ("mlflow", "server", *artifacts, "--host", "127.0.0.1", "--backend-store-uri")
    # one worker, and not seven more processes
    env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_WORKERS": "1"}
    command = (*command, f"sqlite:///{store}", "--port", port)
    with started(*command, env=env, folder=folder if artifacts else ROOT) as process:
        wait_until(lambda: bool(urllib.request.urlopen(f"{url}/health", timeout=9)), process)
        yield url
