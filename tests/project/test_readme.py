"""What the README tells a stranger to do exists, and its figures are those of the kept run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ml.metrics.protocol_two import COLUMNS
from ml.pipeline.table import STAGES
from ml.settings.profile import ROOT
from ml.words.cells import CELLS
from ml.words.vocabulary import load_vocabulary
from tests.builders.doors import stage_folder

README = (ROOT / "README.md").read_text()
GRAPH = (ROOT / "docs" / "graph.md").read_text()
OWN_WORDS = (ROOT / "docs" / "own-words.md").read_text()


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"^make ([a-z-]+)", README, re.MULTILINE)))
)
def test_make_targets_resolve(target):
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert target == "help" or ".venv/bin" in done.stdout


def test_both_commands_of_the_promise_are_there():
    assert "make run " in blocks("sh")[0] and "make test " in blocks("sh")[0]


def test_stage_table_is_the_graph():
    named = re.findall(r"^\| `(\w+)` \|", GRAPH, re.MULTILINE)
    assert named == [stage.name for stage in STAGES]


def test_jobs_named_exist():
    from orchestration.jobs import JOBS

    assert {job.name for job in JOBS} == {"pipeline", "data", "train_and_score", "promote", "paper"}
    assert "-j pipeline" in GRAPH and "data, train_and_score, promote, paper" in GRAPH


def test_the_first_snippet_runs(tmp_path, monkeypatch):
    stage_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(blocks("python")[0], names)
    assert names["picture"].size == (64, 64)
    assert names["dog"].shape == (64, 64) and names["dog"].dtype == bool


def test_vocabulary_example_loads(tmp_path):
    example = blocks("yaml", OWN_WORDS)[0]
    (tmp_path / "words.yaml").write_text(example)
    vocabulary = load_vocabulary(str(tmp_path / "words.yaml"))
    assert vocabulary.seen == tuple(yaml.safe_load(example)["seen"])
    assert vocabulary.words["sofa"] == ("sofa", "couch")


def test_pictures_and_links_exist():
    for path in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_place_named_is_there(page):
    text = (ROOT / page).read_text()
    if page == "CHANGELOG.md":  # its table names what is gone, too: only what is there now
        text = "\n".join(re.findall(r"\|([^|\n]*)\|$", text, re.MULTILINE))
    places = set(re.findall(r"`((?:ml|orchestration|tests|docs|benchmarks)/[\w./-]+)`", text))
    places |= {
        name.replace(".", "/") for name in re.findall(r"`((?:ml|orchestration)\.[\w.]+)`", text)
    }
    found = lambda place: (ROOT / place).exists() or (ROOT / f"{place}.py").is_file()  # noqa: E731
    assert places or page == "README.md"
    assert not sorted(place for place in places if not found(place))


def test_make_clean_leaves_what_people_made(tmp_path):
    """It removed marks, taught words and exports with the folder that they lie in."""
    shutil.copyfile(ROOT / "Makefile", tmp_path / "Makefile")
    (tmp_path / "ml").symlink_to(ROOT / "ml")
    (tmp_path / ".dagster").mkdir()
    data, kept = tmp_path / "data", {"audit/marks.json", "taught/model.bin", "notes.txt"}
    made = {f"{stage.name}/manifest.json" for stage in STAGES} | {".state/masks/quality.json"}
    for name in kept | made:
        (data / "micro" / name).parent.mkdir(parents=True, exist_ok=True)
        (data / "micro" / name).touch()
    (data / "ci" / "images").mkdir(parents=True)
    done = subprocess.run(
        ["make", "clean", f"PYTHON={sys.executable}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    left = {str(path.relative_to(data)) for path in data.rglob("*") if path.is_file()}
    assert left == {f"micro/{name}" for name in kept} and not (data / "ci").exists()


def test_figures_are_those_of_the_kept_run():
    """docs/summary.json is what `make run` wrote; a README edited by hand would disagree."""
    summary = json.loads((ROOT / "docs" / "summary.json").read_text())
    rows = {
        "ours": (summary["grounding"]["ours"], CELLS),
        "DAAM": (summary["grounding"]["daam"], CELLS),
        "synthetic": (summary["segmentation"]["synthetic"], COLUMNS),
        "real bound": (summary["segmentation"]["real_upper_bound"], COLUMNS),
    }
    for name, (scores, columns) in rows.items():
        cells = re.search(rf"^\| {name} \|(.*)\|$", README, re.MULTILINE)
        assert cells, f"no row {name!r}"
        shown = [float(cell.strip(" *")) for cell in cells[1].split("|")]
        assert shown == [round(scores[column], 1) for column in columns], name


def test_dagster_home_is_there_before_any_make(tmp_path):
    """`export DAGSTER_HOME=$PWD/.dagster` in a fresh clone: the folder and its settings come with
    it, the history that grows there stays out of git."""
    tracked = subprocess.run(
        ["git", "ls-files", ".dagster"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    assert tracked == [".dagster/.gitignore", ".dagster/dagster.yaml"]
    ignored = subprocess.run(["git", "check-ignore", ".dagster/history/runs.db"], cwd=ROOT)
    assert ignored.returncode == 0
    for file in tracked:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes((ROOT / file).read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "job", "list", "-m", "orchestration.definitions"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"DAGSTER_HOME": str(tmp_path / ".dagster")},
    )
    assert done.returncode == 0 and "Job: pipeline" in done.stdout, done.stderr


def test_dg_launch_starts_a_run_without_a_warning(tmp_path):
    """`dagster job execute` says that it is superseded; this one does not."""
    config = {"resources": {"project": {"config": {"profile": "ci", "root": str(tmp_path)}}}}
    shutil.copy(ROOT / ".dagster" / "dagster.yaml", tmp_path)
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("dg")),
            "launch",
            "--assets",
            "prompts",
            "--partition",
            "ci",
            "-m",
            "orchestration.definitions",
            "--config-json",
            json.dumps(config),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"DAGSTER_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "superseded" not in done.stdout + done.stderr
    assert (tmp_path / "data" / "ci" / "prompts" / "manifest.json").is_file()
