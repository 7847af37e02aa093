"""The studies' pages from blocks made by hand: figures, escaping, self-containment, export."""

import base64
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from ml.settings.profile import ROOT
from ml.studies import markdown, plots
from ml.studies.blocks import Cell, Picture, Plot, Row, Table, Text
from ml.studies.catalogue import STUDIES
from ml.studies.export import export, export_raw
from ml.studies.page import place, publish, render_markdown
from ml.studies.plots import draw_svg
from ml.studies.published import read
from ml.studies.saved import Saved, from_plain, load, save, to_plain
from ml.studies.scores import RAW
from ml.studies.study_run import open_run
from ml.words.markdown import escape

NASTY = "a | b <script>alert(1)</script> & *c* `d"


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


TABLE = Table(
    "Protocol I",
    {"seen": "one, seen", "two_unseen": "two, unseen"},
    [
        Row(
            "our module",
            {
                "seen": Cell(91.06, 0.449, 88.0, 93.96, 90.3),
                "two_unseen": Cell(80.0, 2.25, 75.5, 84.2, 55.74),
            },
        ),
        Row("DAAM at 0.4", {"seen": Cell(62.1)}),
        Row(NASTY, {"seen": Cell(math.nan, 1.0, 0.0, 1.0)}),
    ],
    note="Judged by the detector, see `ml.studies.scores`.",
)
PLOT = Plot(
    "Feature timestep",
    "timestep",
    "mIoU, %",
    {"ours": [(1.0, 80.0, 2.0), (5.0, 81.0, 1.0)], "paper": [(1.0, 57.5, 0.0)]},
)
SAVED = Saved(
    "Protocol I, again",
    "Does it beat `daam` & co?",
    (Text("- no list, and `code | <b>`"), TABLE, PLOT, Picture(NASTY, jpeg())),
)


@pytest.fixture
def full(tmp_path):
    return open_run("full", tmp_path, 1)


@pytest.fixture
def quick(tmp_path):
    return open_run("quick", tmp_path, 1)


def files(folder) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class Page(HTMLParser):
    """Texts, and what the page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.refers, self.tags, self.ids = "", [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        own = dict(attrs)
        self.refers += [own[key] for key in ("src", "href", "xlink:href", "srcset") if key in own]
        self.ids += [own["id"]] if "id" in own else []

    def handle_data(self, data):
        self.text += data


# Figures in words


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (Cell(91.06, 0.449, 88.0, 93.96, 90.3), ("91.1 ± 0.4", "[88.0, 94.0]", "90.3")),
        (Cell(62.1), ("62.1", "", "")),
        (Cell(62.1, None, 60.0, 64.0), ("62.1", "[60.0, 64.0]", "")),
        (Cell(-0.01, 0.0), ("0.0 ± 0.0", "", "")),
        (Cell(math.nan, 1.0, 0.0, 1.0, 50.0), ("–", "", "50.0")),
        (None, ("–", "", "")),
    ],
)
def test_a_figure_in_words(cell, expected):
    assert markdown.parts(cell) == expected


def test_counts_have_no_decimals():
    rows = [Row("a", {"n": Cell(412.4), "miou": Cell(61.0)})]
    table = Table("n", {"n": "n", "miou": "mIoU"}, rows, counts=("n",))
    assert "| a | 412 | 61.0 |" in markdown.table(table)
    assert from_plain(to_plain(Saved("t", "q", (table,)))).blocks == (table,)


def test_sums_in_another_order_give_the_same_file():
    one, other = 0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1
    assert one != other
    files = [
        to_plain(Saved("t", "q", (Table("n", {"n": "n"}, [Row("a", {"n": Cell(value)})]),)))
        for value in (one, other)
    ]
    assert files[0] == files[1]


def test_table_in_markdown_reads_back():
    """By another's parser: every label and cell is there again, and nothing became HTML."""
    html = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown.table(TABLE))
    cells = [re.sub(r"\s+", " ", c) for c in re.findall(r"<td[^>]*>(.*?)</td>", html)]
    assert len(cells) == 9
    assert cells[:3] == [
        "our module",
        "91.1 ± 0.4 &lt;sub&gt;[88.0, 94.0]&lt;/sub&gt;&lt;br&gt;paper 90.3",
        "80.0 ± 2.2 &lt;sub&gt;[75.5, 84.2]&lt;/sub&gt;&lt;br&gt;paper 55.7",
    ]
    assert cells[3:6] == ["DAAM at 0.4", "62.1", "–"]
    assert cells[6] == NASTY.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


@pytest.mark.parametrize(
    "text",
    [
        NASTY,
        "# no heading",
        "- no item",
        "1. no item",
        "_a_ $x$ [b](c)",
        r"back\slash",
        "> no quote",
        "two_unseen ~~x~~",
    ],
)
def test_escaped_text_reads_back(text):
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(escape(text))
    page = Page(html)
    assert page.tags == ["p"] and page.text.strip() == text


# The pages


def test_pages_of_some_studies(full):
    save(full, "protocol_one", SAVED)
    pages = publish(full)
    text, html = pages.markdown.read_text(), pages.html.read_text()
    assert pages.markdown == full.root / "docs" / "results.md"
    for page in (text, html):
        assert "91.1 ± 0.4" in page and "[88.0, 94.0]" in page and "paper 55.7" in page
        assert "<script>" not in page
        assert "python -m ml.studies --study protocol_one" in page
        assert "--study absent_words" in page and page.count("Not run yet") == len(STUDIES) - 1
        assert "3 trainings of every row" in page and "--quick" not in page
    assert 'python -m ml.studies --study protocol_one --row "<label>"' in text
    shown = Page(html)
    assert "python -m ml.studies --study protocol_one --row 'DAAM at 0.4'" in shown.text
    assert NASTY in shown.text and "code | <b>" in shown.text
    assert [name for name in shown.refers if name.startswith("#") and name[1:] in STUDIES] == [
        f"#{name}" for name in STUDIES
    ]


def test_html_needs_nothing_from_elsewhere(full):
    save(full, "protocol_one", SAVED)
    save(full, "ablations", SAVED)  # the same plot twice: ids must not collide
    html = publish(full).html.read_text()
    page = Page(html)
    assert not re.search(r"url\((?!#)|@import|<link|<script", html)
    assert all(reference.startswith(("#", "data:")) for reference in page.refers)
    assert html.count("data:image/jpeg;base64," + base64.b64encode(jpeg()).decode()) == 2
    assert html.count("<svg") == 2 and len(page.ids) == len(set(page.ids))
    local = [name[1:] for name in page.refers if name.startswith("#")]
    assert set(local) <= set(page.ids)
    assert "prefers-color-scheme: dark" in html and "currentColor" in html


def test_markdown_refers_to_files_that_are_there_and_small(full):
    save(full, "protocol_one", SAVED)
    pages = publish(full)
    named = re.findall(r"\]\(([^)#]+)\)", pages.markdown.read_text())
    assert named == ["images/paper/protocol_one-3.svg", "images/paper/protocol_one-4.jpg"]
    for name in named:
        assert 0 < (pages.markdown.parent / name).stat().st_size < 100_000
    assert (pages.images / "protocol_one-4.jpg").read_bytes() == jpeg()


def test_pages_are_the_same_bytes_again_and_forget_old_pictures(full):
    save(full, "protocol_one", SAVED)
    publish(full)
    first = files(full.root / "docs")
    publish(full)
    assert files(full.root / "docs") == first
    save(full, "protocol_one", Saved("t", "q", (TABLE,)))
    publish(full)
    assert set(files(full.root / "docs")) == {"results.md", "results.html"}


def test_quick_leaves_the_docs_alone(quick):
    published = quick.root / "docs" / "results.md"
    published.parent.mkdir()
    published.write_text("full size")
    for name in STUDIES:
        save(quick, name, SAVED)
    pages = publish(quick)
    assert files(quick.root / "docs") == {"results.md": b"full size"}
    assert pages.markdown == quick.root / "data" / "paper-quick" / "results.md"
    assert "python -m ml.studies --quick --study limits" in pages.html.read_text()
    assert "Not run yet" not in pages.markdown.read_text()
    with pytest.raises(ValueError, match="expected the full size to export, got 'quick'"):
        export(quick)


def test_figures_of_other_settings_are_not_shown(full):
    """A page says with which settings its figures were made: others are not of that run."""
    save(full, "limits", SAVED)
    other = replace(full, size=replace(full.size, seeds=5))
    assert load(full, "limits") == SAVED and load(other, "limits") is None
    assert "Protocol I, again" not in publish(other).markdown.read_text()


def test_the_published_page_is_that_of_the_published_figures():
    """docs/results.md, byte for byte from docs/paper and docs/images, whatever the code does."""
    pictures: dict[str, bytes] = {}
    run = open_run("full", ROOT, 1)
    found = {name: read(run, name, place(run).images) for name in STUDIES}
    page = render_markdown(run, found, pictures, Path("images/paper"))
    committed = (ROOT / "docs" / "results.md").read_text()
    assert page == committed
    assert len(committed) > 40_000 and "Not run yet" not in committed
    assert set(pictures) == {path.name for path in (ROOT / "docs" / "images" / "paper").iterdir()}


# What is kept


def test_blocks_round_trip_through_json():
    again = from_plain(json.loads(json.dumps(to_plain(SAVED), sort_keys=True, allow_nan=False)))
    assert list(again.blocks[1].columns) == ["seen", "two_unseen"]
    assert list(again.blocks[2].series) == ["ours", "paper"]
    assert math.isnan(again.blocks[1].rows[2].cells["seen"].value)
    assert repr(again) == repr(SAVED)  # NaN is not equal to itself


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([Row("a", {}), Row("a", {})], r"table 'T': expected each label once, got \['a'\]"),
        ([Row("a", {"b": Cell(1.0)})], r"row 'a': cells of \['b'\], expected columns of \['n'\]"),
    ],
)
def test_tables_that_could_not_be_shown_are_refused(full, rows, match):
    with pytest.raises(ValueError, match=match):
        save(full, "limits", Saved("t", "q", (Table("T", {"n": "n"}, rows),)))
    assert load(full, "limits") is None


def test_a_whole_full_run_exports_figures_without_pictures(full):
    for name in STUDIES:
        save(full, name, SAVED)
    raw = full.folder / "raw"
    raw.mkdir()
    masks_of("default").to_parquet(raw / "default.parquet")
    publish(full)
    folder = full.root / "docs" / "paper"
    assert set(files(folder)) == {f"{name}.json" for name in STUDIES} | {
        "raw/masks.parquet",
        "recipes.json",
    }
    value = json.loads((folder / "limits.json").read_text())
    assert value["blocks"].pop() == {"kind": "picture", "caption": NASTY}
    assert repr(from_plain(value).blocks) == repr(SAVED.blocks[:3])


def masks_of(method: str, n: int = 6000) -> pd.DataFrame:
    rng = np.random.default_rng(len(method))
    own = rng.integers(1, 4096, n)
    values = {
        "method": method,
        "split": "voc-1",
        "seed": np.arange(n) % 3,
        "source": "generated",
        "judge": "detector",
        "cell": "two_seen",
        "entity": "dog",
        "key": [f"sim-{i // 3:06d}" for i in range(n)],
        "iou": rng.random(n),
        "own": own,
    }
    return pd.DataFrame(values)


def test_raw_tables_become_one_small_file_of_masks_and_others_of_their_own(tmp_path):
    made = {"default": masks_of("default"), "variant-paper": masks_of("variant-paper")}
    other = pd.DataFrame({"word": ["dog", None], "score": [0.25, math.nan], "n": [1, 70_000]})
    for name, frame in (made | {"presence": other}).items():
        frame.to_parquet(tmp_path / f"{name}.parquet")
    export_raw(tmp_path, tmp_path / "out")
    assert set(files(tmp_path / "out")) == {"masks.parquet", "presence.parquet"}
    masks = pd.read_parquet(tmp_path / "out" / "masks.parquet")
    assert set(RAW) | {"table", "own"} == set(masks.columns)
    for name, frame in made.items():
        own = masks[masks.table == name]
        assert list(own.key) == list(frame.key) and list(own.own) == list(frame.own)
        assert np.array_equal(own.iou, frame.iou.astype(np.float32))
    assert masks.iou.dtype == np.float32 and masks.key.dtype == "category"
    assert (tmp_path / "out" / "masks.parquet").stat().st_size < 10 * len(masks)
    kept = pd.read_parquet(tmp_path / "out" / "presence.parquet")
    assert list(kept.n) == [1, 70_000] and kept.word[0] == "dog" and kept.isna().sum().sum() == 2


# Plots


def test_a_plot_is_the_same_again_and_says_its_figures_names():
    svg = draw_svg(PLOT)
    plots._drawn.cache_clear()
    assert svg == draw_svg(PLOT) and svg.startswith("<svg") and len(svg) < 30_000
    for said in ("timestep", "mIoU, %", "ours", "paper"):
        assert f">{said}</text>" in svg
    assert "<metadata>" not in svg and "currentColor" not in svg
    assert 'id="x-' in draw_svg(PLOT, "x")


def test_series_of_one_point_are_bars_and_what_is_not_finite_is_left_out():
    bars = Plot("b", "", "%", {"a < $b$": [(0, 5.0, None)], "c": [(0, 7.0, 1.0)]})
    assert ">a &lt; $b$</text>" in draw_svg(bars)
    holes = Plot("h", "", "%", {"a": [(0, math.nan, 1.0), (1, 1.0, 1.0), (2, 3.0, math.nan)]})
    assert ">0</text>" in draw_svg(replace(holes, series={"a": [(0, 1.0, 0), (1, 1.0, 0)]}))
    assert draw_svg(holes)
    with pytest.raises(ValueError, match="plot 'n' has no point"):
        draw_svg(Plot("n", "", "", {"a": [(0, math.nan, 0.0)]}))


def test_segmenters_confusions_come_back_out_of_the_export(tmp_path):
    counts = np.random.default_rng(0).integers(0, 3, (5, 4, 4)).astype(np.int32)
    np.savez_compressed(tmp_path / "zero-shot-bound-seed2.npz", confusions=counts)
    export_raw(tmp_path, tmp_path / "out")
    rows = pd.read_parquet(tmp_path / "out" / "zero_shot_confusions.parquet")
    assert set(rows.model) == {"bound"} and set(rows.seed) == {2}
    back = np.zeros_like(counts)
    back[rows.picture, rows.truth, rows.predicted] = rows.pixels
    assert np.array_equal(back, counts)
