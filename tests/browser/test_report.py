"""The report and the audit sheet in a real browser: on a phone, a desk, in the dark and on paper.

They are served from this machine, so that the browser's door to others stays shut.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import reported
from tests.builders.answering import serving_folder
from tests.builders.reported import SPITE

pytestmark = pytest.mark.browser

PHONE, DESK = {"width": 375, "height": 812}, {"width": 1280, "height": 900}
PAPER = {"width": 703, "height": 1000}
"""What is left of A4 within margins of 12 mm, in CSS pixels."""
AFTER = "document.documentElement.scrollWidth"
BESIDE = """() => [...document.querySelectorAll("main *")].filter(each => {
  const boxes = each.closest(".scroll") && !matchMedia("print").matches;
  return !boxes && each.getBoundingClientRect().right > innerWidth + 0.5;
}).map(each => each.outerHTML.slice(0, 120))"""
"""Elements that stick out on the right; on a screen those within a scrolling box may."""


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """Of a folder with the report of a run by hand whose words are spiteful."""
    root = tmp_path_factory.mktemp("report")
    workspace = reported.make(root)
    reported.spiteful(workspace)
    reported.write_report(workspace, root / "page")
    with serving_folder(root / "page") as place:
        yield place


@pytest.mark.parametrize("page", ["report", "audit"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_nothing_sticks_out_and_words_are_only_words(open_page, address, page, scheme, size):
    shown = open_page(f"{address}/{page}.html", viewport=size, color_scheme=scheme)
    assert shown.evaluate(AFTER) <= size["width"]
    assert shown.evaluate(BESIDE) == []
    assert shown.evaluate("window.hit === undefined")
    assert shown.locator("img[onerror]").count() == 0
    assert shown.get_by_text(SPITE).count() >= 1
    assert shown.evaluate(
        "[...document.images].every(image => image.complete && image.naturalWidth)"
    )
    ink, paper = (
        [int(part) for part in re.findall(r"\d+", colour)]
        for colour in shown.evaluate(
            "(({ color, backgroundColor }) => [color, backgroundColor])"
            "(getComputedStyle(document.body))"
        )
    )
    assert (sum(ink) > sum(paper)) == (scheme == "dark")


@pytest.mark.parametrize("page", ["report", "audit"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(open_page, address, page, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="not installed").Axe()
    shown = open_page(f"{address}/{page}.html", viewport=PHONE, color_scheme=scheme)
    found = [
        f"{own['impact']}: {own['id']}: {own['nodes'][0]['html'][:200]}"
        for own in axe.run(shown).response["violations"]
        if own["impact"] in ("serious", "critical")
    ]
    assert not found


def test_tables_scroll_in_their_own_box_on_a_phone(open_page, address):
    shown = open_page(f"{address}/report.html", viewport=PHONE)
    box = shown.get_by_role("region", name="figures by class")
    assert box.evaluate("box => box.scrollWidth > box.clientWidth")
    box.focus()
    shown.keyboard.press("ArrowRight")
    shown.wait_for_function("box => box.scrollLeft > 0", arg=box.element_handle())
    assert shown.evaluate("scrollX") == 0


def column(page, place: int) -> list[str]:
    cells = page.locator("#classes ~ .scroll tbody tr").all()
    return [row.locator(":scope > *").nth(place).inner_text() for row in cells]


def test_a_heading_sorts_its_column_by_mouse_and_by_keyboard(open_page, address):
    shown = open_page(f"{address}/report.html", viewport=DESK)
    head = shown.get_by_role("columnheader", name="judged right, %")
    button = head.get_by_role("button")
    place = head.evaluate("head => head.cellIndex")
    before = column(shown, place)
    assert head.get_attribute("aria-sort") == "none"
    button.click()
    assert head.get_attribute("aria-sort") == "ascending"
    up = [float(text.split()[0]) for text in column(shown, place) if text != "–"]
    assert len(up) > 1 and up == sorted(up)
    button.focus()
    shown.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    down = column(shown, place)
    numbers = [float(text.split()[0]) for text in down if text != "–"]
    assert numbers == up[::-1] and down[len(numbers) :] == ["–"] * before.count("–")
    shown.locator("#classes ~ .scroll th button").first.click()
    names = column(shown, 0)
    assert names[0] == SPITE and names[1:] == sorted(names[1:])
    assert head.get_attribute("aria-sort") == "none"


def test_on_paper_it_is_light_whole_and_not_cut(open_page, address, tmp_path):
    shown = open_page(f"{address}/report.html", viewport=PAPER, color_scheme="dark")
    shown.emulate_media(media="print", color_scheme="dark")
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert shown.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert shown.evaluate(BESIDE) == []
    assert not shown.get_by_role("navigation").is_visible()
    margin = dict.fromkeys(("top", "right", "bottom", "left"), "12mm")
    file = tmp_path / "report.pdf"
    shown.pdf(path=file, format="A4", margin=margin, print_background=True)
    pages = len(re.findall(rb"/Type\s*/Page\b", file.read_bytes()))
    assert 4 <= pages <= 40


def test_the_sheet_is_ticked_and_saved(open_page, address, tmp_path):
    shown = open_page(f"{address}/audit.html", viewport=PHONE, accept_downloads=True)
    first = shown.locator("fieldset").first
    first.get_by_label("wrong mask").check()
    assert "1 of " in shown.get_by_role("status").inner_text()
    with shown.expect_download() as saved:
        shown.get_by_role("button", name="Save").click()
    saved.value.save_as(tmp_path / "audit.json")
    ticks = json.loads(Path(tmp_path / "audit.json").read_text())["ticks"]
    assert [tick["verdict"] for tick in ticks] == ["wrong mask"]
    assert ticks[0]["key"] == first.get_attribute("data-key")
