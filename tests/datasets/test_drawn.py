"""The drawn world as a data set: what it hands out are the scenes themselves, in our labels."""

import dataclasses

import numpy as np
import pytest

from ml.datasets import data_digest, open_source
from ml.datasets.protocol import NoSuchPart
from ml.drawn_world import benchmark
from ml.drawn_world.world import CLASSES, draw_scene
from ml.images.png import decode_png
from ml.settings.profile import load_params
from ml.words.vocabulary import Vocabulary, load_vocabulary

PETS = Vocabulary("pets", ("cat", "dog"), ("car",), {})
VOC = load_vocabulary("voc-zs3")


def opened(part: str, source: str = "drawn"):
    return open_source(dataclasses.replace(load_params().benchmark, source=source), part, None)


def test_the_test_part_is_the_benchmark_in_its_order():
    pictures = opened("test")
    scenes = list(benchmark.benchmark_scenes())
    assert len(pictures.keys) == len(scenes) == 400 and pictures.keys[7] == "benchmark-000007"
    pictures.check(pictures.keys, "official", VOC)
    samples = list(pictures.read(pictures.keys[195:205], VOC))
    for sample, scene in zip(samples, scenes[195:205], strict=True):
        assert np.array_equal(sample.image, scene.image)
        assert np.array_equal(decode_png(sample.data), scene.image)
        assert (sample.text, sample.entities) == (scene.caption, scene.classes)
        for name, mask in zip(scene.classes, scene.masks, strict=True):
            assert np.array_equal(sample.label == VOC.label(name), mask)


def test_classes_that_the_vocabulary_lacks_are_ignored():
    pictures = opened("test")
    assert pictures.labelled_classes(Vocabulary("v", ("zebra", "dog"), ("tv",), {})) == ("dog",)
    found = set()
    for sample in pictures.read(pictures.keys[200:240], PETS):
        assert set(sample.entities) == {
            name for name in PETS.classes if (sample.label == PETS.label(name)).any()
        }
        found |= set(np.unique(sample.label).tolist())
    assert found == {0, 1, 2, 3, 255}


def test_training_scenes_show_what_was_dealt_from_seeds_of_their_own():
    pictures = opened("train")
    keys = pictures.choose([1, 2, 3, 1], VOC, 0)
    assert len(set(keys)) == 4 and keys == pictures.choose([1, 2, 3, 1], VOC, 0)
    assert keys != pictures.choose([1, 2, 3, 1], VOC, 1)
    for index, (key, sample) in enumerate(zip(keys, pictures.read(keys, VOC), strict=True)):
        assert len(sample.entities) == [1, 2, 3, 1][index]
        dealt = key.partition(":")[2].split("+")
        assert set(sample.entities) == set(dealt) <= set(CLASSES)
        assert np.array_equal(sample.image, draw_scene(30_000_000 + index, classes=dealt).image)
    with pytest.raises(ValueError, match="cannot draw.*zebra"):
        pictures.choose([1], Vocabulary("mine", ("zebra", "dog"), (), {}), 0)


def test_a_changed_drawing_is_refused(monkeypatch):
    pictures = opened("test")
    monkeypatch.setattr(benchmark, "BENCHMARK_SHA256", "0" * 64)
    with pytest.raises(RuntimeError, match="the benchmark has changed"):
        pictures.check(pictures.keys, "any", VOC)
    with pytest.raises(ValueError, match="lists none of the benchmark's classes"):
        pictures.check(pictures.keys, "any", Vocabulary("zoo", ("zebra",), ("lion",), {}))


def test_nothing_of_it_lies_on_disk():
    assert opened("test").digest() is None and opened("test").facts() == {}
    assert data_digest(load_params().benchmark, "train", None) is None
    with pytest.raises(NoSuchPart, match="benchmark.source is none"):
        opened("test", "none")
