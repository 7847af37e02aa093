"""The web server and the daemon, for real: the graph is served, a launched run is carried out."""

import os
import time

import dagster as dg
import pytest
import yaml

from ml.pipeline.table import STAGES
from ml.pipeline.workspace import Workspace
from ml.settings.profile import ROOT
from orchestration import sensors
from orchestration.definitions import defs
from orchestration.resources import known_profiles
from orchestration.studies import PAPER_ASSETS
from tests.builders.servers import ask, dagster_ui, started

ASSETS = "{ assetNodes { assetKey { path } groupName description hasMaterializePermission } }"
LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status tags { key value } } } }"
STARTED = """{ runsOrError(filter: {statuses: [STARTED]}) {
  ... on Runs { results { runId } } } }"""
CHOSEN = """query($job: String!) { partitionSetsOrError(pipelineName: $job, repositorySelector: {
  repositoryLocationName: "orchestration.definitions", repositoryName: "__repository__"}) {
  ... on PartitionSets { results { partition(partitionName: "ci") { runConfigOrError {
  ... on PartitionRunConfig { yaml } ... on PythonError { message } } } } } } }"""
SENSOR = {
    "repositoryLocationName": "orchestration.definitions",
    "repositoryName": "__repository__",
    "sensorName": "changed_profiles",
}
REMEMBER = """mutation($sensor: SensorSelector!, $cursor: String) {
  setSensorCursor(sensorSelector: $sensor, cursor: $cursor) {
  __typename ... on PythonError { message } } }"""
TURN_ON = """mutation($sensor: SensorSelector!) { startSensor(sensorSelector: $sensor) {
  __typename ... on PythonError { message } } }"""
TURN_OFF = """mutation($id: String!) { stopSensor(id: $id) {
  __typename ... on PythonError { message } } }"""
TICKS = """query($sensor: SensorSelector!) { sensorOrError(sensorSelector: $sensor) {
  ... on Sensor { id sensorState { status ticks(limit: 9) { status skipReason runIds
  error { message } } } } } }"""
CHECKS = """{ assetNodes(assetKeys: [{path: ["prompts"]}]) { assetChecksOrError {
  ... on AssetChecks { checks { name blocking } } } } }"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The web server on workspace.yaml and the daemon, on a history of their own."""
    home = tmp_path_factory.mktemp("dagster")
    with dagster_ui(home) as url:
        yield url, home


def test_workspace_file_serves_the_same_assets_as_the_module(server):
    """A `[tool.dg]` block in pyproject.toml would make `dagster` ignore workspace.yaml."""
    nodes = ask(server[0], ASSETS)["assetNodes"]
    served = {"/".join(node["assetKey"]["path"]) for node in nodes}
    assert served == {spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()}
    assert served == {stage.name for stage in STAGES} | {"sealed_data"} | {
        asset.key.to_user_string() for asset in PAPER_ASSETS
    }
    assert all(node["description"] and node["groupName"] != "default" for node in nodes)


def test_checks_are_seen(server):
    checks = ask(server[0], CHECKS)["assetNodes"][0]["assetChecksOrError"]["checks"]
    assert {"seeds_unique", "training_balanced"} <= {check["name"] for check in checks}


@pytest.mark.parametrize("job", ["pipeline", "data", "train_and_score", "promote"])
def test_a_partition_fills_the_launchpad(job, server):
    """What the launchpad writes into its editor when a person chooses a partition."""
    (found,) = ask(server[0], CHOSEN, job=job)["partitionSetsOrError"]["results"]
    written = yaml.safe_load(found["partition"]["runConfigOrError"]["yaml"])
    assert written == yaml.safe_load((ROOT / "profiles" / "ci.run.yaml").read_text())


def launch(url: str, root, status: str = "SUCCESS", checks: bool = True, **more) -> dict:
    """Launches the asset `prompts` as the UI does, with its checks or without, and waits for its
    end; returns the run."""
    params = {
        "selector": {
            "repositoryLocationName": "orchestration.definitions",
            "repositoryName": "__repository__",
            "jobName": "__ASSET_JOB",
            "assetSelection": [{"path": ["prompts"]}],
        },
        "runConfigData": {"resources": {"project": {"config": {"root": str(root)} | more}}},
        "mode": "default",
    }
    if not checks:
        params["selector"]["assetCheckSelection"] = []
    if "profile" not in more:  # as the UI's dialog does where a partition is chosen
        params["executionMetadata"] = {"tags": [{"key": "dagster/partition", "value": "ci"}]}
    launched = ask(url, LAUNCH, params=params)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run = ended(url, launched["run"]["runId"])
    assert run["status"] == status
    return run


def ended(url: str, run_id: str) -> dict:
    """A run when it has ended."""
    end, run = time.monotonic() + 180, {"status": ""}
    while run["status"] not in ("SUCCESS", "FAILURE", "CANCELED") and time.monotonic() < end:
        time.sleep(0.5)
        run = ask(url, STATUS, id=run_id)["runOrError"]
    return run


def test_the_daemon_carries_out_a_launched_run(server, tmp_path):
    """Beside a run of the command line that was killed: it keeps nothing from it."""
    url, home = server
    config = tmp_path / "run.yaml"
    config.write_text(f"resources: {{project: {{config: {{profile: ci, root: {tmp_path}}}}}}}")
    with started(
        "dagster",
        "job",
        "execute",
        "-m",
        "orchestration.definitions",
        "-j",
        "data",
        "-c",
        str(config),
        env=os.environ | {"DAGSTER_HOME": str(home)},
    ) as process:
        end = time.monotonic() + 120
        while not list(home.glob("alive/[!.]*")):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)
    assert len(ask(url, STARTED)["runsOrError"]["results"]) == 1
    run = launch(url, tmp_path, profile="ci")
    assert {"key": "dagster/partition", "value": "ci"} in run["tags"]
    assert ask(url, STARTED)["runsOrError"]["results"] == [], "the dead are written off"
    workspace = Workspace(tmp_path, "ci")
    assert (workspace.folder("prompts") / "manifest.json").is_file()
    assert (workspace.state("prompts") / "quality.json").is_file(), "checks ran with it"


def test_a_partition_chosen_in_the_ui_is_the_profile(server, tmp_path):
    launch(server[0], tmp_path, checks=False)
    assert (Workspace(tmp_path, "ci").folder("prompts") / "manifest.json").is_file()
    assert not (tmp_path / "data" / "micro").exists()


def test_the_daemon_requests_the_run_of_a_changed_profile(server, tmp_path):
    """By a memory of other settings than the file has: a tick can't tell which of them changed. The
    run fails at once, by its registry's address, and is not requested again for that."""
    url, home = server
    with dg.DagsterInstance.from_config(str(home)) as instance:
        config = {"root": str(tmp_path), "tracking_uri": "gopher://nowhere"}
        instance.create_run_for_job(
            defs.resolve_job_def("pipeline"),
            run_config={"resources": {"project": {"config": config}}},
            tags={"dagster/partition": "ci"},
            status=dg.DagsterRunStatus.SUCCESS,
        )
    now = {name: sensors.said_by(name) for name in known_profiles()}
    then = now | {"ci": now["ci"] | {"seed": "another"}}
    memory = sensors.Memory("now", 0, then, {"ci": now["ci"]})
    for query, values in ((REMEMBER, {"cursor": memory.cursor()}), (TURN_ON, {})):
        answer = ask(url, query, sensor=SENSOR, **values)
        assert not any("message" in found for found in answer.values()), answer
    end, ticks = time.monotonic() + 120, []
    while not any(tick["runIds"] for tick in ticks) and time.monotonic() < end:
        time.sleep(0.5)
        found = ask(url, TICKS, sensor=SENSOR)["sensorOrError"]
        ticks = found["sensorState"]["ticks"]
    (tick,) = [tick for tick in ticks if tick["runIds"]]
    run = ended(url, *tick["runIds"])
    ask(url, TURN_OFF, id=found["id"])
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    assert run["status"] == "FAILURE" and tags["dagster/partition"] == "ci"
    assert tags[sensors.WHY] == "seed" and tags["dagster/sensor_name"] == "changed_profiles"
    assert not any(tick["error"] for tick in ticks), ticks
    requested = [
        run
        for tick in ask(url, TICKS, sensor=SENSOR)["sensorOrError"]["sensorState"]["ticks"]
        for run in tick["runIds"]
    ]
    assert len(requested) == 1, "a run that failed is not requested again"
