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

from ml.params import ROOT
from ml.stages import STAGES, Workspace
from orchestration.definitions import defs
from orchestration.paper import PAPER_ASSETS

ASSETS = "{ assetNodes { assetKey { path } groupName description hasMaterializePermission } }"
LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
LOADED = """{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus
  locationOrLoadError { __typename ... on PythonError { message } } } } } }"""
CHECKS = """{ assetNodes(assetKeys: [{path: ["prompts"]}]) { assetChecksOrError {
  ... on AssetChecks { checks { name blocking } } } } }"""


@contextmanager
def started(*command: str, env: dict):
    """A process group of its own, ended by its id: these outlive a polite signal."""
    process = subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, env=env,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True)
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
    with started("dagster_webserver", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port),
                 env=env) as web, started("dagster._daemon", "run", "-w", "workspace.yaml",
                                          env=env) as daemon:
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
        yield url


def test_workspace_file_serves_the_same_assets_as_the_module(server):
    """A `[tool.dg]` block in pyproject.toml would make `dagster` ignore workspace.yaml."""
    nodes = ask(server, ASSETS)["assetNodes"]
    served = {"/".join(node["assetKey"]["path"]) for node in nodes}
    assert served == {spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()}
    assert served == {stage.name for stage in STAGES} | {"sealed_data"} | {
        asset.key.to_user_string() for asset in PAPER_ASSETS}
    assert all(node["description"] and node["groupName"] != "default" for node in nodes)


def test_checks_are_seen(server):
    checks = ask(server, CHECKS)["assetNodes"][0]["assetChecksOrError"]["checks"]
    assert {"seeds_unique", "training_balanced"} <= {check["name"] for check in checks}


def test_the_daemon_carries_out_a_launched_run(server, tmp_path):
    params = {
        "selector": {"repositoryLocationName": "orchestration.definitions",
                     "repositoryName": "__repository__", "jobName": "__ASSET_JOB",
                     "assetSelection": [{"path": ["prompts"]}]},
        "runConfigData": {"resources": {"project": {"config": {"profile": "ci",
                                                               "root": str(tmp_path)}}}},
        "mode": "default"}
    launched = ask(server, LAUNCH, params=params)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run, end, status = launched["run"]["runId"], time.monotonic() + 180, ""
    while status not in ("SUCCESS", "FAILURE", "CANCELED") and time.monotonic() < end:
        time.sleep(0.5)
        status = ask(server, STATUS, id=run)["runOrError"]["status"]
    assert status == "SUCCESS"
    workspace = Workspace(tmp_path, "ci")
    assert (workspace.folder("prompts") / "manifest.json").is_file()
    assert (workspace.state("prompts") / "quality.json").is_file(), "checks ran with it"
