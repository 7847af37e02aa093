"""A model registry that is locked or gone for a while: waited for, then told in one line.

What is asked of the registry in `orchestration.mlflow.registry` may be asked again, since nothing
is added twice.
"""

import time
from collections.abc import Callable
from typing import TypeVar

import dagster as dg

from orchestration.mlflow.tracking import mask

PATIENCE = 180.0
"""Seconds for which a registry may be away."""
PAUSE = 5.0
AWAY = (
    "database is locked",
    "connection refused",
    "connection aborted",
    "connection reset",
    "max retries exceeded",
    "remote end closed connection",
    "server closed the connection",
    "could not connect to server",
    "the database system is shutting down",
    "the database system is starting up",
)
"""What sqlite, PostgreSQL and a server's clients say of it, in lower case."""
Found = TypeVar("Found")


class RegistryAway(ConnectionError):
    """The registry is locked by another process, or does not answer."""


def is_away(error: BaseException) -> bool:
    """Whether an error of MLflow or SQLAlchemy says so, rather than that something is wrong."""
    return isinstance(error, RegistryAway) or any(word in str(error).lower() for word in AWAY)


def away(address: str, error: BaseException) -> RegistryAway:
    """The error in one line. address: of the registry."""
    reason = (mask(str(error)).splitlines() or [type(error).__name__])[0][:200]
    return RegistryAway(
        f"the registry {mask(address)} is locked by another process or does not answer ({reason}). "
        "End what holds it or start it, and start the same command again: what is finished is kept"
    )


def when_there(address: str, call: Callable[[], Found]) -> Found:
    """Repeats the call while the registry is away, up to PATIENCE; warns once.

    Raises RegistryAway after that.
    """
    end, warned = time.monotonic() + PATIENCE, False
    while True:
        try:
            return call()
        except Exception as error:
            if not is_away(error):
                raise
            told = away(address, error)
            if time.monotonic() > end:
                raise told from None  # its traceback may hold the password
        if not warned:
            dg.get_dagster_logger().warning(f"waits: {told}")
        warned = True
        time.sleep(PAUSE)
