"""The site of docs/: built strictly; every link and anchor of the built pages leads somewhere in
it, and nothing is loaded from elsewhere. Slow by some seconds, so `.ci/run` calls it by itself."""

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlparse

import pytest

from ml.settings.profile import ROOT

pytestmark = pytest.mark.slow

LOADS = {
    "script": "src",
    "link": "href",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
}
"""Elements whose address a browser fetches by itself."""


class Page(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = {name: value or "" for name, value in attrs}
        self.ids |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in LOADS and LOADS[tag] in found and found.get("rel") not in ("canonical",):
            self.loads.append(found[LOADS[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site) -> dict[str, Page]:
    files = {str(file.relative_to(site)): file for file in site.rglob("*.html")}
    return {name: Page(file.read_text()) for name, file in files.items() if name != "404.html"}


def test_every_link_and_anchor_leads_somewhere(site, pages):
    wrong, anchors = [], 0
    for name, page in pages.items():
        for link in [*page.links, *page.loads]:
            if urlparse(link).scheme in ("http", "https", "mailto", "data"):
                continue
            target, anchor = urldefrag(unquote(urljoin(name, link)))
            if not (site / target).is_file():  # a folder is none: pages open from a disk too
                wrong.append(f"{name}: {link}")
            elif anchor and target in pages:
                anchors += 1
                if anchor not in pages[target].ids:
                    wrong.append(f"{name}: {link}, no such anchor")
    assert not wrong and anchors > 500


def test_nothing_is_loaded_from_elsewhere(site, pages):
    loads = {link for page in pages.values() for link in page.loads}
    assert loads and not {link for link in loads if urlparse(link).netloc}
    styles = [file.read_text() for file in site.rglob("*.css")]
    assert styles and not any("url(http" in text or "@import" in text for text in styles)


def test_every_guide_is_in_the_search(site):
    found = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    places = {entry["location"].partition("#")[0] for entry in found}
    guides = {file.with_suffix(".html").name for file in (ROOT / "docs").glob("*.md")}
    assert guides <= places | {"index.html"}


def test_the_api_has_types_and_defaults(site):
    text = (site / "api" / "index.html").read_text()
    assert "GroundedDiffusionPipeline" in text and "num_inference_steps" in text
    flat = Page(text)
    assert {"ml.grounding.pipeline.GroundedDiffusionPipeline.ground"} <= flat.ids
    assert "default" in text and "GroundedOutput" in text
