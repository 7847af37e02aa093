"""A real PostgreSQL from Debian's package, on 127.0.0.1, with a password that a URL cannot hold as
it is."""

import glob
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2

from tests.builders.servers import free_port

USER, PASSWORD = "words", "p@ss/w:rd%40#? &'\"+é"
DATABASES = ("dagster", "mlflow")
_BINARIES = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[4]))
BINARIES = Path(_BINARIES[-1]) if _BINARIES else None
MISSING = "PostgreSQL is not installed (Debian's package postgresql)"


class Server:
    """One server whose data lies in `folder`: started, stopped and started again on one port."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.process = folder, None
        # PostgreSQL refuses to be root
        self.account = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}
        self.port = free_port()

    def make(self) -> None:
        if self.account:
            shutil.chown(self.folder, **self.account)
        secret = self.folder / "password"
        secret.write_text(PASSWORD + "\n", encoding="utf-8")
        secret.chmod(0o644)
        options = ["--username", USER, "--pwfile", str(secret), "--auth", "scram-sha-256"]
        options += ["--encoding", "UTF8", "--locale", "C", "--no-sync"]
        self._tool("initdb", "--pgdata", str(self.folder / "data"), *options)
        secret.unlink()

    def _tool(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(BINARIES / name), *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
            **self.account,
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "fsync": "off",
        }
        options = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
        self.process = subprocess.Popen(
            [str(BINARIES / "postgres"), "-D", str(self.folder / "data"), *options],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
            **self.account,
        )
        end = time.monotonic() + 60
        while True:
            assert self.process.poll() is None, "the server ended"
            try:
                self.query("select 1", database="postgres")
                return
            except psycopg2.OperationalError:
                assert time.monotonic() < end, "the server does not answer"
                time.sleep(0.1)

    def stop(self) -> None:
        """At once: connections are cut, as when the machine of the database goes down."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()
            self.process = None

    def query(self, sql: str, database: str) -> list[tuple]:
        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname=database
        )
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def dump(self, database: str) -> str:
        """Everything that a database holds, as text."""
        login = {"PGPASSWORD": PASSWORD, "PATH": os.environ["PATH"]}
        return subprocess.run(
            [str(BINARIES / "pg_dump"), "-h", "127.0.0.1", "-p", str(self.port), "-U", USER]
            + ["--inserts", database],
            capture_output=True,
            text=True,
            check=True,
            env=login,
        ).stdout

    @property
    def environment(self) -> dict[str, str]:
        """What deploy/dagster.yaml and a login-free address of MLflow read."""
        return {
            "DAGSTER_PG_HOST": "127.0.0.1",
            "DAGSTER_PG_PORT": str(self.port),
            "DAGSTER_PG_USERNAME": USER,
            "DAGSTER_PG_PASSWORD": PASSWORD,
            "DAGSTER_PG_DB": "dagster",
            "MLFLOW_TRACKING_USERNAME": USER,
            "MLFLOW_TRACKING_PASSWORD": PASSWORD,
        }

    @property
    def tracking_uri(self) -> str:
        return f"postgresql://127.0.0.1:{self.port}/mlflow"


@contextmanager
def server() -> Iterator[Server]:
    """With the databases `dagster` and `mlflow`, both empty."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # not below pytest's: that is root's alone
    made = Server(folder)
    try:
        made.make()
        made.start()
        for name in DATABASES:
            made.query(f"create database {name}", database="postgres")
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)
