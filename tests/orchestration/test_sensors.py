"""The sensor over real files and a real history: when a changed profile's run is requested, how
often, and what is said where none is. The daemon's own tick is in test_orchestration_ui.py."""

import json
from functools import partial
from pathlib import Path

import dagster as dg
import pytest
import yaml

from ml.settings.profile import ROOT, load_params
from orchestration import sensors
from orchestration.definitions import defs
from orchestration.resources import PARTITION, PROFILES

YARD = {"seen": ["bus", "cat"], "unseen": ["dog"]}


class Watched:
    """A checkout's profiles, a history, and the sensor's ticks: each goes on from the last one's
    cursor, as the daemon's do."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.folder, self.instance, self.cursor = folder, instance, None
        (folder / "profiles").mkdir()
        (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())
        self.words = folder / "words.yaml"
        self.words.write_text(yaml.safe_dump(YARD))
        self.yard = folder / "profiles" / "yard.yaml"
        self.write(steps=100)
        self.names = ["micro", "yard"]

    def write(self, steps: int) -> None:
        self.yard.write_text(f"vocabulary: {self.words}\ngrounding: {{steps: {steps}}}\n")

    def ran(self, profile: str, /, status=dg.DagsterRunStatus.SUCCESS, **project) -> str:
        """A run of the whole graph in the history."""
        return self.instance.create_run_for_job(
            defs.resolve_job_def("pipeline"),
            run_config={"resources": {"project": {"config": project}}},
            tags={PARTITION: profile},
            status=status,
        ).run_id

    def tick(self) -> dg.SensorResult:
        context = dg.build_sensor_context(
            self.instance, cursor=self.cursor, repository_def=defs.get_repository_def()
        )
        found = sensors.changed_profiles(context)
        for request in found.dynamic_partitions_requests or []:
            self.instance.add_dynamic_partitions(PROFILES.name, request.partition_keys)
        self.cursor = found.cursor
        return found

    def said(self) -> str:
        """What a tick says that requests nothing."""
        found = self.tick()
        assert not found.run_requests
        return found.skip_reason.skip_message

    def requested(self) -> dg.RunRequest:
        (request,) = self.tick().run_requests
        return request


@pytest.fixture
def watched(tmp_path, monkeypatch):
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        made = Watched(tmp_path, instance)
        monkeypatch.setattr(sensors, "load_params", partial(load_params, root=tmp_path))
        monkeypatch.setattr(sensors, "known_profiles", lambda: made.names)
        yield made


def test_a_changed_profile_is_requested_once_as_it_was_run_last(watched):
    place = {"root": "/elsewhere", "tracking_uri": "sqlite:///own.db"}
    watched.ran("yard", **place)
    assert watched.said() == "watches micro, yard"
    assert watched.said() == "nothing changed in micro, yard"
    watched.write(steps=200)
    assert "yard changed (grounding); its run is requested when the next look" in watched.said()
    before = watched.cursor
    request = watched.requested()
    assert request.partition_key == "yard" and request.tags[sensors.WHY] == "grounding"
    assert request.run_config["resources"]["project"]["config"] == place
    assert watched.said() == "nothing changed in micro, yard"
    watched.cursor = before  # of a daemon that was killed between the request and its memory of it
    assert watched.requested().run_key == request.run_key
    watched.write(steps=100)  # as it was, and then as it was before that: other runs
    keys = {request.run_key}
    for steps in (100, 200):
        watched.write(steps=steps)
        watched.said()
        keys.add(watched.requested().run_key)
    assert len(keys) == 3


def test_a_vocabulary_counts_and_a_comment_does_not(watched):
    watched.ran("yard")
    watched.said()
    watched.yard.write_text(f"# mine\n{watched.yard.read_text()}")
    assert watched.said() == "nothing changed in micro, yard"
    watched.words.write_text(yaml.safe_dump(YARD | {"unseen": ["dog", "sofa"]}))
    assert "yard changed (vocabulary)" in watched.said()
    assert watched.requested().tags[sensors.WHY] == "vocabulary"


def test_what_is_still_being_typed_waits(watched):
    watched.ran("yard")
    watched.said()
    for steps in (200, 300, 400):
        watched.write(steps=steps)
        assert "when the next look sees the same" in watched.said()
    watched.requested()


def test_a_broken_file_is_told_each_time_and_keeps_no_other_waiting(watched):
    watched.ran("yard")
    watched.ran("micro")
    watched.said()
    watched.yard.write_text("grounding: {steps: many}\n")
    for _ in range(2):
        said = watched.said()
        assert "yard can't be used, and no run is requested for it: " in said
        assert "yard.yaml, line 1" in said and "steps" in said
    watched.folder.joinpath("params.yaml").write_text(
        (ROOT / "params.yaml").read_text().replace("seed: 0", "seed: 1")
    )
    assert "micro changed (seed)" in watched.said()
    assert watched.requested().partition_key == "micro"
    assert "yard can't be used" in watched.said()
    watched.words.unlink()
    watched.write(steps=100)
    assert "unknown vocabulary" in watched.said()


def test_a_profile_that_was_never_run_is_launched_by_a_person(watched):
    watched.said()
    watched.write(steps=200)
    said = watched.said()
    assert "its whole graph was never run from here: launch the job pipeline" in said
    assert watched.said() == "nothing changed in micro, yard"
    watched.folder.joinpath("profiles", "pets.yaml").write_text("base: yard\n")
    watched.names = ["micro", "pets", "yard"]
    assert "pets is new" in watched.said()
    assert watched.instance.has_dynamic_partition(PROFILES.name, "pets"), "it can be chosen"
    watched.ran("yard", profile="/tmp/another/yard.yaml")
    watched.write(steps=300)
    assert "never run from here" in watched.said(), "another file of that name was"


def test_a_profile_that_was_named_by_a_variable_is_repeated_while_that_is_set(watched, monkeypatch):
    monkeypatch.setenv("WHICH", "yard")
    watched.ran("yard", profile={"env": "WHICH"})
    watched.said()
    watched.write(steps=200)
    watched.said()
    project = watched.requested().run_config["resources"]["project"]["config"]
    assert project == {"profile": {"env": "WHICH"}}
    monkeypatch.delenv("WHICH")
    watched.write(steps=300)
    assert "never run from here" in watched.said(), "it could not be repeated"


def test_a_run_under_way_ends_first(watched):
    watched.ran("yard")
    run = watched.ran("yard", status=dg.DagsterRunStatus.STARTED)
    watched.said()
    watched.write(steps=200)
    watched.said()
    assert f"when the run {run[:8]} has ended" in watched.said()
    watched.instance.report_run_canceled(watched.instance.get_run_by_id(run))
    watched.requested()


def test_it_is_off_until_somebody_turns_it_on():
    sensor = defs.get_repository_def().get_sensor_def("changed_profiles")
    assert sensor.default_status == dg.DefaultSensorStatus.STOPPED
    assert sensor.job_name == "pipeline"


def test_every_profile_of_the_checkout_can_be_watched(tmp_path):
    """And its memory is small: the sensor's page shows it above the ticks."""
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        found = sensors.changed_profiles(dg.build_sensor_context(instance))
    assert "can't be used" not in found.skip_reason.skip_message
    assert len(found.cursor) < 200 * len(sensors.known_profiles())
    assert json.loads(found.cursor)["count"] == 0
    memory = sensors.Memory.of(found.cursor)
    assert memory.done == {name: sensors.said_by(name) for name in sensors.known_profiles()}
    assert memory.cursor() == found.cursor
    for spoilt in ("{}", "[]", "none", found.cursor.replace(" ", "_")):
        with pytest.raises(ValueError, match="is none that it wrote .*: empty it"):
            sensors.Memory.of(spoilt)
