"""A real Chromium, which reaches this machine alone: what else a page asks for is noted, refused,
and fails the test."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT = 90_000
"""Milliseconds for what a page shows; many, because the machine may be busy."""
expect.set_options(timeout=WAIT)

if TYPE_CHECKING:
    from tests.builders.app_server import Server

OpenPage = Callable[..., Page]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", type=Path, help="folder for the pictures of the docs")
    parser.addoption(
        "--app-profile", help="a finished profile of this checkout, instead of a tiny one"
    )


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    if not CHROMIUM.is_file():
        pytest.fail(f"no Chromium at {CHROMIUM}: apt-get install chromium", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium) -> Iterator[OpenPage]:
    """`open_page(url, **options)`: the address in a browser of its own, as another person has it.

    options: of Playwright's `new_context` (viewport, color_scheme). A test fails for a request to
    another machine, and for an exception in the page.
    """
    contexts: list[BrowserContext] = []
    outside: list[str] = []
    errors: list[str] = []

    def here(url: str) -> bool:
        return urlsplit(url).hostname == "127.0.0.1"

    def judge(route: Route) -> None:
        if here(route.request.url):
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    def start(url: str, **options: Any) -> Page:
        contexts.append(chromium.new_context(**options))
        contexts[-1].set_default_timeout(WAIT)
        contexts[-1].route("**/*", judge)
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("websocket", lambda s: None if here(s.url) else outside.append(s.url))
        page.goto(url)
        return page

    yield start
    for context in contexts:
        context.close()
    assert not outside, f"the page asked other machines: {outside}"
    assert not errors, errors


@pytest.fixture
def screenshot(request, tmp_path) -> Callable[[Page, str], None]:
    """Keeps a picture of the page as `app-<name>.jpg`, in the folder that --screenshots names."""
    folder = request.config.getoption("--screenshots", default=None) or tmp_path

    def keep(page: Page, name: str) -> None:
        file = folder / f"app-{name}.jpg"
        size = page.evaluate("[innerWidth, Math.min(document.documentElement.scrollHeight, 1300)]")
        clip = {"x": 0, "y": 0, "width": size[0], "height": size[1]}
        page.screenshot(path=file, full_page=True, clip=clip, type="jpeg", quality=70)
        assert file.stat().st_size < 150_000, f"{file} is too large for the docs"

    return keep


@pytest.fixture(scope="session")
def app(request, tmp_path_factory) -> Iterator["Server"]:
    """The app, served from a copy of a finished workspace, beside a second run to compare with.
    It too may reach this machine alone."""
    from ml.pipeline.workspace import Workspace
    from ml.settings.profile import ROOT
    from tests.builders import app_server, tiny_graph

    root = tmp_path_factory.mktemp("app")
    profile = request.config.getoption("--app-profile", default=None)
    if profile is None:
        profile = str(root / "tiny.yaml")
        workspace = tiny_graph.make(root)[1]
    else:
        workspace = tiny_graph.copy(Workspace(ROOT, profile), root)
        shutil.rmtree(workspace.data / "audit", ignore_errors=True)  # marks of its own
        (root / "data/foundation").symlink_to(ROOT / "data/foundation")
    other = ROOT / "data/ci" if (ROOT / "data/ci").is_dir() else workspace.data
    (root / "data/before").symlink_to(other)
    with app_server.serve(profile, workspace, tmp_path_factory.mktemp("server")) as server:
        yield server
        tried = server.refused.read_text()
    assert not tried, f"the server tried to reach other machines:\n{tried}"
