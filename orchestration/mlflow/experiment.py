"""An MLflow store opened, and the experiment of a profile in it."""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ml.store.files import atomic
from orchestration.mlflow.absence import away, is_away
from orchestration.mlflow.tracking import PASSWORD, SQLITE, URL, USER, mask, with_login
from orchestration.turns import NO_LOCKS


def open_experiment(tracking_uri: str, name: str, artifacts: str | None) -> str:
    """Makes a store MLflow's current one and returns the id of the experiment, found or made.

    A store that is not there is made (sqlite: 10 s the first time). artifacts: folder or URL, None
    for what the server decides. Raises RegistryAway when the store is locked or does not answer,
    ValueError when it can't be opened, or the experiment was deleted or keeps its artifacts at
    another URL already.
    """
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    address = with_login(tracking_uri)
    try:
        if address.startswith(SQLITE):
            _make_store(Path(address.removeprefix(SQLITE)))
        mlflow.set_tracking_uri(address)
        mlflow.set_registry_uri(address)
        return _experiment(mlflow.MlflowClient(), name, artifacts)
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        if is_away(error):
            raise away(tracking_uri, error) from None
        reason = (mask(str(error)).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"the registry {tracking_uri} can't be opened: {reason}; look at "
            f"tracking_uri, at the server, and at {USER} and {PASSWORD} in the "
            "environment"
        ) from None  # its traceback may hold the password


def _make_store(file: Path) -> None:
    """Makes an sqlite store that is not there yet, elsewhere first: MLflow takes 10 s for its fifty
    tables, and refuses a store in which a killed run left some of them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        return  # it took its place when it was whole
    with _alone(file.with_name(f".{file.name}.lock")):
        if file.exists():
            return
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with tempfile.TemporaryDirectory() as scratch, atomic(file) as temporary:
            whole = Path(scratch) / file.name
            SqlAlchemyStore(f"{SQLITE}{whole}", "mlruns").engine.dispose()
            shutil.copyfile(whole, temporary)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process at a time; a file system without locks makes nobody wait. The lock's file goes
    when the block ends well: whoever comes then finds what was made. It is open for writing, and
    no folder, since NFS refuses others."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield
        lock.unlink(missing_ok=True)


def _experiment(client, name: str, artifacts: str | None) -> str:
    is_url = artifacts is not None and URL.match(artifacts) is not None
    if (known := client.get_experiment_by_name(name)) is None:
        location = artifacts if is_url or artifacts is None else Path(artifacts).resolve().as_uri()
        return client.create_experiment(name, artifact_location=location)
    if known.lifecycle_stage == "deleted":
        raise ValueError(
            f"the experiment {name!r} was deleted and keeps its name: restore it "
            f"(`mlflow experiments restore -x {known.experiment_id}`), or take "
            "another tracking_uri"
        )
    moved = (
        is_url
        and not artifacts.startswith("file:")
        and artifacts.rstrip("/") != known.artifact_location.rstrip("/")
    )
    if moved:
        raise ValueError(
            f"artifacts: {artifacts!r}, but the experiment {name!r} keeps its "
            f"artifacts at {known.artifact_location!r} since it was made, and a "
            "store can't move them: leave `artifacts` as it was, or take another "
            "tracking_uri"
        )
    return known.experiment_id
