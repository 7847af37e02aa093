"""What is flushed to the disk before a folder takes its place."""

import os

import pytest

from ml.store import files


@pytest.fixture
def flushed(monkeypatch) -> list[str]:
    """Names of what was flushed, one by one; "everything" for the whole disk."""
    seen: list[str] = []

    def one(handle: int) -> None:
        seen.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")))

    monkeypatch.setattr(files.os, "fsync", one)
    monkeypatch.setattr(files.os, "sync", lambda: seen.append("everything"))
    return seen


def write(folder, count: int) -> None:
    (folder / "below" / "deep").mkdir(parents=True)
    for number in range(count):
        (folder / "below" / "deep" / f"{number}").write_text("x")


def test_each_file_and_folder_of_a_few(tmp_path, flushed):
    write(tmp_path / "new", 3)
    (tmp_path / "new" / "link").symlink_to(tmp_path)  # leads out of it: not followed
    files.sync(tmp_path / "new")
    assert sorted(flushed)[:3] == ["0", "1", "2"] and {"below", "deep", "new"} <= set(flushed)


def test_many_at_once(tmp_path, flushed, monkeypatch):
    monkeypatch.setattr(files, "MANY", 4)
    write(tmp_path / "new", 3)
    files.sync(tmp_path / "new")
    assert flushed == ["everything"]
