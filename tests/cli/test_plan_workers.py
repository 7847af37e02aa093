"""`python -m ml plan` with several workers: which hours they share, which memory they take."""

import dataclasses

import pytest

from ml.__main__ import main
from ml.cli.planning.counts import Counts
from ml.cli.planning.need import Need
from ml.cli.planning.workers import Sharing, find_sharing
from ml.settings.profile import load_params

MICRO = load_params()
ALONE = Sharing()


def sharing(gpus: int, **executor) -> Sharing:
    return find_sharing(dataclasses.replace(MICRO.executor, **executor), gpus)


def test_the_worker_that_makes_most_shards_says_how_long_a_stage_lasts():
    """9 shards of 2 for 4 workers: 3 of them; the second stage has 1 shard, so nothing to share."""
    params = dataclasses.replace(MICRO, shards=dataclasses.replace(MICRO.shards, size=2))
    counts = Counts(train=17, sim=0, synthetic=1, image_words=0, synthetic_words=0)
    alone = {"images": 900.0, "masks": None, "synthetic_dataset": 50.0, "segmenter": 70.0}
    found = Sharing(ways=4).seconds(alone, counts, params)
    assert found == alone | {"images": pytest.approx(300.0)}
    assert ALONE.seconds(alone, counts, params) == alone


@pytest.mark.parametrize(
    "gpus, executor, expected, said",
    [
        (0, {}, (1, 1, 1), None),
        (1, {"workers": 0}, (1, 1, 1), None),
        (0, {"workers": 0}, (1, 1, 1), None),
        (0, {"workers": 2}, (1, 2, 1), "2 workers on the cores of this machine: their hours are"),
        (8, {"workers": 0}, (8, 8, 1), "8 workers on 8 GPUs"),
        (2, {"workers": 3, "num_gpus": 0}, (1, 3, 1), "their hours are not known"),
        (2, {"workers": 3}, (2, 3, 2), "3 workers on 2 GPUs of this machine"),
        (1, {"workers": 4, "address": "auto"}, (4, 1, 1), "hold if each has a GPU like the one"),
        (0, {"workers": 4, "address": "auto"}, (1, 1, 1), "no cluster is asked"),
        (1, {"workers": 0, "address": "auto"}, (1, 1, 1), "no cluster is asked"),
        (1, {"training_workers": 2}, (1, 1, 1), "trainings in 2 processes"),
    ],
)
def test_what_workers_share(gpus, executor, expected, said):
    found = sharing(gpus, **executor)
    assert (found.ways, found.processes, found.a_gpu) == expected
    assert len(found.lines) == (said is not None)
    assert said is None or said in found.lines[0]


def test_each_worker_of_this_machine_holds_the_models():
    needs = [Need("images", 3 * 10**9, "as measured"), Need("grounding_model", 5 * 10**9, "")]
    ram = sharing(2, workers=3).ram(needs)
    assert [need.bytes for need in ram] == [10 * 10**9, 5 * 10**9], "three, and Ray's own 1 GB"
    assert "for each of 3 workers" in ram[0].how
    assert [need.bytes for need in sharing(2, workers=3).gpu(needs)] == [6 * 10**9, 5 * 10**9]
    assert ALONE.ram(needs) == ALONE.gpu(needs) == needs


def test_the_page_says_it(tmp_path, capsys):
    profile = tmp_path / "mine.yaml"
    profile.write_text("executor: {workers: 2}\ndiffusion: {device: cpu}\n")
    main(["plan", "--profile", str(profile), "--root", str(tmp_path), "--no-probe"])
    said = capsys.readouterr().out
    assert "images, masks and synthetic_dataset by 2 workers on the cores of this machine" in said
    assert "for each of 2 workers" in said
