"""Words that mean something to matplotlib, HTML or a font are drawn as they were typed."""

import io
import xml.etree.ElementTree as xml

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageFont

from ml.images.captions import caption_font, readable
from ml.images.contact_sheet import contact_sheet
from ml.images.plots import label
from ml.pipeline.report.figures import class_chart
from ml.pipeline.stages.report import _template
from ml.studies.blocks import Plot
from ml.studies.plots import draw_svg

WORDS = [
    r"$\foo$",
    "cash $ and $ coin",
    "$x",
    r"a\b",
    "_hidden",
    "a_b^c",
    "<script>&",
    "字",
    "é",
    "%d",
    "{x}",
    "men's shoe",
]


def texts(svg: str) -> list[str]:
    return [
        element.text
        for element in xml.fromstring(svg).iter()
        if element.tag.endswith("}text") and element.text
    ]


@pytest.mark.filterwarnings("ignore:Glyph")
def test_the_chart_of_the_report_draws_class_names_as_typed():
    scores = {"synthetic": {"per_class": dict.fromkeys([*WORDS, "x" * 400, "bad\x01"], 50.0)}}
    with matplotlib.rc_context({"text.usetex": False, "text.parse_math": True}):
        svg = class_chart(scores, (WORDS[0],), "name")
    drawn = texts(svg)
    assert f"{WORDS[0]} *" in drawn and set(WORDS[1:]) <= set(drawn)
    assert "bad\ufffd" in drawn and max(map(len, drawn)) <= 42
    assert svg == class_chart(scores, (WORDS[0],), "name"), "the same run gives the same page"


def test_without_a_scored_class_there_is_no_chart():
    assert class_chart({"synthetic": {"per_class": {}}}, (), "name") == ""


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("points", [1, 2])
def test_the_paper_s_plots_name_every_series(points):
    series = {word: [(x, 1.0 + x, 0.1) for x in range(points)] for word in WORDS}
    drawn = texts(draw_svg(Plot("t", r"$\bar$ of", "_y", series)))
    assert {*WORDS, r"$\bar$ of", "_y"} <= set(drawn)


def test_pages_escape_what_they_show():
    tick = {"key": '"><script>1</script>', "entity": "<u>", "text": "a & b", "image": "data:,"}
    page = _template("audit.html.j2").render(
        profile="<i>", digest="0", items=[tick], verdicts=("right",), z=1.96
    )
    assert "<script>1" not in page and "<i>" not in page and "<u>" not in page
    assert "a &amp; b" in page


def test_captions_show_signs_that_the_font_lacks(tmp_path):
    plain = ImageFont.load_default(11)
    assert caption_font(["a dog, C++", "$x$"]).getname() == plain.getname()
    font = caption_font(["café", "字"])
    assert readable("café 字", font) == "café U+5B57"
    image = np.full((64, 64, 3), 255, np.uint8)
    contact_sheet([image] * 2, None, ["字", "café \ud800"], tmp_path / "sheet.jpg")
    pixels = np.asarray(Image.open(io.BytesIO((tmp_path / "sheet.jpg").read_bytes())))
    assert (pixels[-16:] < 128).any(), "something is written there"


def test_a_label_is_one_short_line():
    assert label("two\nlines") == "two lines"
    assert label("x" * 400, 10) == "x" * 9 + "…"
