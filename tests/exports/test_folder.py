"""An export's folder: made once, whole or not at all, and nobody else's is touched."""

import shutil

import pytest

from ml.exports import exporting
from ml.exports.exporting import Order, standing, write_export
from tests.builders import exported

ORDER = Order("yolo-seg", {"train": 0.75, "val": 0.25}, 0, 2)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return exported.write_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, shards):
    folder = tmp_path_factory.mktemp("made") / "out"
    write_export(folder, shards, exported.ABOUT, ORDER)
    return folder


@pytest.fixture
def out(tmp_path, finished):
    """A copy of the finished export, to change."""
    return shutil.copytree(finished, tmp_path / "out")


def looks(folder) -> dict:
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
    }


def test_the_same_export_stands(out):
    facts = standing(out, exported.ABOUT, ORDER)
    assert facts is not None and facts["pictures"] == {"train": 6, "val": 2}


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"shares": {"train": 0.5, "val": 0.5}}, {"bits": 3}],
)
def test_other_arguments_are_another_export(out, shards, change):
    order = Order(**(vars(ORDER) | change))
    assert standing(out, exported.ABOUT, order) is None
    write_export(out, shards, exported.ABOUT, order)  # a whole successor
    assert standing(out, exported.ABOUT, order) is not None
    assert standing(out, exported.ABOUT, ORDER) is None


@pytest.mark.parametrize("harm", ["lost", "cut", "no listing"])
def test_a_damaged_export_is_made_again(out, shards, capsys, harm):
    file = next(out.glob("images/*/*"))
    if harm == "no listing":
        (out / ".files.txt").unlink()
    elif harm == "lost":
        file.unlink()
    else:
        file.write_bytes(b"half")
    if harm == "no listing":  # then nobody knows whose the files are
        with pytest.raises(ValueError, match="which the earlier one did not make"):
            standing(out, exported.ABOUT, ORDER)
        return
    assert standing(out, exported.ABOUT, ORDER) is None
    assert "made again" in capsys.readouterr().err
    write_export(out, shards, exported.ABOUT, ORDER)
    assert standing(out, exported.ABOUT, ORDER) is not None and file.stat().st_size > 4


def test_caches_of_trainers_do_not_matter(out, shards):
    (out / "labels" / "train.cache").write_bytes(b"of Ultralytics")
    assert standing(out, exported.ABOUT, ORDER) is not None
    order = Order(**(vars(ORDER) | {"seed": 1}))
    assert standing(out, exported.ABOUT, order) is None
    write_export(out, shards, exported.ABOUT, order)
    assert not (out / "labels" / "train.cache").exists()  # it was about other files


def test_what_is_not_ours_is_never_replaced(out, shards):
    (out / "runs").mkdir()
    (out / "runs" / "best.pt").write_bytes(b"a night's training")
    assert standing(out, exported.ABOUT, ORDER) is not None  # there it does no harm
    before = looks(out)
    with pytest.raises(ValueError, match=r"holds runs/best.pt, which the earlier one did not make"):
        standing(out, exported.ABOUT, Order(**(vars(ORDER) | {"seed": 1})))
    assert looks(out) == before


@pytest.mark.parametrize("name", ["notes.txt", "export.json"])
def test_a_folder_of_somebody_else_is_refused(tmp_path, name):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_text('{"made_by": "me", "format": "coco", "recipe": {}, "facts": {}}')
    with pytest.raises(ValueError, match="is in the way: expected nothing there"):
        standing(folder, exported.ABOUT, ORDER)
    assert [path.name for path in folder.iterdir()] == [name]


def test_a_file_or_a_link_is_refused(tmp_path, out):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(out)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link", "dangling"):
        with pytest.raises(ValueError, match="is in the way"):
            standing(tmp_path / name, exported.ABOUT, Order(**(vars(ORDER) | {"seed": 1})))


def test_another_format_is_refused(out):
    with pytest.raises(ValueError, match="holds an export in the format yolo-seg, not coco"):
        standing(out, exported.ABOUT, Order(**(vars(ORDER) | {"format": "coco"})))


@pytest.mark.parametrize("there", [False, True])
def test_a_failure_on_the_way_leaves_all_as_it_was(tmp_path, out, shards, monkeypatch, there):
    folder = out if there else tmp_path / "new"
    before = looks(tmp_path)
    add, calls = exporting.Counts.add, []

    def fails(self, picture):
        calls.append(picture)
        if len(calls) == 5:
            raise OSError(28, "No space left on device")
        add(self, picture)

    monkeypatch.setattr(exporting.Counts, "add", fails)
    with pytest.raises(OSError, match="No space left"):
        write_export(folder, shards, exported.ABOUT, Order(**(vars(ORDER) | {"seed": 1})))
    after = looks(tmp_path)
    assert {path: seen for path, seen in after.items() if len(path.parts) > 1} == {
        path: seen for path, seen in before.items() if len(path.parts) > 1
    }
    assert after.keys() == before.keys()


def test_near_copies_are_never_on_both_sides(tmp_path):
    frame = exported.rows()
    frame = frame[frame.accepted & (frame.height == 40)].iloc[:6]
    copies = frame.copy()
    copies["key"] = [f"copy-{key}" for key in frame.key]
    both = exported.pd.concat([frame, copies], ignore_index=True)
    shards = exported.write_set(tmp_path / "shards", both)
    for seed in range(5):
        facts = exported.export(tmp_path / f"out-{seed}", "coco", shards, seed=seed)
        assert facts["near_copies"] == 6
        for split in ("train", "val"):
            names = {path.stem for path in (tmp_path / f"out-{seed}" / split).iterdir()}
            assert names == {f"copy-{n}".removeprefix("copy-copy-") for n in names} | {
                n.removeprefix("copy-") for n in names
            }


def test_yolo_needs_what_ultralytics_reads(tmp_path, shards):
    with pytest.raises(ValueError, match="yolo-seg: expected the splits train and val"):
        exported.export(tmp_path / "out", "yolo-seg", shards, shares={"train": 0.5, "test": 0.5})
    assert not (tmp_path / "out").exists()


def test_a_set_without_accepted_pictures_is_refused(tmp_path):
    frame = exported.rows()
    frame["accepted"] = False
    with pytest.raises(ValueError, match="no accepted picture in"):
        exported.export(tmp_path / "out", "coco", exported.write_set(tmp_path / "shards", frame))
