"""Runs as they are started and killed: process groups end by SIGKILL, and the same command again
goes on by itself, with no daemon. A profile is a partition of every asset and check."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.loader import LoadingContextForTest
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin

from ml.errors import QualityError, WorkerLost, WorkspaceBusy
from ml.pipeline.runner import run_stage
from ml.pipeline.workspace import Workspace
from ml.settings.profile import ROOT, load_params
from orchestration import assets, turns
from orchestration import runs as begun
from orchestration.definitions import defs
from orchestration.expectations import ensure_quality
from orchestration.resources import PROFILES, Project, known_profiles, profile_name
from tests.builders import handmade, network_locks

DAGSTER_YAML = ROOT / ".dagster" / "dagster.yaml"
MODULE = ("-m", "orchestration.definitions")


@pytest.fixture
def home(tmp_path) -> Path:
    folder = tmp_path / "dagster"
    folder.mkdir()
    (folder / "dagster.yaml").symlink_to(DAGSTER_YAML)
    return folder


def config(folder: Path, profile: str, **more) -> str:
    path = folder / f"{Path(profile).stem}.run.yaml"
    path.write_text(
        yaml.safe_dump(
            {"resources": {"project": {"config": {"profile": profile, "root": str(folder)}}}} | more
        )
    )
    return str(path)


def start(home: Path, *command: str) -> subprocess.Popen:
    """A process group of its own, as a terminal gives one; its output goes to a file."""
    output = (home.parent / f"output-{time.monotonic_ns()}").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster", *command],
        cwd=ROOT,
        env=os.environ | {"DAGSTER_HOME": str(home)},
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    process.output = Path(output.name)
    return process


def kill_when(process: subprocess.Popen, seen: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    try:
        while not seen():
            assert process.poll() is None, process.output.read_text()[-3000:]
            assert time.monotonic() < end, process.output.read_text()[-3000:]
            time.sleep(0.02)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def finish(process: subprocess.Popen, seconds: float = 180) -> str:
    """The output of a process that must end well; it is killed when it does not end."""
    try:
        rc = process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    output = process.output.read_text()
    assert rc == 0, output[-3000:]
    return output


def runs(home: Path) -> list[dg.DagsterRun]:
    """Newest last."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        return instance.get_runs()[::-1]


@pytest.fixture
def small(tmp_path) -> Path:
    """The ci profile with pictures of two steps: a file of one's own, outside profiles/."""
    path = tmp_path / "small.yaml"
    ci = yaml.safe_load((ROOT / "profiles" / "ci.yaml").read_text())
    path.write_text(yaml.safe_dump(ci | {"diffusion": {"steps": 2}}))
    return path


@pytest.mark.parametrize(
    "executor", ["in_process", pytest.param("multiprocess", marks=pytest.mark.slow)]
)
def test_the_same_command_goes_on_after_kill_at_any_moment(tmp_path, home, small, executor):
    """Killed as it starts, killed in its GPU stage, the third time let alone: a job that begins
    with a GPU stage, whose turn a dead run would keep if it were a row in a database."""
    params, workspace = load_params(str(small)), Workspace(tmp_path, "small")
    run_stage("prompts", params, tmp_path)
    ensure_quality("images", params, workspace)  # once, and not in each of the four processes
    folder = workspace.folder("images")
    command = (
        "asset",
        "materialize",
        *MODULE,
        "--select",
        "images",
        "--partition",
        "small",
        "-c",
        config(tmp_path, str(small), execution={"config": {executor: {}}}),
    )
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.add_dynamic_partitions("profile", ["small"])
    kill_when(start(home, *command), lambda: any(home.glob("alive/[!.]*")))
    kill_when(start(home, *command), lambda: folder.is_dir())
    with turns.gpu_turn(tmp_path, "the test"):
        both = [start(home, *command), start(home, *command)]
        said = f"waits for the test, pid {os.getpid()}, since"
        end = time.monotonic() + 180
        while not all(said in process.output.read_text() for process in both):
            assert time.monotonic() < end, [p.output.read_text()[-2000:] for p in both]
            time.sleep(0.1)
    for process in both:
        finish(process)
    assert (folder / "manifest.json").is_file()
    assert [run.status.value for run in runs(home)] == ["FAILURE", "FAILURE", "SUCCESS", "SUCCESS"]
    assert {run.tags["dagster/partition"] for run in runs(home)} == {"small"}
    assert len(list((home / "alive").iterdir())) <= 2, "who is gone leaves nothing for long"


def test_a_busy_workspace_is_waited_for_and_named(caplog, monkeypatch):
    monkeypatch.setattr(turns, "PATIENCE", 0.01)
    answers = iter([WorkspaceBusy("images is in use: pid 7"), WorkspaceBusy("the same"), "made"])

    def call():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert turns.when_free(call) == "made"
    assert caplog.text.count("pid 7") == 1 and "the same" not in caplog.text


def test_a_lock_is_its_holders_and_the_kernels(tmp_path):
    """A waiting run shows for whom it waits; a killed holder holds nothing."""
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom orchestration.turns import turn\n"
        "with turn(Path(sys.argv[1]), 'the first'):\n    print(1, flush=True)\n"
        "    time.sleep(600)"
    )
    lock = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(lock)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    holder.stdout.readline()
    with lock.open() as file:
        assert not turns.try_lock(file) and f"the first, pid {holder.pid}" in file.read()
    os.killpg(holder.pid, signal.SIGKILL)
    holder.wait()
    with turns.turn(lock, "the second"):
        assert "the second" in lock.read_text()


def test_two_profiles_keep_histories_of_their_own(tmp_path):
    """A failed check of one stays failed after another's success; nothing is stale for it."""
    poisoned, sound = tmp_path / "a", tmp_path / "b"
    handmade.data_stages(sound, "small")
    handmade.data_stages(poisoned, "ci")
    handmade.write_masks(Workspace(poisoned, "ci"), lambda rows: rows.assign(score=0.01))
    job, check = (
        defs.resolve_job_def("data"),
        dg.AssetCheckKey(dg.AssetKey("masks"), "scores_in_range"),
    )
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions(PROFILES.name, ["ci", "small"])
        small = tmp_path / "small.yaml"  # handmade folders have the ci profile's settings
        small.write_text("base: ci\n")
        for profile, path, root in (("ci", "ci", poisoned), ("small", str(small), sound)):
            job.execute_in_process(
                instance=instance,
                partition_key=profile,
                raise_on_error=False,
                run_config={
                    "resources": {"project": {"config": {"profile": path, "root": str(root)}}}
                },
            )
        passed = {}
        for profile in ("ci", "small"):
            record = instance.event_log_storage.get_latest_asset_check_execution_by_key(
                [check], PartitionKeyFilter(key=profile)
            )[check]
            passed[profile] = record.status.value
        assert passed == {"ci": "FAILED", "small": "SUCCEEDED"}
        stale = CachingStaleStatusResolver(
            instance, defs.resolve_asset_graph(), LoadingContextForTest(instance)
        )
        for name in ("prompts", "images", "masks", "triplets"):
            assert stale.get_status(dg.AssetKey(name), "small").value == "FRESH", name
        assert stale.get_status(dg.AssetKey("masks"), "ci").value == "FRESH"
        assert stale.get_status(dg.AssetKey("triplets"), "ci").value == "MISSING"


def test_a_runs_profile_is_its_partition(tmp_path, small):
    known = known_profiles()
    assert known == sorted(known) and {"ci", "cluster", "micro"} < set(known)
    assert "paper" not in known
    assert profile_name({}) == "micro"
    assert profile_name({"resources": {"project": {"config": {"profile": ""}}}}) == "micro"
    run_config = {"resources": {"project": {"config": {"profile": str(small)}}}}
    assert profile_name(run_config) == "small"
    run_config["resources"]["project"]["config"]["profile"] = {"env": "NOT_SET"}
    with pytest.raises(ValueError, match=r"from \$NOT_SET, which is not set here: set it"):
        profile_name(run_config)
    project = Project()
    project._partition = "ci"  # chosen in the UI, the config left as it is
    assert project.params.profile == "ci"
    for name in ("sd15", "micro"):  # the default's name is a name like any other
        other = Project(profile=name)
        other._partition = "ci"
        with pytest.raises(
            ValueError, match=f"partition is 'ci', but its config says profile '{name}'"
        ):
            other.params  # noqa: B018


def test_what_is_tried_again(tmp_path):
    """A killed worker's shards are there at the next try; wrong settings stay wrong."""
    for error, again in ((ValueError("wrong"), False), (QualityError("bad"), False)):
        with (
            pytest.raises(dg.Failure, match=str(error)) as caught,
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(assets, "make", raising(error))
            assets.materialize(Project(root=str(tmp_path)), "images")
        assert caught.value.allow_retries is again
    killed = WorkerLost("a worker was lost 3 times")
    with pytest.raises(dg.Failure) as caught, pytest.MonkeyPatch.context() as patch:
        patch.setattr(assets, "make", raising(killed))
        assets.materialize(Project(root=str(tmp_path)), "images")
    assert caught.value.allow_retries is True


def raising(error: Exception):
    def make(*_):
        raise error

    return make


def test_who_is_written_off(home, monkeypatch):
    """A run that left no file, killed in the moment between its start and that, after a while;
    not one of another project or another machine in the same history, nor one that lives."""
    job = defs.resolve_job_def("data")
    origins = {
        "ours": ModuleCodePointer("orchestration.definitions", "defs"),
        "another's": ModuleCodePointer("other.definitions", "defs"),
    }
    with dg.DagsterInstance.from_config(str(home)) as instance:
        ids = {}
        for name in ("ours", "another's", "elsewhere", "alive"):
            pointer = origins.get(name, origins["ours"])
            run = instance.create_run_for_job(
                job,
                job_code_origin=JobPythonOrigin(
                    "data", RepositoryPythonOrigin(sys.executable, pointer)
                ),
            )
            instance.report_dagster_event(
                DagsterEvent(DagsterEventType.RUN_START.value, "data"), run.run_id
            )
            ids[name] = run.run_id
        begun.stay_alive(instance, ids["alive"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket, "gethostname", lambda: "another pod")
            begun.stay_alive(instance, ids["elsewhere"])
        (home / "alive" / ids["elsewhere"]).unlink()  # its folder is not this one
        assert begun.write_off_the_dead(instance) == []
        monkeypatch.setattr(begun, "GRACE", -1.0)
        assert begun.write_off_the_dead(instance) == [ids["ours"]]
        states = {name: instance.get_run_by_id(run).status.value for name, run in ids.items()}
        assert states.pop("ours") == "FAILURE" and set(states.values()) == {"STARTED"}


def test_a_run_that_was_killed_before_it_began_is_written_off(home, monkeypatch):
    """`dagster job execute` records a run first and begins it then; the UI, which begins it in a
    process of its own, has a while for that."""
    job, code = defs.resolve_job_def("data"), "orchestration.definitions"
    origin = JobPythonOrigin(
        "data", RepositoryPythonOrigin(sys.executable, ModuleCodePointer(code, "defs"))
    )
    with dg.DagsterInstance.from_config(str(home)) as instance:
        run = instance.create_run_for_job(job, job_code_origin=origin).run_id
        starting = instance.create_run_for_job(job, job_code_origin=origin).run_id
        instance.report_dagster_event(
            DagsterEvent(DagsterEventType.RUN_STARTING.value, "data"), starting
        )
        assert begun.write_off_the_dead(instance) == []
        monkeypatch.setattr(begun, "UNBEGUN", -1.0)
        assert set(begun.write_off_the_dead(instance)) == {run, starting}
        states = {instance.get_run_by_id(each).status.value for each in (run, starting)}
        assert states == {"FAILURE"}
        assert begun.write_off_the_dead(instance) == []


@pytest.mark.parametrize("kind", network_locks.KINDS)
def test_a_history_on_a_network_file_system(home, monkeypatch, kind):
    """One that lives is never written off; a dead one is, where a lock can tell."""
    network_locks.use(monkeypatch, kind)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        job = defs.resolve_job_def("data")
        living, dead = (instance.create_run_for_job(job).run_id for _ in range(2))
        begun.stay_alive(instance, living)
        for run in (living, dead):
            event = DagsterEvent(DagsterEventType.RUN_START.value, "data")
            instance.report_dagster_event(event, run)
        (home / "alive" / dead).touch()  # what its process left
        assert begun.write_off_the_dead(instance) == ([dead] if kind == "nfs" else [])


@pytest.mark.parametrize("value", [None, "", "relative/folder", "/proc/nowhere"])
def test_a_history_that_is_not_there_is_one_line(value, monkeypatch, capsys):
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    if value is not None:
        monkeypatch.setenv("DAGSTER_HOME", value)
    assert begun.main() == 2
    assert "error: DAGSTER_HOME is" in (said := capsys.readouterr().err) and "export" in said
