"""The Dagster and MLflow UIs by use, on the finished run of `make ci`: pictures, a failed check, a
launch of another profile, the sensor's switch, the champion, two runs beside one another."""

import base64
import io
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from benchmarks.poisons.copies import put_rows, rows_of
from ml.images.facts import picture_facts
from ml.images.png import decode_png, encode_png
from ml.pipeline.workspace import Workspace
from ml.settings.profile import ROOT, load_params
from orchestration.mlflow.registry import Registry
from orchestration.resources import Project
from tests.builders.dagster_cli import dagster, run_config
from tests.builders.servers import ask, dagster_ui, mlflow_ui

pytestmark = pytest.mark.browser
VIEW = {"viewport": {"width": 1350, "height": 850}}
LARGEST = 150_000  # bytes of a screenshot
FAINT = (3, 30, 57, 84, 111, 138)  # rows whose pictures are made faint
RUNS = """{ runsOrError(limit: 1) { ... on Runs { results {
  runId status jobName tags { key value } runConfigYaml } } } }"""


@dataclass
class Uis:
    dagster: str
    mlflow: str
    root: Path  # holds the copy of the run, and the registry
    names: list[str]  # of the segmenter's runs in MLflow, one a profile


def copied(root: Path, profile: str) -> Workspace:
    """The checkout's ci run in another root, under a profile's name."""
    left_out = shutil.ignore_patterns("mlflow.db", "mlartifacts", ".locks", "profile.json")
    shutil.copytree(ROOT / "data" / "ci", root / "data" / profile, ignore=left_out)
    return Workspace(root, profile)


def make_faint(workspace: Workspace) -> None:
    """Six of the pictures have nearly one level: what a broken decoder would leave."""
    rows = rows_of(workspace, "images")
    for row in FAINT:
        image = (decode_png(rows.image[row]) // 64 + 120).astype(np.uint8)
        rows.at[row, "image"] = encode_png(image)
        for name, value in picture_facts(image).items():
            rows.at[row, name] = value
    put_rows(workspace, "images", rows, load_params("ci"))


def register(root: Path, profile: str) -> str:
    """Registers the segmenter of a profile in the root's registry; the name of its run."""
    project = Project(profile=profile, root=str(root))
    registry = Registry(*project.registry, project.params, project.workspace)
    registry.log_challenger("segmenter")
    version = registry.client.get_model_version_by_alias(registry.names["segmenter"], "challenger")
    return registry.client.get_run(version.run_id).info.run_name


@pytest.fixture(scope="module")
def uis(tmp_path_factory) -> Iterator[Uis]:
    """Both UIs, on a history and a registry of their own: the ci run, found done; its data with six
    faint pictures, which a check refuses; the same run as that of another profile."""
    if not (ROOT / "data/ci/report/manifest.json").is_file():
        pytest.skip("data/ci holds no finished run: make ci")
    root, bad, home = (tmp_path_factory.mktemp(name) for name in ("root", "bad", "dagster"))
    copied(root, "ci")
    make_faint(copied(bad, "ci"))
    copied(root, "split2")
    (home / "dagster.yaml").symlink_to(ROOT / ".dagster" / "dagster.yaml")
    config = run_config(root, profile="ci", root=str(root))
    done = dagster(home, "job", "execute", "-j", "pipeline", "-c", config)
    assert done.returncode == 0, done.stderr[-3000:]
    config = run_config(bad, profile="ci", root=str(bad))
    failed = dagster(home, "job", "execute", "-j", "data", "-c", config)
    assert failed.returncode != 0 and "images: not_blank" in failed.stderr, failed.stderr[-3000:]
    (root / "split2.yaml").write_text("base: ci\n")
    names = [register(root, profile) for profile in ("ci", str(root / "split2.yaml"))]
    with (
        dagster_ui(home, WORDS_TO_MASKS_ROOT=str(root)) as first,
        mlflow_ui(root / "mlflow.db", root) as second,
    ):
        yield Uis(first, second, root, names)


@pytest.fixture
def keep(request, tmp_path):
    """Keeps a picture of the page as `ui-<name>.png`, in the folder that --screenshots names. What
    names a folder of this machine is left out."""
    folder = request.config.getoption("--screenshots", default=None) or tmp_path

    def shoot(page: Page, name: str) -> None:
        page.get_by_text(str(tmp_path.parents[1])).evaluate_all(
            "all => all.forEach(found => found.style.visibility = 'hidden')"
        )
        shot = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
        shot = shot.resize((1000, shot.height * 1000 // shot.width), Image.Resampling.LANCZOS)
        file = folder / f"ui-{name}.png"
        shot.quantize(192, dither=Image.Dither.NONE).save(file, optimize=True)
        assert file.stat().st_size < LARGEST, f"{file} is too large for the docs"

    return shoot


def picture_of(image: Locator) -> bytes:
    """The bytes of an <img> that holds its own, which the browser could decode."""
    expect(image).to_be_visible()
    assert image.evaluate("image => image.complete && image.naturalWidth") > 100
    return base64.b64decode(image.get_attribute("src").split("base64,")[1])


def test_an_asset_shows_its_pictures(uis, open_page, keep):
    page = open_page(f"{uis.dagster}/assets/synthetic_dataset?view=overview", **VIEW)
    page.get_by_role("row").filter(has_text="contact_sheet").get_by_text("Show Markdown").click()
    shown = picture_of(page.get_by_role("dialog").locator("img"))
    sheet = uis.root / "data" / "ci" / "synthetic_dataset" / "contact_sheet.jpg"
    assert shown == sheet.read_bytes()
    keep(page, "asset")


def test_a_failed_check_says_what_to_do_and_shows_its_pictures(uis, open_page, keep):
    page = open_page(f"{uis.dagster}/assets/images?view=overview", **VIEW)
    page.get_by_role("tab", name="Checks").or_(page.get_by_role("link", name="Checks")).click()
    page.get_by_text("not_blank").first.click()
    said = page.get_by_text("of 220 rows break it, expected grey levels vary").first
    expect(said).to_contain_text("make it again: python -m ml images --profile ci --force")
    expect(said).to_contain_text("change triplets.min_std in profiles/ci.yaml")
    row = page.get_by_role("row").filter(has_text="offending_pictures")
    row.get_by_text("Show Markdown").click()
    sheet = Image.open(io.BytesIO(picture_of(page.get_by_role("dialog").locator("img"))))
    tile = np.asarray(sheet.convert("L"))[20:140, 20:140]
    assert tile.std() < 4 and 110 < tile.mean() < 130, "one of the faint pictures"
    keep(page, "failed-check")


def test_another_profile_is_launched_from_the_launchpad(uis, open_page, keep):
    """No file is edited: a partition is chosen, the editor fills itself, and the run is its."""
    page = open_page(f"{uis.dagster}/locations/orchestration.definitions/jobs/data", **VIEW)
    button = page.get_by_role("button", name="Materialize all")
    expect(button.first).to_be_enabled()
    box = button.first.bounding_box()
    page.mouse.click(box["x"] + box["width"] + 10, box["y"] + box["height"] / 2)
    page.get_by_text("Open launchpad").click()
    dialog = page.get_by_role("dialog").filter(has_text="configure assets")
    expect(dialog).to_contain_text("Which profile is made, and where its data and its models lie.")
    expect(dialog).to_contain_text("No errors")
    expect(dialog.get_by_text("Checking config")).to_be_hidden()
    partition = dialog.get_by_placeholder("Partition")
    partition.click()
    partition.press_sequentially("ci")
    partition.press("Enter")
    expect(dialog).to_contain_text("profile: 'ci'")
    expect(dialog).to_contain_text("'sqlite:///data/ci/mlflow.db'")
    expect(dialog).to_contain_text("No errors")
    keep(page, "launchpad")
    before = ask(uis.dagster, RUNS)["runsOrError"]["results"][0]["runId"]
    dialog.get_by_role("button", name="Materialize").last.click()
    end, run = time.monotonic() + 300, {"runId": before, "status": ""}
    while run["runId"] == before or run["status"] not in ("SUCCESS", "FAILURE", "CANCELED"):
        assert time.monotonic() < end, run
        time.sleep(0.5)
        (run,) = ask(uis.dagster, RUNS)["runsOrError"]["results"]
    assert run["status"] == "SUCCESS" and run["jobName"] == "data"
    assert {"key": "dagster/partition", "value": "ci"} in run["tags"]
    assert "profile: ci" in run["runConfigYaml"]


def test_the_sensor_is_turned_on_and_says_what_it_does(uis, open_page):
    page = open_page(f"{uis.dagster}/automation", **VIEW)
    page.get_by_text("changed_profiles").first.click()
    expect(page.get_by_text("Off until you turn it on").first).to_be_visible()
    page.get_by_role("row").filter(has_text="Running").locator("label").click()
    page.get_by_text("0 runs requested").first.click()
    expect(
        page.get_by_text(re.compile("(watches|nothing changed in) ci, cluster")).first
    ).to_be_visible()


def test_the_champion_is_seen_in_mlflow(uis, open_page):
    page = open_page(f"{uis.mlflow}/#/models/segmenter-ci", **VIEW)
    expect(page.get_by_text("@ champion").first).to_be_visible()
    page.get_by_text("Version 1").first.click()
    expect(page.get_by_text("no human drew a mask").first).to_be_visible()


def test_runs_of_two_profiles_are_compared_in_mlflow(uis, open_page, keep):
    page = open_page(f"{uis.mlflow}/#/experiments", **VIEW)
    for profile in ("ci", "split2"):
        row = page.get_by_role("row").filter(has_text=f"words-to-masks {profile}")
        row.get_by_role("checkbox").first.check(force=True)
    page.get_by_role("button", name="Compare", exact=True).click()
    for name in uis.names:
        row = page.get_by_role("row").filter(has_text=name).first
        index = row.get_attribute("row-index")
        page.locator(f'[row-index="{index}"] input[type=checkbox]').first.check(force=True)
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_text("Comparing 2 Runs from 2 Experiments")).to_be_visible()
    for name in ("real_upper_bound/harmonic", "curve/val_miou"):
        expect(page.get_by_text(name, exact=True).first).to_be_attached()
    page.get_by_text("curve/val_miou", exact=True).first.scroll_into_view_if_needed()
    keep(page, "mlflow-compare")


def test_a_runs_pictures_are_shown_in_mlflow(uis, open_page):
    project = Project(profile="ci", root=str(uis.root))
    registry = Registry(*project.registry, project.params, project.workspace)
    version = registry.client.get_model_version_by_alias("segmenter-ci", "champion")
    where = f"experiments/{registry.experiment}/runs/{version.run_id}/artifacts"
    page = open_page(f"{uis.mlflow}/#/{where}/pictures/segmenter.jpg", **VIEW)
    image = page.locator("img[src*='segmenter.jpg'], img[src^='blob:']").first
    expect(image).to_be_visible()
    assert image.evaluate("image => image.naturalWidth") > 100
