"""`python -m ml.studies` and the job `paper`, with studies made by hand in place of the real
ones."""

import inspect
import sys
import types

import dagster as dg
import pytest
import yaml

from ml.errors import ManifestError
from ml.pipeline.table import STAGES
from ml.settings.profile import ROOT
from ml.studies import __main__ as cli
from ml.studies.blocks import Cell, Row, Table
from ml.studies.catalogue import STUDIES, command, study
from ml.studies.saved import load
from ml.studies.study_run import StudyRun, open_run
from orchestration.definitions import defs
from orchestration.studies import PaperRun

ASSETS = {f"paper_{name}" for name in STUDIES} | {"paper_page"}


@pytest.fixture
def calls(monkeypatch) -> list:
    """Every study replaced by one that notes how it was called; (name, only) of each call."""
    noted: list = []

    def fake(name: str) -> types.ModuleType:
        def make(run: StudyRun, only: str | None = None) -> None:
            noted.append((name, only))

        def blocks(run: StudyRun) -> list:
            return [
                Table(
                    f"table of {name}",
                    {"a": "heading"},
                    [
                        Row("ours", {"a": Cell(55.55, 1.0, 54.0, 57.0, 50.0)}),
                        Row("DAAM", {"a": Cell(40.0)}),
                    ],
                ),
                Table("second", {"b": "other"}, [Row("ours", {"b": Cell(1.0)})]),
            ]

        module = types.ModuleType(f"ml.studies.{name}")
        module.TITLE, module.QUESTION, module.make, module.blocks = name, "why?", make, blocks
        return module

    for name in STUDIES:
        monkeypatch.setitem(sys.modules, f"ml.studies.{name}", fake(name))
    return noted


# The command line


def test_without_arguments_every_study_in_order_and_the_page(calls, tmp_path, capsys):
    assert cli.main(["--quick", "--root", str(tmp_path)]) == 0
    assert calls == [(name, None) for name in STUDIES]
    said = capsys.readouterr().out
    assert all(f"{name}: finished in 0.0 min" in said for name in STUDIES)
    page = (tmp_path / "data" / "paper-quick" / "results.md").read_text()
    assert "55.5 ± 1.0" in page or "55.6 ± 1.0" in page
    assert not (tmp_path / "docs").exists()


def test_a_full_run_writes_docs_and_exports(calls, tmp_path):
    assert cli.main(["--root", str(tmp_path)]) == 0
    assert (tmp_path / "docs" / "results.html").is_file()
    assert (tmp_path / "docs" / "paper" / "limits.json").is_file()


def test_one_study_then_the_page_alone(calls, tmp_path):
    assert cli.main(["--quick", "--root", str(tmp_path), "--study", "limits"]) == 0
    html = tmp_path / "data" / "paper-quick" / "results.html"
    first = html.read_text()
    html.unlink()
    assert cli.main(["--quick", "--root", str(tmp_path), "--page-only"]) == 0
    assert html.read_text() == first and "table of limits" in first
    assert calls == [("limits", None)]


def test_a_study_that_fails_stops_the_run_and_goes_on_later(calls, tmp_path, monkeypatch, capsys):
    def broken(run, only=None):
        raise ManifestError("expected a picture, got none")

    module, arguments = study("zero_shot"), ["--quick", "--root", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(module, "make", broken)
        assert cli.main(arguments) == 3
    said = capsys.readouterr().err
    assert "zero_shot" in said and "expected a picture, got none" in said
    run = open_run("quick", tmp_path, 1)
    assert load(run, "protocol_three") and load(run, "zero_shot") is None
    assert cli.main(arguments) == 0 and load(run, "absent_words")


def test_a_row_prints_its_figures_of_all_tables(calls, tmp_path, capsys):
    line = ["--quick", "--root", str(tmp_path), "--study", "limits", "--row"]
    assert cli.main([*line, "ours"]) == 0
    assert calls == [("limits", "ours")]
    said = capsys.readouterr().out
    assert "table of limits: ours" in said and "[54.0, 57.0]  paper 50.0" in said
    assert "second: ours" in said and "DAAM" not in said
    assert not (tmp_path / "data" / "paper-quick" / "blocks").exists()
    assert cli.main([*line, "nobody"]) == 2
    assert "no row 'nobody': expected one of 'ours', 'DAAM'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (
            ["--study", "protocol_two"],
            "unknown study 'protocol_two': expected one of protocol_one, ",
        ),
        (["--row", "ours"], "--row needs exactly one --study"),
        (["--study", "limits", "ablations", "--row", "ours"], "--row needs exactly one --study"),
        (["--study", "limits", "--row", "ours", "--page-only"], "no --page-only"),
        (["--quick", "--export"], "--export publishes the full size"),
        (
            ["--workers", "0"],
            "argument --workers: expected a whole number from 1 to 1,024, got '0'",
        ),
    ],
)
def test_what_cannot_work_is_said_before_any_work(calls, arguments, match, capsys, tmp_path):
    assert cli.main([*arguments, "--root", str(tmp_path)]) == 2
    assert match in capsys.readouterr().err
    assert not calls and not list(tmp_path.iterdir())


def test_commands_of_rows_survive_a_shell():
    import shlex

    run = open_run("quick", ROOT, 1)
    assert shlex.split(command(run, "limits", "it's 5 $x")) == [
        "python",
        "-m",
        "ml.studies",
        "--quick",
        "--study",
        "limits",
        "--row",
        "it's 5 $x",
    ]
    assert command(open_run("full", ROOT, 1)) == "python -m ml.studies"


@pytest.mark.parametrize("name", STUDIES)
def test_studies_keep_the_contract(name):
    module = study(name)
    assert module.TITLE and module.QUESTION and module.__doc__
    assert list(inspect.signature(module.make).parameters) == ["run", "only"]
    assert inspect.signature(module.make).parameters["only"].default is None
    assert list(inspect.signature(module.blocks).parameters) == ["run"]


# The job


def test_the_job_holds_the_studies_and_the_pipeline_does_not():
    def selected(job: str) -> set[str]:
        keys = defs.resolve_job_def(job).asset_layer.selected_asset_keys
        return {key.to_user_string() for key in keys}

    assert selected("paper") == ASSETS
    assert selected("pipeline") == {stage.name for stage in STAGES} | {"sealed_data"}
    graph = defs.resolve_asset_graph()
    parents = {key.to_user_string() for key in graph.get(dg.AssetKey("paper_page")).parent_keys}
    assert parents == ASSETS - {"paper_page"}
    for name in STUDIES:
        node = graph.get(dg.AssetKey(f"paper_{name}"))
        op = defs.resolve_assets_def(f"paper_{name}").op
        assert node.tags["compute"] == op.tags["compute"] == "gpu" and not node.partitions_def
        assert node.group_name == "paper" and not node.parent_keys


def test_the_job_makes_studies_and_page(calls, tmp_path):
    config = yaml.safe_load((ROOT / "profiles" / "paper-quick.run.yaml").read_text())
    config["resources"]["paper"]["config"]["root"] = str(tmp_path)
    with dg.instance_for_test() as instance:
        result = defs.resolve_job_def("paper").execute_in_process(
            run_config=config, instance=instance
        )
        made = {
            event.asset_key.to_user_string(): event.materialization.metadata
            for event in result.get_asset_materialization_events()
        }
    assert set(made) == ASSETS and {name for name, _ in calls} == set(STUDIES)
    assert made["paper_limits"]["minutes"].value < 1
    assert "paper 50.0" in made["paper_limits"]["table"].value
    page = tmp_path / "data" / "paper-quick" / "results.html"
    assert made["paper_page"]["html"].value == str(page)
    assert "Not run yet" not in page.read_text() and not (tmp_path / "docs").exists()


def test_the_resource_is_the_full_size_unless_told():
    assert PaperRun().run.size.name == "full" and PaperRun().run.root == ROOT
    with pytest.raises(ValueError, match="'full' or 'quick'.*'tiny'"):
        _ = PaperRun(size="tiny").run
