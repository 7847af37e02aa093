"""`python -m ml export`: the synthetic set of a profile, and photographs that its models label."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from ml.__main__ import main
from ml.drawn_world.world import draw_scene, scene_seed
from ml.images.png import decode_png
from ml.pipeline.marks import Mark, add_marks, picture_sha256
from ml.pipeline.workspace import Workspace
from ml.settings.profile import load_params
from ml.store.files import sha256_json, write_json
from ml.store.locks import FolderLock
from ml.store.manifest import Manifest, describe_files, read_manifest, write_manifest
from ml.store.seals import sealed
from ml.store.shards import read_shards
from ml.words.vocabulary import load_vocabulary
from tests.builders import handmade
from tests.builders.doors import segmenter_folder, stage_folder


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Workspace:
    """The stages that stand before the synthetic set, by hand, and the set."""
    workspace = handmade.data_stages(tmp_path_factory.mktemp("export"))
    handmade.write_weights(workspace, "grounding_model")
    handmade.write_model(workspace, "grounding_model")
    handmade.write_stage("grounding_scores", workspace, handmade.grounding_facts())
    handmade.write_synthetic(workspace)
    return workspace


@pytest.fixture
def workspace(made, tmp_path) -> Workspace:
    """A copy, to change."""
    shutil.copytree(made.root, tmp_path / "root")
    return Workspace(tmp_path / "root", made.profile)


def export(workspace: Workspace, *more: str, kind: str = "coco", profile: str = "ci") -> int:
    own = ["--profile", profile, "--root", str(workspace.root), "--format", kind]
    return main(["export", *own, *more])


def card(workspace: Workspace, kind: str = "coco") -> str:
    return (workspace.data / "exports" / kind / "README.md").read_text()


def test_the_set_is_exported_once(workspace, capsys):
    assert export(workspace, "--split", "train=0.8,val=0.2") == 0
    out = workspace.data / "exports" / "coco"
    first = capsys.readouterr().out
    assert f"{out}: written; pictures: train 80, val 20" in first
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert export(workspace, "--split", "val=0.2,train=0.8") == 0
    assert capsys.readouterr().out == first.replace("written;", "up to date;")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert not list(out.parent.glob(".*"))


def test_labels_and_prompts_are_those_of_the_set(workspace):
    assert export(workspace) == 0
    rows = read_shards(workspace.folder("synthetic_dataset")).set_index("key")
    out, seen = workspace.data / "exports" / "coco", 0
    for split in ("train", "val"):
        coco = COCO(str(out / "annotations" / f"instances_{split}.json"))
        for image in coco.loadImgs(coco.getImgIds()):
            row = rows.loc[Path(image["file_name"]).stem]
            label = np.zeros((image["height"], image["width"]), np.uint8)
            for one in coco.loadAnns(coco.getAnnIds(image["id"])):
                label[coco.annToMask(one) > 0] = one["category_id"]
            assert np.array_equal(label, decode_png(row.label))
            assert (image["prompt"], image["seed"]) == (row.text, row.seed)
            assert (out / split / image["file_name"]).read_bytes() == row.image
            seen += 1
    assert seen == len(rows)


def test_the_card_says_what_is_known(workspace):
    digest = read_manifest(workspace.folder("synthetic_dataset")).digest
    state = workspace.state("synthetic_dataset")
    results = [
        {"name": "not_blank", "passed": True, "observed": "1 of 100 rows break it",
         "unexpected_percent": 1.0},
    ]  # fmt: skip
    verdict = {"digest": digest, "passed": False, "failures": ["areas: too | small"]}
    write_json(state / "quality.json", sealed(verdict | {"results": results}))
    assert export(workspace) == 0
    text = card(workspace)
    assert "A check failed: areas: too \\| small." in text
    assert "Within the bounds of the check not\\_blank: 1 of 100 rows break it." in text
    assert "one seen 80.0" in text and "Apache-2.0" in text and digest in text
    model = load_params("ci").diffusion.model
    assert model in text and "Audited masks" not in text
    for name in load_vocabulary("voc-1").classes:
        assert f"\n| {name} | " in text


def test_an_audit_is_another_card(workspace, capsys):
    assert export(workspace) == 0
    rows = read_shards(workspace.folder("synthetic_dataset"))
    dogs = rows[["dog" in names for names in rows.entities]].iloc[:4]
    verdicts = ["right", "right", "wrong mask", "right"]
    add_marks(
        workspace,
        [
            Mark("synthetic_dataset", picture_sha256(row.image), row.key, "dog", verdict)
            for row, verdict in zip(dogs.itertuples(), verdicts, strict=True)
        ],
    )
    assert export(workspace) == 0 and "written;" in capsys.readouterr().out
    assert "| dog | 4 | 75.0 | 30.1 to 95.4 |" in card(workspace)
    assert export(workspace) == 0 and "up to date;" in capsys.readouterr().out


def test_another_set_replaces_the_export_as_a_whole(workspace):
    assert export(workspace) == 0
    handmade.write_synthetic(workspace, lambda rows: rows.iloc[:40])
    assert export(workspace) == 0
    content = json.loads((workspace.data / "exports" / "coco" / "export.json").read_text())
    assert sum(content["facts"]["pictures"].values()) == 40
    assert len(list((workspace.data / "exports" / "coco").glob("*/*.png"))) == 40


def test_a_set_that_is_not_there_is_refused(tmp_path, capsys):
    assert export(Workspace(tmp_path, "ci")) == 3
    assert "run `python -m ml synthetic_dataset` first" in capsys.readouterr().err
    assert not list(tmp_path.rglob("exports"))


def test_a_vocabulary_that_was_edited_is_refused(workspace, capsys):
    folder = workspace.folder("synthetic_dataset")
    manifest = read_manifest(folder)
    params = manifest.params | {"vocabulary_digest": "of other words"}
    write_manifest(folder, dataclasses.replace(manifest, params=params))
    assert export(workspace) == 2
    assert "is not the one that 'synthetic_dataset' was made with" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more, says",
    [
        (["--with", "segmenter"], "--with is about photographs"),
        (["--with", "grounding"], "--with is about photographs"),
        (["--min-presence", "0.9"], "expected --pictures FOLDER beside it"),
        (
            ["--pictures", ".", "--with", "segmenter", "--min-presence", "0"],
            "--min-presence: only --with grounding asks which words are present",
        ),
    ],
)
def test_options_without_effect_are_refused(made, more, says, capsys):
    assert export(made, *more) == 2
    assert says in capsys.readouterr().err
    assert not (made.data / "exports").exists()


@pytest.mark.parametrize("kind, name", [("coco", "annotations"), ("yolo-seg", "names")])
def test_splits_that_a_format_has_other_uses_for_are_refused(made, kind, name, capsys):
    assert export(made, "--split", f"train=0.5,val=0.3,{name}=0.2", kind=kind) == 2
    assert f"split '{name}=0.2': expected a name" in capsys.readouterr().err
    assert not (made.data / "exports").exists()


def test_two_at_once_do_not_meet(workspace, capsys):
    out = workspace.data / "exports" / "coco"
    with FolderLock(workspace.data, f"export-{sha256_json(str(out.resolve()))[:12]}") as lock:
        lock.write()
        assert export(workspace) == 5
    assert "is in use" in capsys.readouterr().err
    assert export(workspace) == 0


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Workspace:
    """The micro diffusion model with an untrained module, and an untrained segmenter."""
    root = tmp_path_factory.mktemp("models")
    digest = {"vocabulary_digest": load_vocabulary("voc-1").digest}
    folder = stage_folder(root)
    manifest = read_manifest(folder)
    write_manifest(folder, dataclasses.replace(manifest, params=manifest.params | digest))
    folder = segmenter_folder(root)
    params = digest | {"segmenter": load_params().section("segmenter")}
    files = describe_files(folder, {})
    write_manifest(folder, Manifest("segmenter", 1, params, {}, files, {}))
    return Workspace(root, "micro")


@pytest.fixture
def photos(tmp_path) -> Path:
    """Scenes as files of several kinds and sizes, one twice, with names that formats stumble on."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(["a dog.png", "a.dog.jpg", "straße ü.png", "x.png", "y.png"]):
        scene = Image.fromarray(draw_scene(scene_seed("test", min(number, 3))).image)
        scene.resize((64, 64) if number > 2 else (96, 48 + number)).save(folder / name)
    return folder


@pytest.mark.parametrize(
    "by", [pytest.param("grounding", marks=pytest.mark.slow), "segmenter"]
)  # twenty words' presence is asked for a picture
def test_photographs_are_labelled(models, photos, tmp_path, by, capsys):
    out = tmp_path / "out"
    arguments = ["--pictures", str(photos), "--with", by, "--out", str(out)]
    arguments += ["--split", "train=0.6,val=0.4"]
    if by == "grounding":
        arguments += ["--min-presence", "0"]
    assert export(models, *arguments, profile="micro") == 0
    first = capsys.readouterr().out
    assert "near copies, kept on one side: 1" in first
    sizes, sides = {}, {}
    for split in ("train", "val"):
        coco = COCO(str(out / "annotations" / f"instances_{split}.json"))
        for image in coco.loadImgs(coco.getImgIds()):
            sizes[image["file"]] = image["width"], image["height"]
            sides[image["file"]] = split
            for one in coco.loadAnns(coco.getAnnIds(image["id"])):
                assert coco.annToMask(one).shape == (image["height"], image["width"])
    assert sizes == {path.name: Image.open(path).size for path in photos.iterdir()}
    assert sides["x.png"] == sides["y.png"]
    names = {path.stem for split in ("train", "val") for path in (out / split).iterdir()}
    assert names == {"a-dog", "a-dog-2", "stra-e", "x", "y"}
    assert (out / sides["a.dog.jpg"] / "a-dog-2.jpg").read_bytes() == (
        photos / "a.dog.jpg"
    ).read_bytes()
    text = (out / "README.md").read_text()
    assert f"labelled by its {by}" in text and "the photographs | their owners' terms" in text
    capsys.readouterr()
    assert export(models, *arguments, profile="micro") == 0
    assert "up to date" in capsys.readouterr().out
    assert not list(tmp_path.glob(".out*"))


def test_terms_are_those_of_the_detector_that_made_the_masks(models, photos, tmp_path):
    """Whatever the settings have named since."""
    root, name = tmp_path / "root", "facebook/mask2former-swin-tiny-coco-instance"
    shutil.copytree(models.root, root)
    workspace, own = Workspace(root, "micro"), {"backend": "mask2former", "model": name}
    workspace.folder("masks").mkdir()
    write_manifest(workspace.folder("masks"), Manifest("masks", 1, {"detector": own}, {}, {}, {}))
    more = ["--with", "segmenter", "--out", str(tmp_path / "out"), "--split", "train=1"]
    assert export(workspace, "--pictures", str(photos), *more, profile="micro") == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert f"{name} | CC BY-NC 4.0: not for commercial use" in text
    assert load_params("micro").detector.model not in text


def test_labels_are_those_of_the_segmenter(models, photos, tmp_path):
    from ml.images.photographs import open_picture
    from ml.segmenters import load_segmenter
    from ml.segmenters.prediction import predict

    out = tmp_path / "out"
    more = ["--with", "segmenter", "--out", str(out), "--split", "train=1"]
    assert export(models, "--pictures", str(photos), *more, kind="voc", profile="micro") == 0
    model = load_segmenter(models.folder("segmenter"))
    seen = set()
    for key, name in {"a-dog": "a dog.png", "x": "x.png"}.items():
        expected = predict(model, open_picture(photos / name)[None].copy())[0]
        found = Image.open(out / "VOCdevkit/VOC2012/SegmentationClass" / f"{key}.png")
        assert np.array_equal(np.asarray(found), expected)
        seen |= set(np.unique(expected))
    assert len(seen) > 1  # there is something to compare


def test_a_prompt_takes_the_surest_words_that_fit():
    from ml.cli.exporting.labellers import surest
    from ml.words.text_limit import find_limit

    limit = find_limit(load_params().diffusion.model)
    assert limit is not None
    words = [own[0] for own in load_vocabulary("voc-1").words.values()]
    scores = np.linspace(0, 1, len(words))[::-1]
    assert surest(words, scores, 2.0, limit) == []
    assert surest(words, scores, 0.9, limit) == words[:2]
    many = surest(words, scores, 0.0, limit)
    assert many == words[: len(many)] and 2 < len(many) < len(words)
    assert surest(words[::-1], scores[::-1], 0.0, limit) == many[::-1]


@pytest.mark.parametrize("out", ["photos", "photos/labelled", "link/deep/er", "photos/../photos/x"])
def test_an_export_into_the_photographs_is_refused(models, photos, tmp_path, out, capsys):
    """They are part of what an export is known by: it would never be found again."""
    (tmp_path / "link").symlink_to(photos)
    before = sorted(photos.rglob("*"))
    more = ["--pictures", str(photos), "--with", "segmenter", "--out", str(tmp_path / out)]
    assert export(models, *more, profile="micro") == 2
    assert "lies in the folder of the photographs" in capsys.readouterr().err
    assert sorted(photos.rglob("*")) == before


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda folder: shutil.rmtree(folder), "--pictures: no folder"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], "no picture in"),
        (lambda folder: (folder / "notes.txt").write_text("x"), "of another kind"),
        (lambda folder: (folder / "x.png").write_bytes(b"\x89PNG half"), "x.png"),
    ],
)
def test_what_cannot_be_labelled_is_refused(models, photos, tmp_path, change, says, capsys):
    change(photos)
    more = ["--pictures", str(photos), "--with", "segmenter", "--out", str(tmp_path / "out")]
    assert export(models, *more, profile="micro") == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
