"""Where MLflow keeps its runs and its artifacts, as the run config names it, without a password.

Run configs, logs and tracebacks are stored and shown, and a password in an address would be stored
and shown with them. A password comes from the environment only.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from ml.store.places import is_remote
from orchestration.home import surroundings

SQLITE = "sqlite:///"
SERVERS = ("http", "https", "databricks")
DATABASES = ("postgresql", "mysql", "mssql")
USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
URL = re.compile(r"[a-z][a-z0-9+.-]+:")
LOGIN = re.compile(r"([a-z][a-z0-9+.-]*:/{0,2})(?!/)[^\s'\"]*@", re.I)
AZURE = re.compile(r"^((?:wasb|abf)ss?://)[^:@/]+@")  # a container's name, no login
SECRET = re.compile(
    r"([?&](?:sig|[^=&\s]*(?:pass|pwd|secret|token|signature|(?:access|account|api)_?key)[^=&\s]*)=)"
    r"[^&\s'\"]+",
    re.I,
)


def mask(text: str) -> str:
    """A text with the logins and passwords of the addresses in it replaced by ***."""
    return SECRET.sub(r"\1***", LOGIN.sub(r"\1***@", text))


def masked_values(value: object) -> object:
    """Plain data with every text in it masked."""
    if isinstance(value, Mapping):
        return {key: masked_values(item) for key, item in value.items()}
    if isinstance(value, list):
        return [masked_values(item) for item in value]
    return mask(value) if isinstance(value, str) else value


def refuse_login(field: str, address: str) -> str:
    """The address without spaces around it; ValueError, which doesn't repeat it, for a login."""
    address = address.strip()
    whole = re.sub(r"\s", "_", address)  # a password may hold a space
    if LOGIN.search(AZURE.sub(r"\1", whole)) or SECRET.search(whole):
        raise ValueError(
            f"{field} holds a login ({mask(whole)}), and what stands there is kept with the run "
            f"and shown: expected the address alone. Set {USER} and {PASSWORD} in the environment "
            "(an artifact store reads its own variables, as AWS_ACCESS_KEY_ID), and change a "
            "password that a run was started with"
        )
    return address


def resolve(tracking_uri: str, artifacts: str, home: Path) -> tuple[str, str | None]:
    """Tracking URI and artifact location; None leaves that to the server.

    "" is what the surroundings say (`orchestration.home`), or else `mlflow.db` below `home`, and
    `mlartifacts` there. A relative sqlite file or folder is
    below `home`, a URL is passed through. With a home on an object store a tracking URI must be
    given, and the artifacts of a database are `mlartifacts` there. Raises ValueError for what
    MLflow can't open, for a login in an address, and for a folder of this machine as the artifacts
    of a server.
    """
    tracking_uri = tracking_uri or surroundings("TRACKING_URI")
    artifacts = artifacts or surroundings("ARTIFACTS")
    if is_remote(home):
        artifacts = _remote(tracking_uri, artifacts, home)
    uri = refuse_login("tracking_uri", tracking_uri or f"{SQLITE}mlflow.db")
    artifacts = refuse_login("artifacts", artifacts)
    scheme = uri.split(":", 1)[0].split("+", 1)[0]
    is_url = bool(URL.match(artifacts))
    if uri.startswith(SQLITE):
        file = uri.removeprefix(SQLITE)
        return (
            f"{SQLITE}{file if is_remote(home) else home / file}",
            artifacts if is_url else (home / (artifacts or "mlartifacts")).resolve().as_uri(),
        )
    if scheme in SERVERS:
        if artifacts and not is_url:
            raise ValueError(
                f"artifacts: {artifacts!r} is a folder of this machine, and {uri} is "
                "a server that others read: leave it out, so that the server "
                "decides, or give a URL (s3://bucket/path)"
            )
        return uri, artifacts or None
    if scheme not in DATABASES:
        raise ValueError(
            f"tracking_uri: {uri!r} is no address of an MLflow store: expected "
            f"{SQLITE}file.db, one that starts with http://, https:// or "
            f"{', '.join(f'{name}://' for name in DATABASES)}, or databricks"
        )
    if not artifacts:
        raise ValueError(
            f"artifacts: missing, and {uri} is a database that holds no files: give "
            "the URL (s3://bucket/path) or the folder in which all find them"
        )
    return uri, artifacts if is_url else (home / artifacts).resolve().as_uri()


def _remote(tracking_uri: str, artifacts: str, home: Path) -> str:
    """The artifacts of a home on an object store. Raises ValueError for a tracking URI that would
    be a file there."""
    uri = tracking_uri.strip()
    if not uri or uri.startswith(SQLITE) and not uri.startswith(f"{SQLITE}/"):
        raise ValueError(
            f"tracking_uri: {'missing' if not uri else 'a relative file'}, and the root {home} is "
            "an object store, which holds no sqlite file: expected the address of an MLflow server "
            "(http://...), a database (postgresql://...) or sqlite:////absolute/path/mlflow.db"
        )
    if artifacts or uri.split(":", 1)[0].split("+", 1)[0] in SERVERS:
        return artifacts
    return str(home / "mlartifacts")


def with_login(uri: str) -> str:
    """A database's address as it is opened: with the login of the environment, and the driver that
    the extra `kubernetes` installs, since SQLAlchemy's own choice for PostgreSQL is another. What
    else has a login reads the environment by itself. Never shown, kept or logged."""
    name, _, rest = uri.partition("://")
    if name.split("+", 1)[0] not in DATABASES:
        return uri
    scheme = "postgresql+psycopg2" if name == "postgresql" else name
    if not (user := os.environ.get(USER)):
        return f"{scheme}://{rest}"
    password = os.environ.get(PASSWORD, "")
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{rest}"
