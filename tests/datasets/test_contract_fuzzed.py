"""What the fuzz found (`python -m tests.fuzz`), each kind where its contract lives."""

import json
import os
import pickle
import shutil

import pytest

from ml.cli.own_words.classes import parse_classes
from ml.datasets.class_lists import read_classes, read_palette
from ml.datasets.split_lists import read_list
from ml.detectors.weights import load_weights
from ml.errors import ManifestError
from ml.grounding.prompting import ask
from ml.segmenters.backbones import normalisation
from ml.store.files import Damaged, read_json, settle
from ml.store.locks import FolderLock
from ml.store.reading import configured, read_object, read_yaml
from ml.words.spans import check_name
from ml.words.vocabulary import load_vocabulary
from orchestration import run_config

# Names


@pytest.mark.parametrize(
    "word, match",
    [
        ("a forklift", "bring the article"),
        ("The forklift", "bring the article"),
        ("and", "can't name a thing"),
        ("next to", "can't name a thing"),
        ("a photograph of a", "bring the article"),
        ("photograph of a", "ends in 'a'"),
        ("dog and a cat", "names two things"),
        ("dog, cat", "several words in one"),
        ("x" * 201, "201 letters"),
    ],
)
def test_what_names_no_one_thing_is_refused_wherever_names_enter(tmp_path, word, match):
    with pytest.raises(ValueError, match=match):
        check_name(word)
    (tmp_path / "words.yaml").write_text(json.dumps({"seen": ["pallet", word], "unseen": []}))
    with pytest.raises(ValueError, match=f"words.yaml: seen: .*{match}"):
        load_vocabulary(str(tmp_path / "words.yaml"))
    with pytest.raises(ValueError, match=match):
        ask([["pallet", word]])
    if "," not in word:
        with pytest.raises(ValueError, match=f"--classes: .*{match}"):
            parse_classes(f"pallet, {word}")


@pytest.mark.parametrize(
    "word",
    [
        "salt and pepper shaker",
        "jack-o'-lantern",
        "dogs' bowl",
        "SUV",
        "vitamin a bottle",
        "x" * 200,
    ],
)
def test_what_names_one_thing_is_taken(word):
    assert check_name(word) == word
    assert parse_classes(f"pallet, {word}") == ["pallet", word.lower()]


def test_a_word_of_a_given_prompt_may_bring_its_article():
    assert ask([["the dog"]], prompts=["the dog on grass"])[0].words == ["the dog"]


@pytest.mark.parametrize("value", [None, 7, True])
def test_what_is_no_list_is_asked_for_by_nobody(value):
    with pytest.raises(ValueError, match="expected the words of each picture in a list"):
        ask(value)


# Files


@pytest.mark.parametrize(
    "given, match",
    [
        ({"image_mean": [0.5] * 3, "image_std": [None, 0.5, 0.5]}, "image_std"),
        ({"image_mean": "x", "image_std": [0.5] * 3}, "image_mean"),
        ({"rescale_factor": "x"}, "rescale_factor"),
        ({"rescale_factor": 0}, "above 0"),
        ({"rescale_factor": True}, "rescale_factor"),
    ],
)
def test_a_preprocessor_of_other_values_is_refused(given, match):
    with pytest.raises(ValueError, match=f"a backbone: its preprocessor_config.json .*{match}"):
        normalisation(given, "a backbone")


def test_a_pickle_whose_length_is_damaged_is_damaged(tmp_path):
    data = bytearray(pickle.dumps({"model": {}}, 4))
    data[8] = 1  # the length of its frame: 2**48 more
    (tmp_path / "w.pkl").write_bytes(data)
    with pytest.raises(ValueError, match="w.pkl is damaged"):
        load_weights(tmp_path / "w.pkl")


@pytest.mark.parametrize(
    "text",
    [
        "&a {seed: *a}",
        "seen: &a [dog, *a]",
        "a: &a [x, x, x]\n"
        + "".join(
            f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n"
            for a, b in zip("abcdefg", "bcdefgh", strict=True)
        ),
    ],
)
def test_yaml_that_has_no_end_is_refused(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"x.yaml: more than 100,000 values, or aliases"):
        read_yaml(tmp_path / "x.yaml")


@pytest.mark.parametrize("text", ["", "[]", "null", "7", "{", "[" * 100_000])
def test_json_that_is_no_object_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="config.json is damaged"):
        read_object(tmp_path / "config.json")
    with pytest.raises(Damaged, match="config.json"):
        read_json(tmp_path / "config.json", {"a": int})


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), ZeroDivisionError(), RecursionError(), type("Strict", (Exception,), {})("odd")],
)
def test_what_a_library_makes_of_a_configuration_is_one_error(error):
    with (
        pytest.raises(ValueError, match="the model: no model can be made of it"),
        configured("the model"),
    ):
        raise error
    for other in (MemoryError(), ImportError("sentencepiece"), FileNotFoundError()):
        with pytest.raises(type(other)), configured("the model"):
            raise other


def test_class_lists_of_other_shapes_are_refused(tmp_path):
    file = tmp_path / "classes.txt"
    for text in ("forklift, pallet\n", '["forklift", "pallet"]\n'):
        file.write_text(text)
        with pytest.raises(ValueError, match="line 1: .*one line of several names"):
            read_classes(file)
    file.write_text("# ours\n#ff0000 forklift\n")
    with pytest.raises(ValueError, match="line 2: '#ff0000 forklift' begins with a colour"):
        read_palette(file)
    file.write_text("\n")
    with pytest.raises(ValueError, match="classes.txt lists no picture"):
        read_list(file, "a yard")


@pytest.mark.parametrize("target", ["", " ", "/", "."])
def test_a_run_config_needs_a_file_s_name(target, capsys):
    assert run_config.main(["--write", target]) == 2
    assert "--write: expected a file" in capsys.readouterr().err


# The workspace


@pytest.mark.parametrize("name", [".shard-00099.json", ".mine.tmp", ".notes.2.txt"])
def test_a_user_s_file_that_looks_like_a_note_of_ours_is_kept(small, name):
    run, workspace, _ = small
    run("one")
    (workspace.folder("one") / name).write_text("mine")
    run("one", 1, True)
    left = list(workspace.data.rglob(name))
    assert [path.read_text() for path in left] == ["mine"]


@pytest.mark.parametrize(
    "place", [".making/one.state", ".making/one", ".one.replaced", ".state/one/mine", ".making"]
)
@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_stands_where_a_stage_writes_is_refused_and_stays(small, tmp_path, place, kind):
    run, workspace, _ = small
    run("one")
    path, away = workspace.data / place, tmp_path / "away"
    away.mkdir()
    (away / "photo.jpg").write_text("mine")
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(away) if kind == "link" else shutil.copytree(away, path)
    if (place, kind) == (".making", "folder"):
        run("one", 1, True)  # beside what the user put there
    else:
        with pytest.raises((ManifestError, ValueError), match="is in the way"):
            run("one", 1, True)
    assert (path / "photo.jpg").read_text() == "mine" and path.is_symlink() == (kind == "link")
    assert (away / "photo.jpg").read_text() == "mine"


def test_a_link_that_stands_where_the_old_folder_is_kept_is_no_old_folder(tmp_path):
    (tmp_path / ".one.replaced").symlink_to("nowhere")
    (tmp_path / "one").mkdir()
    with pytest.raises(ValueError, match="is in the way"):
        settle(tmp_path / "one")
    assert os.path.lexists(tmp_path / ".one.replaced")


def test_a_lock_is_not_written_through_a_link(tmp_path):
    mine = tmp_path / "holiday.jpg"
    mine.write_text("mine")
    (tmp_path / ".locks").mkdir()
    (tmp_path / ".locks" / "one").symlink_to(mine)
    with FolderLock(tmp_path, "one") as lock, pytest.raises(ValueError, match="in the way"):
        lock.write()
    assert mine.read_text() == "mine"
