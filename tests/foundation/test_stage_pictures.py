"""The pictures of docs/how-it-works.md: drawn from a finished run, readable, and of all stages."""

import re

import numpy as np
import pytest
from PIL import Image

from ml.foundation import stage_pictures
from ml.foundation.stage_sheets import SEEN, UNSEEN, WIDTH, Tile, bars, heat, sheet, text_lines
from ml.settings.profile import ROOT
from tests.builders import tiny_graph

PAGE = (ROOT / "docs" / "how-it-works.md").read_text()


def near(path, colour) -> int:
    """Pixels of a JPEG that are within 40 of a colour."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((np.abs(pixels - colour).max(axis=-1) < 40).sum())


def test_words_have_the_colour_of_seen_and_unseen(tmp_path):
    text_lines([("train", "a dog and a bus", {"dog": True, "bus": True})], tmp_path / "seen.jpg")
    text_lines([("sim", "a dog and a bus", {"dog": True, "bus": False})], tmp_path / "both.jpg")
    assert near(tmp_path / "seen.jpg", SEEN) and not near(tmp_path / "seen.jpg", UNSEEN)
    assert near(tmp_path / "both.jpg", SEEN) and near(tmp_path / "both.jpg", UNSEEN)


def test_a_bar_is_as_long_as_its_score(tmp_path):
    for score in (20.0, 80.0):
        bars({"segmenter": (score, "promoted")}, {"segmenter": 10}, tmp_path / f"{score:.0f}.jpg")
    short, long = (near(tmp_path / f"{score}.jpg", (110, 150, 215)) for score in (20, 80))
    assert 3 < long / short < 6


def test_heat_is_dark_where_a_map_is_low_and_bright_where_it_is_high():
    shown = heat(np.array([[0.0, 5.0], [10.0, 5.0]])).sum(axis=-1)
    assert shown[0, 0] < shown[0, 1] == shown[1, 1] < shown[1, 0]
    assert len(np.unique(heat(np.ones((4, 4))))) <= 3, "a map without differences has one colour"


def test_a_sheet_is_as_wide_as_all_others_whatever_its_columns(tmp_path):
    tile = Tile(np.full((64, 64, 3), 90, np.uint8), None, "a dog")
    for columns in (6, 9):
        sheet([tile] * columns, tmp_path / "sheet.jpg", columns)
        assert abs(Image.open(tmp_path / "sheet.jpg").width - WIDTH) < 20
    with pytest.raises(ValueError, match="expected a finished run"):
        sheet([], tmp_path / "none.jpg", 6)


def test_the_page_shows_every_picture_that_is_kept_and_each_is_small():
    shown = set(re.findall(r"images/stages/(\w+)\.jpg", PAGE))
    kept = {path.stem: path for path in (ROOT / "docs/images/stages").glob("*.jpg")}
    assert shown == set(kept) and len(kept) == 10
    assert all(path.stat().st_size <= 100_000 for path in kept.values())


@pytest.mark.slow
def test_a_finished_run_gives_every_picture_of_the_page(tmp_path):
    tiny_graph.make(tmp_path)
    profile, out = str(tmp_path / "tiny.yaml"), tmp_path / "pictures"
    done = stage_pictures.main(["--profile", profile, "--root", str(tmp_path), "--out", str(out)])
    assert done == 0
    drawn = {path.stem for path in out.glob("*.jpg")}
    assert drawn == set(re.findall(r"images/stages/(\w+)\.jpg", PAGE))
    assert all(min(Image.open(path).size) > 100 for path in out.glob("*.jpg"))
