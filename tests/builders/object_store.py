"""An S3 server of moto on this machine, and a way to it that a test can cut."""

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import boto3
import pytest
from moto.server import ThreadedMotoServer
from upath import UPath

from ml.store.places import OPTIONS

KEYS = {
    "AWS_ACCESS_KEY_ID": "of-a-test",
    "AWS_SECRET_ACCESS_KEY": "of-a-test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
BUCKET = "bucket"


@contextmanager
def server() -> Iterator[str]:
    """A server on a free port of 127.0.0.1 with an empty bucket; yields its address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    try:
        address = "http://{}:{}".format(*moto.get_host_and_port())
        with pytest.MonkeyPatch.context() as patch:
            use_keys(patch)
            client(address).create_bucket(Bucket=BUCKET)
        yield address
    finally:
        moto.stop()


def use_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process's clients have the server's keys."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


def client(address: str):
    """Amazon's own client: what is there is looked at, and damaged, without our code."""
    return boto3.client("s3", endpoint_url=address)


def environment(address: str) -> dict[str, str]:
    """Of a process that uses the server."""
    return os.environ | KEYS | {"AWS_ENDPOINT_URL": address}


def place(address: str, prefix: str) -> Path:
    """A place on the server at an address, whatever the environment says."""
    options = OPTIONS["s3"] | {"use_listings_cache": False, "endpoint_url": address}
    return cast(Path, UPath(f"s3://{BUCKET}/{prefix}", **options))


def objects_at(address: str, prefix: str) -> dict[str, bytes]:
    """All objects below a prefix by the rest of their key."""
    s3, found = client(address), {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
        for entry in page.get("Contents", ()):
            body = s3.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read()
            found[entry["Key"].removeprefix(prefix)] = body
    return found


class Wire:
    """A TCP proxy to the server. `cut()` ends every connection and refuses new ones until `mend()`;
    `cut_after(n)` does so once n further bytes have gone to the server."""

    def __init__(self, address: str) -> None:
        host, port = address.removeprefix("http://").split(":")
        self.target = host, int(port)
        self.left: int | None = None
        self.down = 0
        """Bytes that came from the server."""
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self.guard = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.whole = True
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut_after(self, count: int) -> None:
        self.left = count

    def cut(self) -> None:
        self.whole = False
        with self.guard:
            for pair in self.pairs:
                for end in pair:
                    _close(end)
            self.pairs.clear()

    def mend(self) -> None:
        self.left, self.whole = None, True

    def close(self) -> None:
        self.cut()
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self.listener.accept()
            except OSError:
                return
            if not self.whole:
                _close(inner)
                continue
            outer = socket.create_connection(self.target)
            with self.guard:
                self.pairs.append((inner, outer))
            threading.Thread(target=self._pump, args=(inner, outer, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(outer, inner, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        try:
            while data := source.recv(4096):
                self.down += 0 if up else len(data)
                if up and self.left is not None:
                    self.left -= len(data)
                    if self.left < 0:
                        self.cut()
                        return
                sink.sendall(data)
        except OSError:
            pass  # cut, or the other end has closed
        for end in (source, sink):
            _close(end)


def _close(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # closed already
    end.close()
