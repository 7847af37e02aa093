"""A list of files that people bring names files of its own folder: `../`, absolute names and links
to elsewhere are refused, and a circle of links ends."""

import os
import re

import pytest

from ml.__main__ import main
from ml.compute.weights import index_files
from ml.datasets.folder import OwnFolder
from ml.datasets.voc import Voc2012
from ml.errors import ManifestError, shown
from ml.store import files
from ml.store.files import write_json
from ml.store.folder_digest import sha256_folder
from ml.store.manifest import Manifest, read_manifest, write_manifest
from ml.store.reading import read_text
from tests.builders import phototrees

ELSEWHERE = ("../secret.txt", "/etc/passwd", "a/../../b", "..", "")


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_manifest_names_files_of_its_folder(tmp_path, name):
    folder = tmp_path / "prompts"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("mine")
    entry = {"sha256": files.sha256_file(tmp_path / "secret.txt"), "bytes": 4}
    write_manifest(folder, Manifest("prompts", 1, {}, {}, {name: entry}, {}))
    with pytest.raises(ManifestError, match="leaves its folder"):
        read_manifest(folder)


@pytest.mark.parametrize(
    "field, value",
    [
        ("files", 7),
        ("files", {"a": 7}),
        ("files", {"a": {}}),
        ("inputs", []),
        ("facts", None),
        ("params", "x"),
        ("stage", 3),
        ("version", "1"),
    ],
)
def test_a_manifest_of_other_kinds_is_refused_whatever_its_digest(tmp_path, field, value):
    content = {"stage": "a", "version": 1, "params": {}, "inputs": {}, "files": {}, "facts": {}}
    write_manifest(tmp_path, Manifest(**content | {field: value}))
    with pytest.raises(ManifestError, match="manifest.json: .*; make the stage again"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_models_index_names_files_beside_it(tmp_path, name):
    index = tmp_path / "model.safetensors.index.json"
    write_json(index, {"weight_map": {"weight": name}})
    with pytest.raises(ValueError, match="index.json lists .* leaves its folder"):
        index_files(index)


@pytest.mark.parametrize(
    "name", ["JPEGImages/2007_000033.jpg", "SegmentationClass/2007_000033.png"]
)
def test_a_link_out_of_an_unpacked_archive_is_refused(tmp_path, name):
    root = phototrees.write_voc(tmp_path / "voc")
    photos = Voc2012(root, "test")
    place = next(root.rglob(name))
    place.rename(tmp_path / "mine")
    place.symlink_to(tmp_path / "mine")
    with pytest.raises(ValueError, match="is a link to .*mine, outside of"):
        photos.check(photos.keys, "any")
    place.unlink()
    (tmp_path / "mine").rename(place)
    place.parent.rename(tmp_path / "disk2")  # a whole folder may lie elsewhere
    place.parent.symlink_to(tmp_path / "disk2")
    photos.check(photos.keys, "any")


@pytest.mark.parametrize("line", ["../../mine", "/etc/passwd", "..", "a/../../b"])
@pytest.mark.parametrize("source", ["voc", "folder"])
def test_a_split_file_names_pictures_of_its_folder(tmp_path, source, line):
    if source == "voc":
        root = phototrees.write_voc(tmp_path / "voc")
        (next(root.rglob("ImageSets/Segmentation")) / "val.txt").write_text(f"{line}\n")
        photos = Voc2012(root, "test")
    else:
        root = phototrees.write_folder(tmp_path / "yard")
        (root / "test.txt").write_text(f"{line}\n")
        photos = OwnFolder(root, "test")
    with pytest.raises(ValueError, match=re.escape(str(root.name)) + "|missing"):
        photos.check(photos.keys, "any")


def test_a_circle_of_links_ends(tmp_path, capsys):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "again").symlink_to(tmp_path / "model")
    (tmp_path / "model" / "self").symlink_to("self")
    with pytest.raises(ValueError, match="is a link to a folder that it lies in|a link to nothing"):
        sha256_folder(tmp_path / "model")
    root = phototrees.write_folder(tmp_path / "yard")
    (root / "images" / "loop.png").symlink_to("loop.png")
    profile = tmp_path / "p.yaml"
    profile.write_text(f"benchmark: {{source: folder, root: {root}, subset: any}}\n")
    command = ["benchmark", "--profile", str(profile), "--root", str(tmp_path / "root")]
    assert main(command) == 2 and capsys.readouterr().err.count("error: ") == 1


def test_what_is_no_plain_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    for place in (tmp_path / "pipe.txt", "/dev/zero"):
        with pytest.raises(ValueError, match="no plain file"):
            read_text(place)
    with pytest.raises(ValueError, match="can't be read"):
        read_text(tmp_path)


def test_a_terminal_is_told_nothing_by_a_file_s_name(tmp_path, capsys):
    root = phototrees.write_folder(tmp_path / "yard")
    (root / "images" / "a\x1b]0;title\x07\u202ecod.exe").write_text("x")
    profile = tmp_path / "p.yaml"
    profile.write_text(f"benchmark: {{source: folder, root: {root}, subset: any}}\n")
    assert main(["benchmark", "--profile", str(profile), "--root", str(tmp_path / "root")]) == 2
    said = capsys.readouterr().err
    assert "a\\x1b]0;title\\x07\\u202ecod.exe" in said and "\x1b" not in said
    assert shown("Straße 字 \udcff\n") == "Straße 字 \\udcff\n"
    files.say.cache_clear()
    files.say("\x1b[2J")
    assert capsys.readouterr().err == "warning: \\x1b[2J\n"
