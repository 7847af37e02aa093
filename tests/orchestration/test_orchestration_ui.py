"""The web server and the daemon, for real: the graph is served, a launched run is carried out."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import pytest

from ml.pipeline.table import STAGES
from ml.pipeline.workspace import Workspace
from ml.settings.profile import ROOT
from orchestration.definitions import defs
from orchestration.studies import PAPER_ASSETS

ASSETS = "{ assetNodes { assetKey { path } groupName description hasMaterializePermission } }"
LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status tags { key value } } } }"
STARTED = """{ runsOrError(filter: {statuses: [STARTED]}) {
  ... on Runs { results { runId } } } }"""
LOADED = """{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus
  locationOrLoadError { __typename ... on PythonError { message } } } } } }"""
CHECKS = """{ assetNodes(assetKeys: [{path: ["prompts"]}]) { assetChecksOrError {
  ... on AssetChecks { checks { name blocking } } } } }"""


@contextmanager
def started(*command: str, env: dict):
    """A process group of its own, ended by its id: these outlive a polite signal."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ask(url: str, query: str, **variables):
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{url}/graphql", body, {"Content-Type": "application/json"})
    answer = json.loads(urllib.request.urlopen(request, timeout=60).read())
    assert "errors" not in answer, answer
    return answer["data"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The web server on workspace.yaml and the daemon, on a history of their own."""
    home = tmp_path_factory.mktemp("dagster")
    (home / "dagster.yaml").symlink_to(ROOT / ".dagster" / "dagster.yaml")
    env = os.environ | {"DAGSTER_HOME": str(home)}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    # As `make ui`: two processes that make the history's tables at once can spoil them.
    subprocess.run([sys.executable, "-m", "orchestration.runs"], cwd=ROOT, env=env, check=True)
    with (
        started(
            "dagster_webserver", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port), env=env
        ) as web,
        started("dagster._daemon", "run", "-w", "workspace.yaml", env=env) as daemon,
    ):
        end, entry = time.monotonic() + 180, None
        while time.monotonic() < end:
            assert web.poll() is None and daemon.poll() is None, "a process ended"
            try:
                (entry,) = ask(url, LOADED)["workspaceOrError"]["locationEntries"]
                if entry["loadStatus"] == "LOADED":
                    break
            except OSError:
                pass  # it does not listen yet
            time.sleep(0.3)
        assert entry and entry["locationOrLoadError"]["__typename"] == "RepositoryLocation", entry
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


def launch(url: str, root, status: str = "SUCCESS", **more) -> dict:
    """Launches the asset `prompts` as the UI does and waits for its end; returns the run."""
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
    if "profile" not in more:  # as the UI's dialog does where a partition is chosen
        params["executionMetadata"] = {"tags": [{"key": "dagster/partition", "value": "ci"}]}
    launched = ask(url, LAUNCH, params=params)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    end, run = time.monotonic() + 180, {"status": ""}
    while run["status"] not in ("SUCCESS", "FAILURE", "CANCELED") and time.monotonic() < end:
        time.sleep(0.5)
        run = ask(url, STATUS, id=launched["run"]["runId"])["runOrError"]
    assert run["status"] == status
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
    launch(server[0], tmp_path)
    assert (Workspace(tmp_path, "ci").folder("prompts") / "manifest.json").is_file()
    assert not (tmp_path / "data" / "micro").exists()
