"""Out of memory halves the batch and goes on, in every loop on the device, with the same results.

The device's memory is a limit on the rows that the U-Net takes: more, and torch's own error comes.
"""

import weakref

import numpy as np
import pytest
import torch

from ml.__main__ import main
from ml.compute.batching import Batches, is_out_of_memory
from ml.errors import OutOfMemory
from ml.grounding.features import FeatureSource, sample_evidence
from ml.grounding.samples import Sample
from ml.images.run_lengths import encode_rle
from ml.images.stored import Pictures
from ml.pipeline.stages.grounding_scores import ground_batches
from tests.builders.grounded import make_engine

PROMPTS = [
    "a photograph of a dog and a cat",
    "a photograph of a dining table",
    "a photograph of a bus",
    "a photograph of a horse and a red car",
]
WORDS = [["dog", "cat"], ["dining table"], ["bus"], ["horse", "car"]]
CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB"


def fits(limit: int, sizes: list[int]):
    def work(part):
        sizes.append(len(part))
        if len(part) > limit:
            raise torch.OutOfMemoryError(CUDA)
        return sum(part)

    return work


def test_halves_from_there_on_and_remembers():
    batches, sizes = Batches(8), []
    made = list(batches.run(range(10), fits(3, sizes)))
    assert sizes == [8, 4, 2, 2, 2, 2, 2] and batches.size == 2
    assert [list(part) for part, _ in made] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert [total for _, total in made] == [1, 5, 9, 13, 17]
    sizes.clear()
    list(batches.run([1, 2, 3], fits(3, sizes)))
    assert sizes == [2, 1]


SAID = (
    r"float16 \(of a diffusion transformer bfloat16\).*vae_tiling.*"
    r"\(of a U-Net diffusion.attention_slicing too\).*smaller.*CUDA"
)


def test_one_item_that_does_not_fit_says_what_to_change():
    with pytest.raises(OutOfMemory, match=SAID):
        list(Batches(4).run(range(4), fits(0, [])))
    with pytest.raises(ValueError, match="1 or more, got 0"):
        Batches(0)


def test_an_inner_loop_that_gave_up_is_not_tried_again():
    calls = []

    def outer(part):
        calls.append(len(part))
        return list(Batches(4).run(part, fits(0, [])))

    with pytest.raises(OutOfMemory, match="single item"):
        list(Batches(8).run(range(8), outer))
    assert calls == [8]


def test_other_errors_pass():
    def broken(part):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        list(Batches(4).run(range(4), broken))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))


def test_the_failed_batch_is_let_go_before_the_next_try():
    """The error's traceback would keep its tensors, and the half would not fit either."""
    alive = []

    def work(part):
        assert not any(ref() is not None for ref in alive)
        tensor = torch.zeros(len(part))
        alive.append(weakref.ref(tensor))
        if len(part) > 1:
            raise torch.OutOfMemoryError(CUDA)
        del tensor

    assert len(list(Batches(4).run(range(2), work))) == 2


def test_a_stage_that_used_a_gpu_gives_its_memory_back_once(small, monkeypatch):
    """Collecting garbage takes a third of a second, so once, and only there."""
    run, freed = small[0], []
    monkeypatch.setattr("ml.compute.batching.free_memory", lambda: freed.append("a stage"))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    run("one")
    assert not freed
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    run("two")
    assert freed == ["a stage"]
    run("two")  # made already
    assert freed == ["a stage"]


def test_the_command_line_prints_it(monkeypatch, capsys):
    def run_stage(*_, **__):
        raise OutOfMemory("out of memory with a single item: set diffusion.dtype")

    monkeypatch.setattr("ml.pipeline.runner.run_stage", run_stage)
    assert main(["images"]) == 4
    assert (
        capsys.readouterr().err == "error: out of memory with a single item: set diffusion.dtype\n"
    )


@pytest.fixture(scope="module")
def grounded():
    return make_engine(batch_size=4)


@pytest.fixture
def limited(grounded, monkeypatch):
    """Sets how many rows the U-Net has memory for; counts how often it had not."""
    forward, failures = grounded.pipe.unet.forward, []

    def set_limit(rows: int) -> list[int]:
        def small(x, *args, **kwargs):
            if len(x) > rows:
                failures.append(len(x))
                raise torch.OutOfMemoryError(CUDA)
            return forward(x, *args, **kwargs)

        monkeypatch.setattr(grounded.pipe.unet, "forward", small)
        grounded.batches = Batches(4)
        return failures

    set_limit(1000)
    return set_limit


def same(a, b) -> bool:
    return all(
        np.abs(x - y).max() < 2e-3 for x, y in zip(a.probabilities, b.probabilities, strict=True)
    )


def test_drawing_and_grounding(grounded, limited):
    def draw():
        return grounded.draw(PROMPTS, WORDS, seeds=[1, 2, 3, 4], steps=3, guidance_scale=3.0)

    whole = draw()
    failures = limited(4)  # two pictures with both halves of guidance
    halved = draw()
    assert failures == [8] and grounded.batches.size == 2
    assert np.abs(whole.images.astype(int) - halved.images).max() <= 1 and same(whole, halved)
    limited(1)
    with pytest.raises(OutOfMemory, match="dtype"):
        draw()


def test_given_pictures(grounded, limited):
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    whole = grounded.ground(images, WORDS)
    failures = limited(3)  # 4 passes of the evidence at once do not fit either
    halved = grounded.ground(images, WORDS)
    assert set(failures) == {4} or set(failures) == {4, 8}
    assert grounded.batches.size < 4 and same(whole, halved)


def samples_of(grounded) -> list[Sample]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 64, 64, 3), np.uint8)

    class InMemory(Pictures):
        def read(self, shard, row):
            return images[row]

    return [
        Sample(
            key=f"{i}",
            text=PROMPTS[i],
            entities=tuple(WORDS[i]),
            words=tuple(WORDS[i]),
            phrases=tuple(w if w == "car" else f"a {w}" for w in WORDS[i]),
            cell="two_seen",
            subset="train",
            seed=i,
            size=(64, 64),
            shard=None,
            row=i,
            pictures=InMemory(),
            latent=rng.standard_normal((6, 16, 16)).astype(np.float32),
            timestep=60,
            rles=(encode_rle(np.ones((64, 64), bool)),) * len(WORDS[i]),
            daam=None,
        )
        for i in range(4)
    ]


def test_stored_pictures(grounded, limited):
    samples = samples_of(grounded)
    whole = [m for _, found in ground_batches(grounded, samples, 4) for m in found.masks]
    failures = limited(4)
    parts = list(ground_batches(grounded, samples, 4))
    assert failures == [8] and [len(part) for part, _ in parts] == [2, 2]
    halved = [m for _, found in parts for m in found.masks]
    assert all((a != b).mean() < 0.01 for a, b in zip(whole, halved, strict=True))


def test_features_and_evidence_of_the_training(grounded, limited):
    samples = samples_of(grounded)
    whole = FeatureSource(grounded.pipe, samples).batch([2, 0, 3, 1])
    answers = sample_evidence(grounded.pipe, samples, [200], 4)
    failures = limited(4)
    source = FeatureSource(grounded.pipe, samples, cache_bytes=0)
    halved = source.batch([2, 0, 3, 1])
    assert failures == [8] and source.batches.size == 2 and not source.cache
    for side, features in whole.features.items():
        torch.testing.assert_close(halved.features[side], features, atol=2e-3, rtol=2e-3)
    limited(2)
    for a, b in zip(answers, sample_evidence(grounded.pipe, samples, [200], 4), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_features_are_cached_within_the_limit(grounded, limited):
    samples = samples_of(grounded)
    one = sum(
        f[0].nbytes for f in FeatureSource(grounded.pipe, samples).batch([0]).features.values()
    )
    source = FeatureSource(grounded.pipe, samples, cache_bytes=2 * one + 1)
    first = source.batch(range(4))
    assert list(source.cache) == [0, 1] and source.room == 1
    limited(4)  # the two that are missing fit
    again = source.batch(range(4))
    for side, features in first.features.items():
        torch.testing.assert_close(again.features[side], features, atol=2e-3, rtol=2e-3)
