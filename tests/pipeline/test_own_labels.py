"""A user's own pictures with masks, as labels to learn from: drawn scenes, whose exact masks are
known, brought as a folder to the stage `triplets` and to what follows."""

import dataclasses
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from ml.app.browsing import Sets
from ml.diffusion.latents import add_noise, encode_images
from ml.diffusion.loading import load_pipeline
from ml.drawn_world.benchmark import benchmark_scenes
from ml.images.crops import cut, fullest_window
from ml.images.png import decode_png
from ml.images.run_lengths import decode_rle
from ml.pipeline.audited import audited
from ml.pipeline.labelled import LabelledMaker, open_labels
from ml.pipeline.labelled_samples import labelled_samples
from ml.pipeline.marks import MARKED, Mark, add_marks, picture_sha256
from ml.pipeline.recipe import recipe_of
from ml.pipeline.runner import run_stage
from ml.pipeline.samples import load_samples
from ml.pipeline.table import STAGE
from ml.pipeline.workspace import Workspace
from ml.settings.profile import ROOT, load_params
from ml.store.manifest import read_manifest
from ml.store.shards import read_shards
from ml.store.sidecars import OWN
from ml.words.vocabulary import Vocabulary, load_vocabulary
from tests.builders import handmade, tiny_graph
from tests.builders.handmade import data_stages
from tests.builders.own_pictures import label_map, scenes_of, write_folder

CLASSES = ("cat", "bird", "bottle")  # seen in voc-1
PAIRS = (["cat"], ["bird"], ["cat", "bottle"], ["bird", "cat"])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Workspace:
    """Everything up to triplets of the ci profile, of drawn scenes."""
    return data_stages(tmp_path_factory.mktemp("own"))


@pytest.fixture
def workspace(drawn, tmp_path) -> Workspace:
    for part in (f"data/{drawn.profile}", "data/foundation"):
        shutil.copytree(drawn.root / part, tmp_path / part)
    return Workspace(tmp_path, drawn.profile)


def settings(labels, benchmark="none", **changes):
    """benchmark: whose pictures are kept out; the drawn one's take a second to draw."""
    params = load_params("ci")
    triplets = dataclasses.replace(params.triplets, labels=str(labels))
    tested = dataclasses.replace(params.benchmark, source=benchmark)
    return dataclasses.replace(params, triplets=triplets, benchmark=tested, **changes)


def own_rows(workspace):
    rows = read_shards(workspace.folder("triplets"))
    return rows[rows.subset == OWN].reset_index(drop=True)


def test_the_masks_arrive_to_the_pixel_and_judge_nothing(workspace, tmp_path):
    scenes = scenes_of(*PAIRS)
    before = read_shards(workspace.folder("triplets"))
    folder = write_folder(tmp_path / "own", scenes, CLASSES)
    facts = run_stage("triplets", settings(folder), tmp_path)
    rows = own_rows(workspace)
    expected = [
        (f"own-{i:06d}", name, scene.masks[scene.classes.index(name)])
        for i, scene in enumerate(scenes)
        for name in sorted(scene.classes)
    ]
    assert list(zip(rows.key, rows.entity, strict=True)) == [own[:2] for own in expected]
    for row, (_, _, mask) in zip(rows.itertuples(), expected, strict=True):
        assert row.accepted and np.array_equal(decode_rle(row.rle), mask)
        assert row.area == mask.mean()
    assert set(rows.purpose) == {OWN} and set(rows.cell) == {""}
    assert list(rows.text)[2] == "a photograph of a bottle and a cat"
    pictures = read_shards(workspace.folder("triplets") / OWN)
    assert all(
        np.array_equal(decode_png(data), scene.image)
        for data, scene in zip(pictures.image, scenes, strict=True)
    )
    others = read_shards(workspace.folder("triplets"))
    assert len(others) == len(before) + len(rows)
    samples = load_samples(workspace, ["train", "validation", "sim"])
    assert not [s for s in samples if s.key.startswith("own")]
    own = facts.facts["labelled"]
    assert own["pictures"] == own["pictures_accepted"] == 4 and own["accepted"] == len(rows)
    assert own["accepted_by_class"] == {"bird": 2, "bottle": 1, "cat": 3}
    assert (workspace.folder("triplets") / "labelled.jpg").is_file()
    files = read_manifest(workspace.folder("triplets")).files
    assert files["labelled/shard-00000.parquet"]["rows"] == 4


def test_a_larger_and_a_wider_picture_keep_their_proportions(workspace, tmp_path):
    """Twice as large is brought back to the pixel; of a wide one the part with masks is kept."""
    (scene,) = scenes_of(["cat"])
    truth = label_map(scene, CLASSES)
    twice = [np.repeat(np.repeat(a, 2, 0), 2, 1) for a in (scene.image, truth)]
    (other,) = scenes_of(["bird"], start=7100)
    wide = np.concatenate([other.image[:, ::-1], other.image, other.image[:, ::-1]], axis=1)
    mapped = np.zeros((64, 192), np.uint8)
    mapped[:, 128:] = label_map(other, CLASSES)[:, ::-1]
    folder = write_folder(
        tmp_path / "own", [], CLASSES, labels=[twice[1], mapped], images=[twice[0], wide]
    )
    run_stage("triplets", settings(folder), tmp_path)
    first, second = own_rows(workspace).rle.map(decode_rle)
    assert np.array_equal(first, truth > 0)
    assert second.shape == (64, 64) and second.sum() == (mapped > 0).sum()


def test_the_fullest_window_by_hand():
    marked = np.zeros((10, 30), bool)
    assert fullest_window(marked, (64, 64)) == (0, 10, 10, 10)  # nothing marked: the middle
    marked[2, 25] = True
    assert fullest_window(marked, (64, 64)) == (0, 16, 10, 10)  # the nearest that holds it
    marked[:, 3:5] = True
    assert fullest_window(marked, (64, 64)) == (0, 4 - 1, 10, 10)
    assert fullest_window(marked.T, (64, 64)) == (3, 0, 10, 10)
    assert fullest_window(marked, (10, 30)) == (0, 0, 10, 30)
    image = np.dstack([marked * np.uint8(200)] * 3)
    shown, mapped = cut(image, marked.astype(np.uint8), (10, 10), marked)
    assert np.array_equal(shown, image[:, 3:13]) and np.array_equal(mapped, marked[:, 3:13])


def test_every_reason_is_given_and_counted(workspace, tmp_path):
    """A benchmark's scene mirrored, a flat picture, a picture that was generated, one that is there
    twice, and a speck."""
    good, speck = scenes_of(["cat"], ["bird"])
    bench = next(benchmark_scenes())
    made = read_shards(workspace.folder("images"), ["image"]).image[0]
    box = np.zeros((64, 64), np.uint8)
    box[20:40, 20:40] = 1
    dot = np.zeros((64, 64), np.uint8)
    dot[5, 5] = 2
    whole = np.full((64, 64), 3, np.uint8)
    flat = np.full((64, 64, 3), 128, np.uint8)
    images = [
        good.image, bench.image[:, ::-1], flat, decode_png(made), good.image, speck.image,
        scenes_of(["bottle"], start=7200)[0].image,
    ]  # fmt: skip
    labels = [box, box, box, box, box, dot, whole]
    folder = write_folder(tmp_path / "own", [], CLASSES, labels=labels, images=images)
    report = run_stage("triplets", settings(folder, "drawn"), tmp_path)
    assert list(own_rows(workspace).reason) == [
        "", "benchmark_copy", "blank_picture", "repeated_picture", "repeated_picture",
        "too_small", "too_large",
    ]  # fmt: skip
    own = report.facts["labelled"]
    assert own["rejected"] == {
        "benchmark_copy": 1, "blank_picture": 1, "repeated_picture": 2, "too_many_words": 0,
        "too_small": 1, "too_large": 1,
    }  # fmt: skip
    assert own["rejected_by_class"]["too_small"] == {"bird": 1}


def test_a_mask_of_ones_own_that_somebody_marked_wrong_teaches_nothing(workspace, tmp_path):
    params = settings(write_folder(tmp_path / "own", scenes_of(*PAIRS), CLASSES))
    run_stage("triplets", params, tmp_path)
    pictures = read_shards(workspace.folder("triplets") / OWN)
    digest = picture_sha256(pictures.image[2])
    add_marks(workspace, [Mark("triplets", digest, pictures.key[2], "cat", "wrong mask")])
    own = run_stage("triplets", params, tmp_path).facts["labelled"]
    assert own["rejected_by_class"] == {MARKED: {"cat": 1}} and own["rejected"][MARKED] == 1
    rows = own_rows(workspace)
    assert list(rows[~rows.accepted].key) == [pictures.key[2]]
    assert audited(workspace, "triplets").all["wrong mask"] == 1
    shown = Sets(workspace, load_vocabulary("voc-1")).page("triplets", MARKED, "", 1).items
    assert [(item.key, item.word) for item in shown] == [(pictures.key[2], "cat")]


def test_pictures_without_a_mask_and_words_of_no_vocabulary_are_counted(workspace, tmp_path, capfd):
    scenes = scenes_of(["cat"], ["bird"])
    labels = [label_map(scenes[0], CLASSES), np.zeros((64, 64), np.uint8)]
    labels[0][:3] = 4  # a unicorn
    labels[0][60:] = 255
    folder = write_folder(
        tmp_path / "own", scenes, (*CLASSES, "unicorn"), labels=labels,
    )  # fmt: skip
    own = run_stage("triplets", settings(folder), tmp_path).facts["labelled"]
    assert own["pictures_without_mask"] == 1 and own["first_without_mask"] == ["01"]
    assert own["not_in_vocabulary"] == {"unicorn": 1}
    assert "'unicorn'" in capfd.readouterr().err
    ignored = decode_rle(read_shards(workspace.folder("triplets") / OWN).ignored[0])
    assert np.array_equal(ignored, np.isin(labels[0], (4, 255)))  # nothing is learned from them


def test_masks_of_unseen_words_are_refused_until_the_vocabulary_says_labelled(
    workspace, tmp_path, monkeypatch
):
    voc = load_vocabulary("voc-1")
    folder = write_folder(tmp_path / "own", scenes_of(["dog"]), ("dog",))
    with pytest.raises(ValueError, match=r"masks of 'dog'.*under `unseen:`.*move 'dog'.*labelled"):
        run_stage("triplets", settings(folder), tmp_path)
    unseen = [name for name in voc.unseen if name != "dog"]
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump({"seen": list(voc.seen), "unseen": unseen, "labelled": ["dog"]}))
    own = load_vocabulary(file)
    assert own.taught == (*voc.seen, "dog") and own.classes == voc.classes
    assert own.digest != voc.digest
    params = settings(folder, vocabulary=str(file))
    again = lambda w: dataclasses.replace(params, profile=w.profile)  # noqa: E731
    monkeypatch.setattr(handmade, "params_of", again)
    made = data_stages(tmp_path / "again")
    report = run_stage("triplets", params, made.root, force=True)
    assert report.facts["labelled"]["accepted_by_class"] == {"dog": 1}
    without = dataclasses.replace(params, triplets=load_params("ci").triplets)
    for stage in ("prompts", "triplets"):
        with pytest.raises(ValueError, match=r"'dog'.*`labelled:`.*triplets\.labels is null"):
            run_stage(stage, without, made.root, force=True)
    empty = write_folder(tmp_path / "none", scenes_of(["cat"]), ("cat",))
    with pytest.raises(ValueError, match=r"'dog'.*has no mask of it"):
        run_stage("triplets", settings(empty, vocabulary=str(file)), made.root)


def test_a_vocabulary_without_labelled_words_has_the_digest_it_had():
    plain = Vocabulary("x", ("cat",), ("dog",), {"cat": ("cat",), "dog": ("dog",)})
    assert plain.taught == ("cat",)
    assert load_vocabulary("voc-1").digest.startswith("be9c6f15aeff62e1")


def test_the_recipe_knows_the_folder_by_its_content(workspace, tmp_path):
    def recipe(params):
        return recipe_of(STAGE["triplets"], params, workspace)

    folder = write_folder(tmp_path / "own", scenes_of(*PAIRS), CLASSES)
    first = recipe(settings(folder))
    assert first["params"]["benchmark.source"] == "none"  # whose pictures are kept out
    moved = tmp_path / "elsewhere" / "own"
    shutil.copytree(folder, moved)
    assert recipe(settings(moved))["inputs"] == first["inputs"]
    path = folder / "images" / "00.png"
    pixels = np.array(Image.open(path))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(path)
    assert recipe(settings(folder))["inputs"] != first["inputs"]
    assert "triplets.labels" not in recipe(load_params("ci"))["inputs"]


def test_a_folder_that_is_not_there_or_a_mask_of_another_size_is_refused(workspace, tmp_path):
    with pytest.raises(ValueError, match=r"triplets\.labels: no folder .*nowhere"):
        run_stage("triplets", settings(tmp_path / "nowhere"), tmp_path)
    folder = write_folder(tmp_path / "own", scenes_of(*PAIRS), CLASSES)
    Image.fromarray(np.ones((64, 65), np.uint8)).save(folder / "masks" / "01.png")
    with pytest.raises(ValueError, match=r"01\.png is 64x64 pixels, its labels 65x64"):
        run_stage("triplets", settings(folder), tmp_path)


def test_prompts_longer_than_the_model_reads_are_a_reason(workspace, tmp_path):
    voc = load_vocabulary("voc-1")
    names = voc.seen[:9]
    label = np.zeros((64, 64), np.uint8)
    for i in range(len(names)):
        label[7 * i : 7 * i + 6] = i + 1
    folder = write_folder(
        tmp_path / "own", [], names, labels=[label], images=[scenes_of(["cat"])[0].image]
    )
    photos = open_labels(settings(folder), workspace)
    here = Workspace(ROOT, "ci")  # whose model is real
    maker = LabelledMaker(settings(folder), here, voc, photos, (64, 64))
    row = maker([(0, photos.keys[0])]).iloc[0]
    assert len(row["words"]) == 9 and row["too_many_words"]


def test_own_pictures_are_encoded_as_given_ones_and_train_alone(workspace, tmp_path):
    scenes = scenes_of(*PAIRS)
    run_stage("triplets", settings(write_folder(tmp_path / "own", scenes, CLASSES)), tmp_path)
    pipe = load_pipeline(Workspace(ROOT, "ci").located(load_params("ci").diffusion))
    samples = labelled_samples(pipe, workspace, 66, batch_size=3)
    assert [s.subset for s in samples] == ["train"] * 4
    clean = encode_images(pipe, np.stack([s.image for s in scenes]))
    noised = add_noise(pipe, clean, 66, [s.seed for s in samples]).cpu().numpy()
    for sample, scene, latent in zip(samples, scenes, noised, strict=True):
        assert np.array_equal(sample.image, scene.image)
        assert np.abs(sample.latent - latent).max() < 1e-4 and sample.timestep == 66
        order = [scene.classes.index(name) for name in sample.entities]
        assert np.array_equal(sample.masks, scene.masks[order]) and sample.present.all()
    assert labelled_samples(pipe, Workspace(ROOT, "nothing"), 66, 3) == []


@pytest.mark.slow
def test_the_whole_graph_with_masks_of_ones_own(tmp_path):
    """Every stage for real, with a word that these masks alone teach: counted in the model's facts,
    named on the page, of no sim picture, found again by the same recipe."""
    voc = load_vocabulary("voc-1")
    words = tmp_path / "words.yaml"
    unseen = [name for name in voc.unseen if name != "dog"]
    lists = {"seen": list(voc.seen), "unseen": unseen, "labelled": ["dog"]}
    words.write_text(yaml.safe_dump(lists))
    scenes = scenes_of(["dog"], ["dog", "cat"], ["cat"], ["bird"])
    folder = write_folder(tmp_path / "<b>own", scenes, ("dog", "cat", "bird", "unicorn"))
    profile = yaml.safe_load(tiny_graph.PROFILE) | {"vocabulary": str(words)}
    profile["triplets"] |= {"labels": str(folder)}
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(profile))
    params = load_params(str(file))
    workspace = Workspace(tmp_path, params.profile)
    facts = {name: run_stage(name, params, tmp_path).facts for name in STAGE}
    own = facts["grounding_model"]["labelled"]
    assert own == {"pictures": 4, "masks": {"bird": 1, "cat": 2, "dog": 2}}
    assert facts["grounding_model"]["pictures"]["train"] > 4
    page = (workspace.folder("report") / "report.html").read_text()
    assert "Masks of your own" in page and "5 of your own on 4 pictures" in page
    assert "&lt;b&gt;own labels" in page and "<b>own" not in page
    assert "Your masks alone teach dog." in page
    sim = read_shards(workspace.folder("images"), ["purpose", "entities"])
    assert not sim[sim.purpose == "sim"].entities.explode().eq("dog").any()
    assert all(run_stage(name, params, tmp_path).cached for name in STAGE)
