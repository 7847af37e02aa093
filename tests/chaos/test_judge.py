"""The harness's own judgement: every kind of damage that it is there to find, it must find."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ml.store.training_state import save_state
from tests.chaos import history, processes, table
from tests.chaos.checkout import age, data_of
from tests.chaos.disk import NAMES, describe, held_locks, left_over
from tests.chaos.judge import Memory, Undisturbed, read_undisturbed, wrong_end, wrong_seal
from tests.chaos.processes import Attempt, living
from tests.chaos.rounds import Kill, Round
from tests.chaos.training import output_of, shown

PAGE = "<tr><td>images</td><td>{seconds}</td><td>mIoU {miou}</td></tr>"
EVERY = {"grounding_model": 40, "segmenter": 100, "real_bound": 100}


def write(file: Path, content: str | bytes | dict) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(content) if isinstance(content, dict) else content
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def sha256(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def put_stage(data: Path, name: str, version: int = 1) -> None:
    """A finished folder of a stage: a shard, or the page of the report."""
    files = {"report.html": PAGE.format(seconds="1.0", miou="50.0").encode()}
    if name != "report":
        files = {"shard-00000.parquet": f"rows of {name}".encode()}
    for file, content in files.items():
        write(data / name / file, content)
        write(data / name / f".{Path(file).stem}.json", {"sha256": sha256(content), "recipe": "r"})
    manifest = {"version": version, "params": {}, "inputs": {}, "digest": f"digest of {name}"}
    manifest["files"] = {file: {"sha256": sha256(content)} for file, content in files.items()}
    write(data / name / "manifest.json", manifest)
    write(data / ".state" / name / "made.json", {"digest": manifest["digest"]})


@pytest.fixture
def checkout(tmp_path) -> Path:
    """As a run that ended well leaves it."""
    for name in NAMES:
        put_stage(data_of(tmp_path), name)
    return tmp_path


@pytest.fixture
def expected(checkout) -> Undisturbed:
    return read_undisturbed(data_of(checkout))


def test_a_sound_workspace_is_found_sound(checkout, expected):
    data, memory = data_of(checkout), Memory()
    assert memory.look(data, expected.recipes) == []
    assert memory.look(data, expected.recipes) == []
    assert len(memory.whole) == 3 * len(NAMES)
    assert wrong_end(checkout, expected, dagster=False) == []
    page = data / "report" / "report.html"
    page.write_text(PAGE.format(seconds="99.0", miou="50.0"))
    assert wrong_end(checkout, expected, dagster=False) == [], "only the seconds differ"


def test_another_digest_or_page_is_found(checkout, expected):
    data = data_of(checkout)
    other = json.loads((data / "masks" / "manifest.json").read_text()) | {"digest": "another"}
    write(data / "masks" / "manifest.json", other)
    write(data / "report" / "report.html", PAGE.format(seconds="1.0", miou="51.0"))
    shutil.rmtree(data / "prompts")
    assert wrong_end(checkout, expected, dagster=False) == [
        "prompts: digest none, undisturbed digest of pr",
        "masks: digest another, undisturbed digest of ma",
        "report: not the undisturbed page",
    ]


def test_what_was_made_twice_or_lost_is_found(checkout, expected):
    """A shard of an unfinished folder is followed to its final place."""
    data, memory = data_of(checkout), Memory()
    new = data / ".making" / "images"
    new.parent.mkdir()
    (data / "images").rename(new)
    (new / "manifest.json").rename(data / "kept.json")
    assert memory.look(data, expected.recipes) == []
    assert "images/shard-00000.parquet" in memory.whole
    new.rename(data / "images")
    (data / "kept.json").rename(data / "images" / "manifest.json")
    assert memory.look(data, expected.recipes) == [], "renamed, not made again"
    shard = data / "images" / "shard-00000.parquet"
    content = shard.read_bytes()
    shard.unlink()
    write(shard, content)
    (data / "masks" / "shard-00000.parquet").unlink()
    assert memory.look(data, expected.recipes) == [
        "images/shard-00000.parquet was whole at a kill and was made again",
        "masks/shard-00000.parquet was whole at a kill and is gone",
        "masks: no whole folder in its place",
        "masks: half a folder in its place",
    ]


def test_a_shard_without_a_true_sidecar_may_be_made_again(checkout, expected):
    data, memory = data_of(checkout), Memory()
    write(data / ".making" / "images" / "shard-00001.parquet", b"half")
    write(data / ".making" / "images" / ".shard-00001.json", {"sha256": sha256(b"whole")})
    memory.look(data, expected.recipes)
    assert "images/shard-00001.parquet" not in memory.whole


def test_an_old_folder_must_stand_until_its_successor_does(checkout, expected):
    data = data_of(checkout)
    put_stage(data, "images", version=0)
    (data / "images").rename(data / ".images.replaced")
    assert Memory().look(data, expected.recipes) == [], "set aside, whole"
    (data / ".images.replaced" / "shard-00000.parquet").unlink()
    assert Memory().look(data, expected.recipes) == ["images: no whole folder in its place"]


def test_a_training_that_begins_before_its_checkpoint_is_found(tmp_path):
    file = tmp_path / ".making" / "segmenter" / ".progress" / "checkpoint.pt"
    file.parent.mkdir(parents=True)
    save_state(file, {"curve": [0.0] * 100})
    memory = Memory()
    assert memory.trained(tmp_path, {"segmenter": (0, 130)}, EVERY) == []
    assert memory.trained(tmp_path, {"segmenter": (100, 150)}, EVERY) == []
    assert memory.repeated == 30
    assert memory.trained(tmp_path, {"segmenter": (0, 190)}, EVERY) == [
        "segmenter went on from step 0, its checkpoint had 100",
        "segmenter repeated 150 steps, more than 100",
    ]
    file.write_bytes(file.read_bytes()[:-5])
    assert memory.trained(tmp_path, {}, EVERY) == ["checkpoint.pt of segmenter is damaged"]


def test_steps_are_read_from_the_progress_bars(tmp_path):
    log = write(
        tmp_path / "log",
        "grounding:  25%|██▌       | 40/160 [00:00<?, ?step/s]\r"
        "grounding:  50%|█████     | 80/160 [00:02<00:04, 1.0step/s, val_miou=9.0]\n"
        "segmenter:   0%|          | 0/250 [00:00<?, ?step/s]\r"
        "segmenter: 100%|██████████| 250/250 [00:09<00:00, 1.0step/s]\n"
        "segmenter:  40%|████      | 100/250 [00:00<?, ?step/s]\r",
    )
    stages = ["grounding_model", "real_bound", "segmenter"]
    output = output_of(log, tmp_path, 0)
    assert shown(output, stages) == {
        "grounding_model": (40, 80),
        "real_bound": (0, 250),
        "segmenter": (100, 100),
    }
    assert shown(output, stages[:1]) == {"grounding_model": (40, 80)}
    write(tmp_path / ".dagster/storage/run/compute_logs/x.err", "grounding:  5%|  | 8/160 [00:00")
    assert shown(output_of(log, tmp_path, 0), stages) == {"grounding_model": (8, 8)}


def test_leftovers_and_locks_are_found(checkout, expected):
    data = data_of(checkout)
    write(data / "images" / ".shard-00000.parquet.host.7.tmp", b"")
    write(data / ".making" / "masks.json", b"{}")
    lock = write(data / ".locks" / "images", b"")
    assert left_over(checkout, data) == [
        "data/micro/.making/masks.json",
        "data/micro/images/.shard-00000.parquet.host.7.tmp",
    ]
    assert held_locks(checkout, data) == []
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert held_locks(checkout, data) == ["data/micro/.locks/images"]
    assert "half .shard-00000.parquet.host.7.tmp" in describe(data, expected.recipes)


def test_dagsters_history_is_judged():
    assert history.wrong_runs(["FAILURE", "CANCELED", "SUCCESS"]) == []
    assert history.wrong_runs(["STARTED", "SUCCESS"]) == ["a Dagster run stays STARTED"]
    assert "expected one success" in history.wrong_runs(["SUCCESS", "SUCCESS"])[0]
    assert "expected one success" in history.wrong_runs(["FAILURE"])[0]


def test_a_second_version_in_the_registry_is_found(tmp_path):
    """A real MLflow store, as registering both models leaves it."""
    import mlflow

    file = tmp_path / "mlflow.db"
    client = mlflow.MlflowClient(f"sqlite:///{file}", f"sqlite:///{file}")
    experiment = client.create_experiment("all", (tmp_path / "artifacts").as_uri())

    def register(name: str) -> None:
        run = client.create_run(experiment).info.run_id
        client.create_logged_model(experiment, name, run)
        version = client.create_model_version(name, f"runs:/{run}/{name}", run).version
        for alias in ("challenger", "champion"):
            client.set_registered_model_alias(name, alias, version)
        client.set_terminated(run)

    for name in history.MODELS:
        client.create_registered_model(name)
        register(name)
    assert history.wrong_registry(file) == []
    client.delete_registered_model_alias("grounding", "champion")
    register("segmenter")
    client.create_run(experiment, run_name="killed")
    wrong = " / ".join(history.wrong_registry(file))
    assert "2 registry versions of segmenter, expected one" in wrong
    assert "champion of grounding is []" in wrong
    assert "'killed' stays RUNNING" in wrong and "3 logged models" in wrong


def test_a_cache_that_lacks_what_the_lock_names_is_found(checkout, expected):
    wrong = wrong_seal(checkout, expected)
    assert wrong == [f"{name} is not sealed" for name in NAMES]
    lock = {"stages": {name: {"outs": [{"md5": "ab" * 16}]} for name in NAMES}}
    write(checkout / "dvc.lock", lock)
    assert wrong_seal(checkout, expected)[0] == "benchmark: DVC's cache lacks what dvc.lock names"


TREE = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    os.fork()\ntime.sleep(600)"


def test_every_descendant_is_found_and_killed(tmp_path, monkeypatch):
    """Also those that left the session; what only the parent's death leaves is an orphan."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    run = Attempt.start([sys.executable, "-c", TREE], checkout, "mark-of-test", tmp_path / "log")
    other = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        env=os.environ | {"CHAOS_MARK": "another"},
    )
    try:
        end = time.monotonic() + 60
        while len(run.descendants()) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        monkeypatch.setattr(processes, "PATIENCE", 0.1)
        assert len(run.left()) == 3
        run.kill_child(run.descendants()[0])
        run.kill_all()
        assert run.left() == [] and other.poll() is None
    finally:
        run.kill_all()
        other.kill()
        other.wait()
    assert living("another") == []


def test_the_page_keeps_its_introduction_and_the_other_headings(tmp_path, expected):
    rounds = [Round("cli", 1, False, [Kill("cli", 1, "all", "drawn", "images", "2 shards")])]
    rounds[0].kills[0].wrong.append("images/shard-00000.parquet was made again")
    page = write(
        tmp_path / "page.md", "# Page\n\n## What came out\n\nIntro.\n\n## Faults\n\nTable.\n"
    )
    result = json.loads(json.dumps(table.as_json(rounds, expected, "make chaos", 1.0)))
    assert table.rounds_of(result) == rounds
    for _ in range(2):
        table.write_section(page, table.section([result]))
    text = page.read_text()
    assert text.count("| 1 | cli 1 | all | drawn | `images` | 2 shards | images/shard") == 1
    assert "Intro." in text and text.endswith("\n## Faults\n\nTable.\n")
    assert "- cli 1: images/shard-00000.parquet was made again" in text
    assert "**wrong**" in text


def test_an_aged_workspace_is_whole_and_of_another_recipe(checkout, expected):
    data = data_of(checkout)
    age(data)
    assert not Memory().look(data, expected.recipes)
    assert not Memory().whole
    assert describe(data, expected.recipes) == f"0 of {len(NAMES)} stages"
