"""Ray for this process: one of its own on this machine, or a cluster that runs already.

Ray runs the code that it is sent, and by itself listens on every interface. A Ray of ours listens
on 127.0.0.1 alone, asks for a token (`RAY_AUTH_MODE=token`) that this process has just drawn
and that only its own children know, has no dashboard, and its sockets and logs lie in a folder
that other users cannot open.
Not here: what Ray is used for (`ml.compute.ray_pool`, `.ray_training`).
"""

import atexit
import importlib
import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ml.errors import WorkerLost, one_line
from ml.store.files import say

OBJECTS = 200 * 2**20
"""Bytes of the object store of our own Ray; what travels is small, pictures go to the disk."""
OPEN = (
    "it would run the code of anybody who reaches its ports. Start it with RAY_AUTH_MODE=token and "
    "give this process the token (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token); where "
    "its network is closed and that is enough, say so with RAY_AUTH_MODE=disabled"
)
TRIES = 3
_here: tuple[int, str] | None = None
"""Of the Ray that this process has started: its CPUs, its folder."""


def import_ray() -> ModuleType:
    """The package, which is an extra. Raises ModuleNotFoundError saying how to get it."""
    try:
        import ray
    except ImportError as error:
        raise ModuleNotFoundError(
            "several workers, or a cluster, need Ray, which is not installed: "
            f"pip install '.[ray]', or ask for one worker on this machine ({error})",
            name="ray",
        ) from error
    module: ModuleType = ray
    return module


def start_here(cpus: int, gpus: int) -> None:
    """A Ray of this process on this machine with room for so many; it ends with the process.

    One that has too little room gives way to a new one. cpus are a number for Ray's bookkeeping.
    Raises ValueError when this process is connected to a cluster.
    """
    ray = import_ray()
    if _here is not None and _here[0] >= cpus:
        return
    stop_here()
    if ray.is_initialized():
        raise ValueError(
            "this process is connected to a Ray cluster already: expected "
            "executor.address to name it, or another process for a Ray of this machine"
        )
    for tries in reversed(range(TRIES)):
        try:
            return _start(cpus, gpus)
        except Exception as error:  # Ray has no kind for it: its 30 s for a start are over
            stop_here()
            if tries:
                left = f"{tries} more {'try' if tries == 1 else 'tries'}"
                say(f"Ray did not start, {left}: {one_line(error)}")
            else:
                raise WorkerLost(
                    f"Ray did not start on this machine in {TRIES} tries ({error}): expected room "
                    "for its processes, 1 GB and a share of a core"
                ) from error


def _start(cpus: int, gpus: int) -> None:
    global _here
    ray = import_ray()
    _set_token(secrets.token_hex(32))
    folder = tempfile.mkdtemp(prefix="ray-")  # mode 0700; Ray's own place is shared by all users
    _here = cpus, folder
    with _on_loopback(), _own_signals():
        ray.init(
            address="local",
            num_cpus=cpus,
            num_gpus=gpus,
            object_store_memory=OBJECTS,
            include_dashboard=False,
            logging_level=logging.WARNING,
            _temp_dir=folder,
        )


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Within, Ray takes 127.0.0.1 for this machine's address, as it does on macOS and Windows, and
    binds to it. Given that address it would replace it by another and listen on every interface."""
    constants: Any = importlib.import_module("ray._private.ray_constants")
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _own_signals() -> Iterator[None]:
    """Within, Ray takes SIGTERM for itself, and would abort this process (SIGABRT) without a line;
    afterwards it is ours again. Only the main thread can arrange that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # else it was not set from Python
                signal.signal(number, handler)


@atexit.register
def stop_here() -> None:
    """Ends the Ray that this process has started, if it has, and removes its logs."""
    global _here
    if _here is not None:
        import_ray().shutdown()
        shutil.rmtree(_here[1], ignore_errors=True)
        _here = None


def connect(address: str) -> None:
    """Connects this process to a cluster: "auto", "host:port" or "ray://host:port".

    Raises ValueError without a token, unless RAY_AUTH_MODE=disabled; ConnectionError when there is
    no cluster.
    """
    ray = import_ray()
    if ray.is_initialized():
        if _here is not None:
            raise ValueError(
                f"this process has a Ray of its own already: expected another process for {address}"
            )
        return
    take_token(f"executor.address {address}")
    try:
        with _own_signals():
            ray.init(address=address, logging_level=logging.WARNING)
    except ConnectionError as error:
        raise ConnectionError(
            f"executor.address {address}: expected a Ray cluster there, which answers to this "
            f"process's token (docs/cluster.md): {error}"
        ) from error


def take_token(cluster: str) -> None:
    """This process shows its token to every cluster from now on, unless an open one is wanted.

    cluster: how a message names it. Raises ValueError without a token.
    """
    if open_will_do():
        return
    if not _has_token():
        raise ValueError(f"{cluster}: no token for this cluster; {OPEN}")
    _set_token(None)


def asks_for_token() -> bool:
    """Whether the Ray that this process is part of asks for a token."""
    return os.environ.get("RAY_AUTH_MODE", "").lower() == "token"


def open_will_do() -> bool:
    """Whether a cluster that asks for no token is wanted: its network is closed."""
    return os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled"


def worker_environment(threads: int) -> dict[str, str]:
    """What a worker, maybe on another machine, must know of this process's environment. threads:
    torch's, which Ray would set to num_cpus; another number may change a sum's last digits."""
    names = ("HF_HUB_OFFLINE", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "CUBLAS_WORKSPACE_CONFIG")
    found = {name: os.environ[name] for name in names if name in os.environ}
    return found | {"OMP_NUM_THREADS": str(threads)}


def _has_token() -> bool:
    return (
        any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
        or (Path.home() / ".ray" / "auth_token").is_file()
    )


def _set_token(token: str | None) -> None:
    """For what is started from now on, and for this process, which may have imported Ray before."""
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    if token is not None:
        os.environ["RAY_AUTH_TOKEN"] = token
    raylet = importlib.import_module("ray._raylet")
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()
