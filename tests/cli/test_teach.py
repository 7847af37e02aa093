"""`python -m ml teach`: folders of drawn scenes with exact masks, a module of fresh weights."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from ml import GroundedDiffusionPipeline
from ml.__main__ import main
from ml.cli.teaching import lesson
from ml.cli.teaching.pictures import Shown, held_out
from ml.grounding.teaching import teach
from tests.builders.own_pictures import scenes_of, write_folder

CLASSES = ("dog", "cat")
SCENES = scenes_of(("dog",), ("cat",), ("dog", "cat"), ("cat",), ("dog",), ("dog", "cat"))


@pytest.fixture
def own(tmp_path):
    return write_folder(tmp_path / "own", SCENES, CLASSES)


@pytest.fixture
def asked(door_root, grounding_folder, tmp_path) -> list[str]:
    """Of every call: the module of fresh weights, few steps, a new folder."""
    (tmp_path / "plain.yaml").write_text("base: micro\nbenchmark: {source: none, root: null}\n")
    given = {"root": door_root, "model": grounding_folder, "profile": tmp_path / "plain.yaml"}
    given |= {"steps": 3, "out": tmp_path / "taught"}
    return ["teach", *(part for name, value in given.items() for part in (f"--{name}", str(value)))]


def test_two_folders_of_any_name_teach_all_their_words(own, asked, tmp_path, capsys, door):
    (own / "images").rename(own / "photos")
    folders = ["--images", str(own / "photos"), "--masks", str(own / "masks")]
    assert main([*asked, *folders, "--what", "query"]) == 0
    said = capsys.readouterr().out
    assert "taught: dog, cat, the query, 5 pictures" in said and "1 held-out pictures" in said
    taught = GroundedDiffusionPipeline.from_pretrained(tmp_path / "taught")
    assert sorted(taught.queries) == ["cat", "dog"]
    for name, value in door.module.state_dict().items():
        assert value.equal(taught.module.state_dict()[name]), name
    assert (tmp_path / "taught/diffusion/model_index.json").is_file()  # whole, wherever it goes
    facts = json.loads((tmp_path / "taught/teaching.json").read_text())
    assert (facts["what"], facts["steps"]) == ("query", 3)
    assert sorted([*facts["pictures"], *facts["held_out"]]) == [f"{i:02d}" for i in range(6)]


def test_one_word_of_one_folder_and_the_same_again(own, asked, tmp_path, capsys):
    call = [*asked, "--labels", str(own), "--words", "dog", "--what", "module", "--seed", "4"]
    assert main(call) == 0
    weights = (tmp_path / "taught/grounding/model.safetensors").read_bytes()
    assert "the 4 pictures that taught it: too few" in capsys.readouterr().out
    assert main(call) == 2
    assert "is there already" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "taught")
    assert main(call) == 0
    assert (tmp_path / "taught/grounding/model.safetensors").read_bytes() == weights


def test_a_copy_of_a_picture_and_a_tiny_mask_are_left_out(own, asked, tmp_path, capsys):
    for name in ("images", "masks"):
        shutil.copy(own / name / "00.png", own / name / "06.png")
    tiny = np.zeros((64, 64), np.uint8)
    tiny[30, 30] = 1
    Image.fromarray(tiny).save(own / "masks/04.png")
    assert main([*asked, "--labels", str(own)]) == 0
    said = capsys.readouterr().out
    assert "left out: 1 masks, repeated_picture" in said
    assert "left out: 1 masks, too_small" in said
    facts = json.loads((tmp_path / "taught/teaching.json").read_text())
    assert sorted([*facts["pictures"], *facts["held_out"]]) == ["00", "01", "02", "03", "05"]


def test_what_cannot_teach_is_one_sentence_and_nothing_is_written(own, asked, tmp_path, capsys):
    labels = ["--labels", str(own)]
    cases = [
        ([], "expected --images and --masks, or --labels alone"),
        ([*labels, "--images", str(own)], "expected --images and --masks, or --labels alone"),
        (["--labels", str(tmp_path / "nowhere")], "--labels: no folder"),
        ([*labels, "--words", "dog, bus"], "--words: 'bus' has no mask in own labels"),
        ([*labels, "--model", str(own)], "no pipeline.json in"),
    ]
    for more, match in cases:
        assert main([*asked, *more]) == 2
        assert match in capsys.readouterr().err
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(own / "masks/00.png")
    assert main([*asked, *labels]) == 2
    assert "00.png holds the labels [7]" in capsys.readouterr().err
    assert not (tmp_path / "taught").exists()


def test_of_two_at_once_the_first_to_finish_stays(own, asked, tmp_path, capsys, monkeypatch):
    def slow(*given, **more):
        (tmp_path / "taught").mkdir()
        (tmp_path / "taught" / "pipeline.json").write_text("the other's")
        return teach(*given, **more)

    monkeypatch.setattr(lesson, "teach", slow)
    assert main([*asked, "--labels", str(own)]) == 2
    said = capsys.readouterr()
    assert "taught is there already; name a new folder" in said.err and "written" not in said.out
    assert (tmp_path / "taught" / "pipeline.json").read_text() == "the other's"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["own", "plain.yaml", "taught"]


def test_no_word_loses_its_last_picture_to_the_judges():
    mask = np.ones((2, 2), bool)
    pictures = [
        Shown(str(i), np.zeros((2, 2, 3), np.uint8), {"rare" if i == 3 else "dog": mask}, ~mask)
        for i in range(10)
    ]
    for seed in range(20):
        shows, judges = held_out(pictures, seed)
        assert len(judges) == 2 and "3" in [picture.name for picture in shows]
    assert held_out(pictures[:4], 0) == (pictures[:4], [])
