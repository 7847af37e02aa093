"""`python -m ml init`: which words become seen and unseen, what is written, what is refused; and
profiles that build upon profiles."""

import shutil

import numpy as np
import pytest
import yaml

from ml.__main__ import main
from ml.cli.own_words import profile
from ml.cli.own_words.classes import parse_classes
from ml.cli.own_words.profile import make_profile
from ml.cli.own_words.vocabulary import World, choose
from ml.pipeline.runner import run_stage
from ml.settings.profile import ROOT, load_params
from ml.store.shards import read_shards
from ml.words import coco
from ml.words.spellings import canonical
from ml.words.vocabulary import load_vocabulary
from tests.builders.own_pictures import label_map, scenes_of, write_folder

BIG = "diffusion: {model: some/hub-id, dtype: float16}\nprompts: {train_one: 40, train_two: 50}\n"
"""A profile whose diffusion model is not the micro one; the shipped sd15 is like that."""


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A checkout with params.yaml and a profile "big", as the current folder."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "big.yaml").write_text(BIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(root, *arguments) -> int:
    return main(["init", "--root", str(root), *arguments])


# Profiles that build upon profiles


def test_a_profile_builds_upon_another(root):
    profiles = root / "profiles"
    (profiles / "mid.yaml").write_text("base: big\nprompts: {train_one: 7}\nseed: 3\n")
    (profiles / "mine.yaml").write_text("base: mid\nprompts: {sim_per_cell: 2}\n")
    mine = load_params("mine", root)
    assert mine.profile == "mine" and mine.seed == 3
    assert (mine.diffusion.model, mine.diffusion.dtype) == ("some/hub-id", "float16")
    assert (mine.prompts.train_one, mine.prompts.train_two, mine.prompts.sim_per_cell) == (7, 50, 2)
    assert mine.grounding == load_params("micro", root).grounding
    (profiles / "own.yaml").write_text("base: micro\nseed: 5\n")
    assert load_params("own", root).seed == 5


@pytest.mark.parametrize(
    "files, match",
    [
        ({"a": "base: b\n", "b": "base: a\n"}, "circle: .*a.yaml -> .*b.yaml -> .*a.yaml"),
        ({"a": "base: a\n"}, "circle: .*a.yaml -> .*a.yaml"),
        ({"a": "base: sd16\n"}, r"unknown profile 'sd16' \(the base of .*a.yaml\)"),
        ({"a": "base: 7\n"}, "base: expected the name of a profile, got 7"),
    ],
)
def test_bases_that_lead_nowhere_are_refused(root, files, match):
    for name, text in files.items():
        (root / "profiles" / f"{name}.yaml").write_text(text)
    with pytest.raises(ValueError, match=match):
        load_params("a", root)


def test_a_fault_is_reported_in_the_file_that_has_it(root):
    (root / "profiles" / "bad.yaml").write_text("prompts: {train_on: 1}\n")
    (root / "profiles" / "a.yaml").write_text("base: bad\n")
    with pytest.raises(ValueError, match="bad.yaml, line 1: unknown setting 'prompts.train_on'"):
        load_params("a", root)


# Words


def test_coco_has_80_classes_by_our_names():
    assert len(set(coco.CLASSES)) == 80 and set(coco.SEEN) <= set(coco.CLASSES)
    assert all(canonical(name) == name for name in coco.CLASSES)
    assert set(load_vocabulary("voc-1").classes) <= set(coco.SEEN)


def test_known_words_are_seen_new_ones_unseen():
    world = World("COCO", coco.CLASSES, coco.SEEN, False)
    vocabulary, notes = choose(["forklift", "couch", "fire hydrant", "hard hat"], world, "x")
    assert vocabulary.unseen == ("forklift", "hard hat")
    assert set(vocabulary.seen) == {*coco.SEEN, "fire hydrant"}
    assert vocabulary.words["sofa"] == ("couch", "sofa")  # as the user says it, first
    assert [note.split(":")[0] for note in notes] == ["sofa", "fire hydrant"]
    assert "the detector knows it already" in notes[0]


def test_a_seen_class_that_cannot_be_told_from_a_word_is_left_out():
    world = World("COCO", coco.CLASSES, coco.SEEN, False)
    vocabulary, notes = choose(["car seat", "bus stop", "wardrobe"], world, "x")
    assert not {"car", "bus"} & set(vocabulary.seen) and "chair" in vocabulary.seen
    assert any(note.startswith("car: left out") and "'car seat'" in note for note in notes)
    assert vocabulary.unseen == ("car seat", "bus stop", "wardrobe")


@pytest.mark.parametrize(
    "text, match",
    [
        ("", "expected words separated by commas.*got ''"),
        (" , ,", "expected words separated by commas"),
        ("forklift,,pallet", "nothing stands between two commas"),
        ("forklift, Forklift", "'forklift' and 'forklift' are one class"),
        ("couch, sofa", "'couch' and 'sofa' are one class; name it once"),
        ("hat, hard hat", "'hat' is part of 'hard hat'"),
        ("hat, hat rack", "'hat' is part of 'hat rack'.*cannot be told apart"),
        ("fork_lift", "'fork_lift' cannot be a class; expected letters and digits"),
        ("a/b", "cannot be a class"),
        ("background", "cannot be a class"),
    ],
)
def test_words_that_do_not_do(root, capsys, text, match):
    with pytest.raises(ValueError, match=match):
        parse_classes(text)
    assert init(root, "--classes", text, "--profile", "big") == 2
    assert capsys.readouterr().err.startswith("error: --classes")
    assert not (root / "profiles" / "words").exists()


def test_words_that_only_share_letters_are_fine():
    assert parse_classes("hat, hatch, 3D-printer, Läufer") == [
        "hat",
        "hatch",
        "3d-printer",
        "läufer",
    ]


# The files


def test_a_profile_for_new_words(root, capsys):
    (root / "mine.txt").write_text("# mine\na red forklift in the rain\na dog beside a pallet\n")
    done = init(
        root,
        "--classes",
        "forklift, pallet, hard hat, no",
        "--profile",
        "big",
        "--texts",
        "mine.txt",
    )
    said = capsys.readouterr()
    assert done == 0, said.err
    name = "forklift-pallet-hard-hat-no"
    params, big = load_params(name, root), load_params("big", root)
    assert params.diffusion == big.diffusion and params.benchmark.source == "none"
    assert params.vocabulary == f"profiles/words/{name}.yaml"
    assert (params.prompts.attribute_share, params.prompts.scene_share) == (0.4, 0.6)
    vocabulary = load_vocabulary(params.vocabulary)
    assert vocabulary.unseen == ("forklift", "pallet", "hard hat", "no")  # YAML's `no` is false
    assert set(vocabulary.seen) == set(coco.SEEN)
    report = run_stage("prompts", params, root)
    assert report.facts["texts"]["lines"] == 2 and report.facts["texts"]["lines_unused"] == 0
    rows = read_shards(root / "data" / name / "prompts")
    train = {entity for names in rows[rows.purpose == "train"].entities for entity in names}
    assert train == set(coco.SEEN)
    assert "unseen (4): forklift, pallet, hard hat, no" in said.out
    assert f"next: python -m ml plan --profile {name}" in said.out


def test_the_same_flow_at_micro_size(root, capsys):
    """The drawn world knows every word it can draw, so the words asked for are held out."""
    assert init(root, "--classes", "dog, couch", "--profile", "micro", "--name", "pets") == 0
    params = load_params("pets", root)
    vocabulary = load_vocabulary(params.vocabulary)
    assert vocabulary.unseen == ("dog", "sofa") and len(vocabulary.seen) == 18
    assert params.prompts == load_params("micro", root).prompts  # no words it was not taught
    assert params.benchmark.source == "none" and params.benchmark.root is None
    report = run_stage("prompts", params, root)
    assert report.facts["cells"]["sim"]["two_unseen"] == params.prompts.sim_per_cell
    assert init(root, "--classes", "forklift, dog", "--profile", "pets", "--name", "more") == 2
    assert "the drawn world has no ['forklift']" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["data/foundation/micro/transformer", None])
def test_every_model_of_the_drawn_world_draws_its_words(root, capsys, model):
    """However its folder is spelt; COCO's seen classes, which it cannot draw, are not brought."""
    model = model or f"{ROOT}/data/../data/foundation/micro/diffusion"
    (root / "profiles" / "other.yaml").write_text(f"diffusion: {{model: {model}}}\n")
    assert init(root, "--classes", "dog, sofa", "--profile", "other", "--name", "pets") == 0
    vocabulary = load_vocabulary(root / "profiles" / "words" / "pets.yaml")
    assert vocabulary.unseen == ("dog", "sofa") and len(vocabulary.seen) == 18
    assert init(root, "--classes", "forklift", "--profile", "other", "--name", "more") == 2
    assert "the drawn world has no ['forklift']" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["no", "007", "1_0", "2020-01-01", "2020-99-99", "sd15"])
def test_names_that_yaml_takes_for_something_else(root, name):
    assert init(root, "--classes", "forklift", "--profile", "big", "--name", name) == 0
    assert load_params(name, root).vocabulary == f"profiles/words/{name}.yaml"
    assert load_vocabulary(root / "profiles" / "words" / f"{name}.yaml").name == name
    if name == "sd15":  # others stay as people write them
        assert "\nname: sd15\n" in (root / "profiles" / "words" / "sd15.yaml").read_text()


@pytest.mark.parametrize("base", ["no", "my #1: x/base.yaml", "line\nend/base.yaml", "big"])
def test_bases_that_yaml_takes_for_something_else(root, base):
    file = root / (base if base.endswith(".yaml") else f"profiles/{base}.yaml")
    file.parent.mkdir(exist_ok=True)
    file.write_text(BIG)
    named = str(file) if base.endswith(".yaml") else base
    assert init(root, "--classes", "forklift", "--profile", named, "--name", "mine") == 0
    assert load_params("mine", root).diffusion.model == "some/hub-id"
    if base == "big":
        assert "\nbase: big\n" in (root / "profiles" / "mine.yaml").read_text()


def test_nothing_is_overwritten(root, capsys):
    assert init(root, "--classes", "forklift", "--profile", "big", "--name", "mine") == 0
    before = (root / "profiles" / "mine.yaml").read_text()
    assert init(root, "--classes", "pallet", "--profile", "big", "--name", "mine") == 2
    assert "profile 'mine' exists" in capsys.readouterr().err
    assert (root / "profiles" / "mine.yaml").read_text() == before
    assert init(root, "--classes", "pallet", "--profile", "big", "--name", "micro") == 2
    assert "'micro' exists" in capsys.readouterr().err


def test_of_two_at_once_one_gets_the_name(root, capsys, monkeypatch):
    """The other one finds its files while it writes, however early it looked."""

    def slow(*given):
        monkeypatch.setattr(profile, "choose", choose)
        assert init(root, "--classes", "pallet", "--profile", "big", "--name", "race") == 0
        return choose(*given)

    monkeypatch.setattr(profile, "choose", slow)
    assert init(root, "--classes", "forklift", "--profile", "big", "--name", "race") == 2
    file = root / "profiles" / "words" / "race.yaml"
    assert f"profile 'race' exists ({file}): choose another" in capsys.readouterr().err
    assert load_vocabulary(file).unseen == ("pallet",)
    assert "pallet" in (root / "profiles" / "race.yaml").read_text()
    assert sorted(p.name for p in file.parent.iterdir()) == ["race.yaml"]


def test_what_is_there_by_then_is_left_alone_and_nothing_half_written(root, monkeypatch):
    folder = root / "profiles"
    contents = {folder / "mine.yaml": "base: big", folder / "words" / "mine.yaml": "seen: [a]"}
    (folder / "mine.yaml").symlink_to("nowhere")
    with pytest.raises(ValueError, match="profile 'mine' exists"):
        profile.write_new(contents, "mine")
    assert list((folder / "words").iterdir()) == []
    assert sorted(p.name for p in folder.iterdir()) == ["big.yaml", "mine.yaml", "words"]


def test_a_file_in_the_place_of_the_folder_leaves_nothing(root, capsys):
    (root / "profiles" / "words").write_text("")
    assert init(root, "--classes", "forklift", "--profile", "big", "--name", "mine") == 2
    assert "words is no folder, expected one or nothing there" in capsys.readouterr().err
    assert sorted(p.name for p in (root / "profiles").iterdir()) == ["big.yaml", "words"]


@pytest.mark.parametrize(
    "arguments, match",
    [
        (["--profile", "sd16"], "unknown profile 'sd16': expected 'micro', one of ['big']"),
        (["--profile", "big", "--name", "My words"], "--name 'My words': expected small letters"),
        (["--profile", "big", "--name", "foundation"], "and not foundation or real"),
        (["--profile", "big", "--texts", "none.txt"], "no file none.txt"),
        (["--profile", "big", "--texts", "bad.txt"], "line 2: 'a tree' names no class"),
        (["--profile", "big", "--classes", "old dog, forklift"], None),
    ],
)
def test_other_errors_write_nothing(root, capsys, arguments, match):
    (root / "bad.txt").write_text("a forklift\na tree\n")
    done = init(root, "--classes", "forklift", *arguments)
    if match is None:  # "old dog" is what attributes make of "dog": the seen class is left out
        assert done == 0 and "dog: left out" in capsys.readouterr().out
        return
    assert done == 2 and match in capsys.readouterr().err
    assert sorted(p.name for p in (root / "profiles").iterdir()) == ["big.yaml"]


def test_only_known_words_leave_nothing_unseen(root):
    files, vocabulary, notes = make_profile("cat, dog", "big", "pets", None, root)
    assert vocabulary.unseen == () and len(notes) == 2
    assert yaml.safe_load(files[1].read_text())["unseen"] == []


# Labels of one's own


def own_labels(folder, *shown):
    classes = ("forklift", "dog", "unicorn")
    scenes = scenes_of(*(["dog"] for _ in shown))
    maps = [np.where(label_map(s, ("dog",)) > 0, n, 0) for s, n in zip(scenes, shown, strict=True)]
    maps = [label.astype(np.uint8) for label in maps]
    return write_folder(folder, scenes, classes, labels=maps)


def test_labels_make_new_words_labelled_and_known_ones_richer(root, capsys):
    """Of words that no detector knows those with masks are `labelled`, the others stay unseen."""
    folder = own_labels(root / "mine", 1, 1, 2, 3)
    assert init(root, "--classes", "forklift, hard hat, dog", "--profile", "big", "--name", "yard",
                "--labels", str(folder)) == 0  # fmt: skip
    out = capsys.readouterr().out
    assert "labelled (1): forklift" in out and "unseen (1): hard hat" in out
    assert "forklift: your masks in 2 of 4 pictures alone teach it" in out
    assert "dog: your masks in 1 pictures teach it beside the detector's" in out
    assert "unicorn: is labelled, and no word of this profile: ignored" in out
    params = load_params("yard", root)
    assert params.triplets.labels == "mine" and params.triplets.labels_format == "auto"
    words = load_vocabulary(root / params.vocabulary)
    assert words.labelled == ("forklift",) and words.unseen == ("hard hat",)
    assert "dog" in words.seen and "forklift" in words.taught


def test_the_words_are_those_of_the_labels_where_none_are_named(root, capsys):
    folder = own_labels(root / "mine", 1, 2)
    assert init(root, "--labels", str(folder), "--profile", "big") == 0
    assert load_params("forklift-dog", root).triplets.labels == "mine"
    for arguments in ([], ["--labels", "nowhere", "--name", "none"]):
        assert init(root, "--profile", "big", *arguments) == 2
    error = capsys.readouterr().err
    assert "expected --classes, --labels, or both" in error and "no folder 'nowhere'" in error
    assert not (root / "profiles" / "none.yaml").exists()
