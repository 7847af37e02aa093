"""The site of docs/ by use, at a desk and on a phone: pages fit, the search finds and leads on, and
nothing is asked of other machines."""

import subprocess
import sys
from pathlib import Path

import pytest

from ml.settings.profile import ROOT
from tests.builders.answering import serving_folder

pytestmark = pytest.mark.browser

DESK, PHONE = {"width": 1280, "height": 800}, {"width": 375, "height": 740}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """(address, names of all pages) of the built site, served on this machine."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", out]
    subprocess.run(command, cwd=ROOT, check=True)
    names = sorted(str(file.relative_to(out)) for file in Path(out).rglob("*.html"))
    with serving_folder(out) as address:
        yield address, names


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_no_page_is_wider_than_the_window_and_every_picture_loads(site, open_page, size):
    address, names = site
    page = open_page(f"{address}/index.html", viewport=size, color_scheme="dark")
    for name in names:
        page.goto(f"{address}/{name}")
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        lost = page.evaluate(
            "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
        )
        assert wide <= 0 and not lost, name


def test_the_search_finds_a_page_and_leads_there(site, open_page):
    address, _ = site
    page = open_page(f"{address}/api/index.html", viewport=DESK)
    page.locator(".md-search__input").click()
    page.keyboard.type("rollback")
    first = page.locator(".md-search-result__link").first
    first.wait_for()
    first.click()
    page.wait_for_function("location.pathname != '/api/index.html'")
    assert "rollback" in page.locator("article").inner_text().lower()


def test_the_guides_are_reached_by_the_menu_of_a_phone(site, open_page):
    address, _ = site
    page = open_page(f"{address}/index.html", viewport=PHONE)
    page.locator("header label[for=__drawer]").click()
    menu = page.locator(".md-nav--primary")
    menu.locator("label.md-nav__link", has_text="Guides").first.click()
    menu.locator("a[href='own-words.html']").click()
    page.wait_for_url("**/own-words.html")
    assert page.locator("h1").inner_text().startswith("Label my own words")
