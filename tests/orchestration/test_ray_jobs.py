"""Steps as jobs of a Ray cluster: a real one, and what is refused before the first step."""

import json
import os
import re
import shlex
import sys
from contextlib import contextmanager

import dagster as dg
import pytest
import yaml

from ml.pipeline.runner import run_stage
from ml.settings.profile import ROOT, load_params
from ml.store.manifest import read_manifest
from orchestration import ray_jobs
from orchestration.definitions import defs
from orchestration.runs import Beginning, in_process_or_multiprocess
from tests.builders import ray_head
from tests.builders.answering import Answering, serving

LOOPBACK = re.compile(r"(0{16}FFFF0000)?0100007F:[0-9A-F]{4}")  # 127.0.0.1, backwards
STAGES = ("prompts", "images")


@pytest.fixture
def token(monkeypatch) -> str:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "1" * 64)
    for name in ray_jobs.ADDRESSES:
        monkeypatch.delenv(name, raising=False)
    return "1" * 64


@contextmanager
def dashboard(token: str | None):
    """The address of something that answers as Ray's dashboard to the question for its version:
    to everybody, or only to this token."""

    class Handler(Answering):
        def do_GET(self):
            known = token is None or self.headers.get("Authorization") == f"Bearer {token}"
            self.answer({"ray_version": "2.60.0"}, 200 if known else 401)

    with serving(Handler) as address:
        yield address


def executor(address: str, field: str = "address") -> dg.Executor:
    """As a run makes it."""
    config = {"ray": {"ray": {field: address}}}
    with dg.DagsterInstance.ephemeral() as instance:
        return in_process_or_multiprocess.executor_creation_fn(
            dg.InitExecutorContext(
                job=dg.reconstructable(data_job),
                executor_def=in_process_or_multiprocess,
                executor_config=config,
                instance=instance,
            )
        )


def data_job() -> dg.JobDefinition:
    return defs.resolve_job_def("data")


def test_a_cluster_that_asks_for_our_token_is_taken(token):
    pytest.importorskip("dagster_ray")
    with dashboard(token) as address:
        assert isinstance(executor(address), Beginning)


def test_a_cluster_without_a_token_is_refused(token, monkeypatch):
    pytest.importorskip("dagster_ray")
    with dashboard(None) as address:
        with pytest.raises(ValueError, match="answers without a token: .*RAY_AUTH_MODE=disabled"):
            executor(address)
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        assert isinstance(executor(address), Beginning)


def test_a_process_without_a_token_is_refused(monkeypatch, tmp_path):
    pytest.importorskip("dagster_ray")
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match="execution: ray: http://127.0.0.1:1: no token"):
        executor("http://127.0.0.1:1")


def test_no_cluster_there_and_another_one_are_refused(token, monkeypatch):
    pytest.importorskip("dagster_ray")
    with pytest.raises(ConnectionError, match="http://127.0.0.1:1: expected a Ray cluster"):
        executor("http://127.0.0.1:1")
    with dashboard("2" * 64) as address:
        with pytest.raises(ConnectionError, match="answers to this process's token"):
            executor(address)
    with dashboard(token) as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ValueError, match=f"RAY_ADDRESS says {address}, .* unset it"):
            executor("http://127.0.0.1:1")


def test_without_the_package_its_extra_is_named(token, monkeypatch):
    monkeypatch.setitem(sys.modules, "dagster_ray", None)
    with pytest.raises(ValueError, match="needs dagster-ray, .* extra `ray`"):
        executor("http://127.0.0.1:1")


def test_a_wrong_config_is_refused(token):
    pytest.importorskip("dagster_ray")
    with pytest.raises(dg.DagsterInvalidConfigError, match="adress"):
        executor("http://127.0.0.1:1", field="adress")


class Client:
    """Ray's client of jobs, with answers of ours."""

    def __init__(self, *answers):
        self.answers, self.submitted = list(answers), []

    def submit_job(self, **job):
        self.submitted.append(job)

    def get_job_status(self, submission_id):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    get_job_info = stop_job = None


def test_a_job_that_was_stopped_and_a_cluster_that_is_gone_are_not_waited_for(monkeypatch):
    """dagster-ray takes FAILED, and a RuntimeError, for the end of a step."""
    status = pytest.importorskip("ray.job_submission").JobStatus
    client = Client(status.STOPPED, status.RUNNING, ConnectionError("1"), ConnectionError("2"))
    jobs = ray_jobs.Jobs(client)
    assert jobs.get_job_status("x") == status.FAILED
    assert jobs.get_job_status("x") == status.RUNNING
    with pytest.raises(ConnectionError, match="1"):
        jobs.get_job_status("x")
    monkeypatch.setattr(ray_jobs, "PATIENCE", 0.0)
    with pytest.raises(RuntimeError, match="silent"):
        jobs.get_job_status("x")


def test_a_job_is_the_same_python_in_the_same_folder(tmp_path, monkeypatch):
    folder = tmp_path / "a folder's name"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WORDS_TO_MASKS_ROOT", "s3://bucket")
    monkeypatch.delenv("WORDS_TO_MASKS_ARTIFACTS", raising=False)
    client = Client()
    ray_jobs.Jobs(client).submit_job(
        entrypoint="dagster api x", runtime_env={"env_vars": {"A": "b"}}, num_cpus=1
    )
    (job,) = client.submitted
    command = [sys.executable, "-m", "dagster", "api", "x"]
    assert shlex.split(job["entrypoint"]) == ["cd", str(folder), "&&", "exec", *command]
    assert job["num_cpus"] == 1
    given = job["runtime_env"]["env_vars"]
    assert given["A"] == "b" and given["WORDS_TO_MASKS_ROOT"] == "s3://bucket"
    assert given["WORDS_TO_MASKS_ARTIFACTS"] == "" and int(given["OMP_NUM_THREADS"]) > 0


@pytest.mark.slow
@pytest.mark.skipif(not ray_head.possible(), reason="needs unshare and user namespaces")
def test_steps_run_as_jobs_and_make_the_same(tmp_path, monkeypatch):
    """The profile is a relative path, the root a default of this process's environment: both mean
    the same in a job, which Ray starts in another folder."""
    pytest.importorskip("dagster_ray")
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    root, home, alone = (tmp_path / name for name in ("root", "home", "alone"))
    for folder in (root, home, alone):
        folder.mkdir()
    (home / "dagster.yaml").symlink_to(ROOT / ".dagster" / "dagster.yaml")
    profile = tmp_path / "tiny.yaml"
    profile.write_text("base: ci\ndiffusion: {steps: 2}\n")
    config = {
        "resources": {"project": {"config": {"profile": os.path.relpath(profile, ROOT)}}},
        "execution": {"config": {"ray": {"ray": {"address": ray_head.DASHBOARD}}}},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("WORDS_TO_MASKS_ROOT", str(root))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.add_dynamic_partitions("profile", ["tiny"])
    command = [sys.executable, "-m", "dagster", "asset", "materialize"]
    command += ["-m", "orchestration.definitions", "--select", ",".join(STAGES)]
    command += ["--partition", "tiny", "-c", str(tmp_path / "run.yaml")]
    done = ray_head.beside(tmp_path, *command)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]

    jobs = json.loads((tmp_path / "jobs.json").read_text())
    with dg.DagsterInstance.from_config(str(home)) as instance:
        (run,) = instance.get_runs()
        assert run.is_success and run.tags["dagster/partition"] == "tiny"
    assert {job["of"]["dagster/op"] for job in jobs} >= set(STAGES)
    assert {job["of"]["dagster/run-id"] for job in jobs} == {run.run_id}
    assert {job["status"] for job in jobs} == {"SUCCEEDED"}
    assert "RAY_AUTH_TOKEN" not in (tmp_path / "jobs.json").read_text()
    found = json.loads((tmp_path / "listening.json").read_text())
    assert found and [where for where in found if not LOOPBACK.fullmatch(where)] == []

    params = load_params(str(profile))
    for stage in STAGES:
        run_stage(stage, params, alone)
        folders = [place / "data" / "tiny" / stage for place in (root, alone)]
        ours, theirs = (read_manifest(folder).digest for folder in folders)
        assert ours == theirs, stage
