"""Definitions, jobs, metadata and the resource; the graph on stage folders made by hand."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml
from PIL import Image

from ml.pipeline import curve
from ml.pipeline.facts import flatten
from ml.pipeline.runner import StageReport
from ml.pipeline.table import STAGES
from ml.settings.profile import ROOT, load_params
from ml.store.manifest import read_manifest
from orchestration import metadata
from orchestration.definitions import defs
from orchestration.resources import Project
from tests.builders import handmade
from tests.builders.dagster_cli import dagster, dagster_here, run_config

HEAVY = {
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "mlflow",
    "great_expectations",
    "dvc",
    "scipy",
    "pycocotools",
}
WALLED = f"""
import sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Wall())
import orchestration.definitions as loaded
loaded.dg.Definitions.validate_loadable(loaded.defs)
"""


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "dagster"
    folder.mkdir()
    (folder / "dagster.yaml").symlink_to(ROOT / ".dagster" / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    return folder


def test_definitions_load_where_nothing_heavy_is_installed():
    """The web server and the daemon import the definitions: a torch import costs them 3 s each,
    and a machine that only shows the graph has no torch."""
    done = subprocess.run([sys.executable, "-c", WALLED], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_selection_strings_parse():
    """DVC pulls an old hydra and an old antlr, with which every Dagster selection string dies with
    `TypeError: ord() expected string of length 1`; pyproject.toml asks for newer ones."""
    selected = dg.AssetSelection.from_string("images+").resolve(defs.resolve_asset_graph())
    assert dg.AssetKey("images") in selected and dg.AssetKey("masks") in selected
    assert dg.AssetKey("prompts") not in selected


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ("pipeline", {stage.name for stage in STAGES} | {"sealed_data"}),
        ("data", {"prompts", "images", "masks", "triplets"}),
        (
            "train_and_score",
            {
                "benchmark",
                "grounding_model",
                "grounding_scores",
                "synthetic_dataset",
                "segmenter",
                "real_bound",
                "benchmark_scores",
            },
        ),
        ("promote", {"promotion", "report"}),
    ],
)
def test_jobs_hold_their_assets_and_checks(job, expected):
    layer = defs.resolve_job_def(job).asset_layer
    assert {key.to_user_string() for key in layer.selected_asset_keys} == expected
    checked = {check.asset_key.to_user_string() for check in layer.asset_graph.asset_check_keys}
    assert checked == expected - {"sealed_data", "promotion", "report"}


def test_every_asset_is_described_for_the_catalogue():
    for spec in defs.resolve_all_asset_specs():
        assert spec.group_name in {stage.group for stage in STAGES} | {"paper"}
        assert spec.description and spec.owners and spec.kinds, spec.key


def test_profiles_and_their_run_configs_load():
    for file in (ROOT / "profiles").glob("*.yaml"):
        if not file.name.endswith(".run.yaml"):
            assert load_params(file.stem).profile == file.stem
    config = yaml.safe_load((ROOT / "profiles" / "ci.run.yaml").read_text())
    project = Project(**config["resources"]["project"]["config"])
    assert project.params == load_params("ci")
    assert project.registry[0] == f"sqlite:///{ROOT / 'data' / 'ci' / 'mlflow.db'}"


def test_flatten_names_nested_facts():
    facts = {"a": {"b": 1, "c": {"d": 2.5}}, "e": "x"}
    assert flatten(facts) == {"a/b": 1, "a/c/d": 2.5, "e": "x"}


def test_facts_keep_their_types(tmp_path):
    report = StageReport("images", "d" * 64, True, 2.0, 100.0, {"n": 3, "x": 0.5, "s": "t"})
    values = metadata.describe(report, tmp_path)
    assert values["n"] == dg.MetadataValue.int(3)
    assert values["x"] == dg.MetadataValue.float(0.5)
    assert values["s"] == dg.MetadataValue.text("t")
    assert values["already_up_to_date"] == dg.MetadataValue.bool(True)


def test_large_pictures_stay_files(tmp_path):
    path = tmp_path / "contact_sheet.jpg"
    path.write_bytes(b"x" * (metadata.MAX_PICTURE + 1))
    assert isinstance(metadata.pictures(tmp_path)["contact_sheet"], dg.PathMetadataValue)
    path.write_bytes(b"x" * 10)
    assert isinstance(metadata.pictures(tmp_path)["contact_sheet"], dg.MarkdownMetadataValue)


def test_curve_is_drawn_small(tmp_path):
    path = tmp_path / "curve.csv"
    path.write_text("step,loss,val_miou\n0,2.0,\n10,1.0,40\n20,nan,60\n")
    assert curve.read_curve(path) == {
        "loss": [(0, 2.0), (10, 1.0)],
        "val_miou": [(10, 40.0), (20, 60.0)],
    }
    drawn = tmp_path / "curve.png"
    drawn.write_bytes(curve.draw_curve(path))
    assert Image.open(drawn).size == (480, 200) and drawn.stat().st_size < 20_000
    path.write_text("step,loss\n0,2.0\n")
    assert curve.draw_curve(path) == b""


def test_data_job_through_the_command_line(tmp_path, home):
    """The command that users type, on folders that are done: checks are judged, versions shown."""
    workspace = handmade.data_stages(tmp_path)
    config = run_config(tmp_path, profile="ci", root=str(tmp_path))
    done = dagster(home, "job", "execute", "-j", "data", "-c", config)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "DEBUG" not in done.stderr, "every event is in the history, the console shows warnings"
    with dg.DagsterInstance.from_config(str(home)) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("images"))
        shown = event.asset_materialization
        digest = read_manifest(workspace.folder("images")).digest
        assert shown.tags["dagster/data_version"] == digest
        assert shown.partition == "ci", "a profile is a partition"
        (run,) = instance.get_runs()
        assert run.tags["dagster/partition"] == "ci"
        assert "data:image/jpeg;base64," in shown.metadata["contact_sheet"].value
        assert instance.get_latest_materialization_event(dg.AssetKey("benchmark")) is None
    for name in ("prompts", "images", "masks", "triplets"):
        assert (workspace.state(name) / "quality.json").is_file()


@pytest.mark.parametrize(
    ("select", "message"),
    [("tag:nothing", "The selection matches no asset"), ("nothing", "'nothing'")],
)
def test_a_selection_that_matches_nothing_starts_nothing(select, message, home):
    """Dagster takes an empty selection for all assets: the whole graph and the studies."""
    done = dagster_here(home, "asset", "materialize", "--select", select)
    assert done.exit_code != 0 and message in f"{done.output} {done.exception}"
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert not instance.get_event_records(dg.EventRecordsFilter(dg.DagsterEventType.STEP_START))


@pytest.mark.parametrize("kind", ["in_process", "multiprocess"])
def test_the_executor_is_chosen_in_run_config(kind):
    """One process by default; the shape of the config is that of Dagster's own executors."""
    job = defs.resolve_job_def("data")
    chosen = dg.validate_run_config(job, {"execution": {"config": {kind: {}}}})["execution"]
    assert list(chosen["in_process_or_multiprocess"]) == [kind]
    default = dg.validate_run_config(job, {})["execution"]["in_process_or_multiprocess"]
    assert list(default) == ["in_process"]
    limits = {
        "multiprocess": {
            "max_concurrent": 2,
            "tag_concurrency_limits": [{"key": "compute", "value": "gpu", "limit": 1}],
        }
    }
    dg.validate_run_config(job, {"execution": {"config": limits}})


def test_a_profile_can_be_chosen_in_a_new_history(tmp_path, home):
    """`--partition` before any run; Dagster asks the history alone, which knows none yet. The asset
    is one without checks, which says whose data it looked at."""
    config = run_config(tmp_path, root=str(tmp_path))
    chosen = ("--select", "sealed_data", "--partition", "ci", "-c", config)
    done = dagster_here(home, "asset", "materialize", *chosen)
    assert done.exit_code == 0, done.output[-3000:]
    with dg.DagsterInstance.from_config(str(home)) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("sealed_data"))
    made = event.asset_materialization
    assert made.partition == "ci" and "data/ci" in made.metadata["reason"].value
