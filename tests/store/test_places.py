"""Roots: what is taken, and what is refused before any work, without repeating a secret."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ml.arguments import folder, workspace_root
from ml.settings.profile import ROOT
from ml.store.places import is_remote, place_of


def test_local_roots_stay_plain_paths(tmp_path):
    for text in (str(tmp_path), tmp_path.as_uri(), "some/where"):
        assert isinstance(place_of(text), Path) and not is_remote(place_of(text))
    assert place_of(tmp_path.as_uri()) == tmp_path
    assert place_of((tmp_path / "with space").as_uri()) == tmp_path / "with space"
    assert place_of(f"file://{tmp_path}/exp[1]") == tmp_path / "exp[1]"


@pytest.mark.parametrize("text", ["s3://bucket", "s3://bucket/a/b/", "gs://bucket/a", "memory://x"])
def test_addresses_have_pathlibs_methods(text):
    place = place_of(text)
    assert is_remote(place) and str(place).rstrip("/") == text.rstrip("/")
    assert (place / "data" / "ci").parent.name == "data"


@pytest.mark.parametrize(
    "text, says",
    [
        ("ftp://host/x", "unknown protocol ftp://"),
        ("s3://", "names no place in a bucket"),
        ("s3:/bucket/x", "names no place in a bucket"),
        ("s3://bucket/../x", "names no place in a bucket"),
        ("s3://bucket/exp[1]", r"holds '\['.*without \* \[ \]. Choose another prefix"),
        ("gs://bucket/exp1]", r"holds '\]'"),
        ("memory://bucket/*/x", r"holds '\*'"),
        ("file:x", None),
        ("file:/x", "absolute path"),
    ],
)
def test_what_is_no_address_is_refused(text, says):
    if says is None:
        assert place_of(text) == Path(text)  # a folder may be called so
        return
    with pytest.raises(ValueError, match=says):
        place_of(text)


@pytest.mark.parametrize(
    "text",
    [
        "s3://KEYID:SECRETPART@bucket/x",
        "s3://KEYID%3ASECRETPART%40bucket/x",
        "s3://bucket/x?X-Amz-Signature=SECRETPART",
        "s3://bucket/x#SECRETPART",
    ],
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(text):
    done = subprocess.run(
        [sys.executable, "-m", "ml", "prompts", "--root", text],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "with a login, a query" in done.stderr
    assert "SECRETPART" not in done.stdout + done.stderr and "Traceback" not in done.stderr


def test_a_missing_package_is_named_with_the_extra(monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "s3fs" else there(name)
    )
    with pytest.raises(ImportError, match=r"pip install '\.\[s3\]'"):
        workspace_root("s3://bucket/x")


def test_commands_that_need_a_local_folder_say_so():
    with pytest.raises(Exception, match="a folder of this machine, got an address"):
        folder("s3://bucket/x")
