"""The app for everyone: two people at once, the keyboard alone, screen readers, phones, dark."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.test_app import ask_to_draw, ask_to_find, bring, field, shown, tab
from tests.builders.uploads import encoded, scene

pytestmark = pytest.mark.browser
TABS = ("Draw", "Find", "Browse", "Compare")


def fill_all(page: Page) -> None:
    """Every tab with an answer on it."""
    ask_to_draw(page, "a photograph of a dog", "dog", 1)
    tab(page, "Find")
    bring(page, "mine.png", encoded(scene(90, 60)))
    expect(ask_to_find(page, "dog, bus")).to_contain_text("mine.png")
    tab(page, "Compare")
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.locator("#compare-result table").first).to_be_visible()
    tab(page, "Browse")
    expect(page.locator("#browse-grid .wm-tile").first).to_be_visible()


def test_two_people_at_once_see_their_own_pictures(app, open_page):
    people = [open_page(app.url) for _ in range(2)]
    for place, page in enumerate(people):
        tab(page, "Find")
        bring(page, f"of-{place}.png", encoded(scene(70, 40 + place, place)))
        expect(page.locator("#find-message")).to_contain_text(f"of-{place}.png")
    for place, page in enumerate(people):  # both wait for an answer now
        field(page, "Words").fill(["dog", "bus"][place])
        page.get_by_role("button", name="Find", exact=True).click(no_wait_after=True)
    for place, page in enumerate(people):
        cards = page.locator("#find-result .wm-card")
        expect(cards).to_contain_text(f"of-{place}.png (70 x {40 + place} pixels)")
        expect(cards.locator("tbody th")).to_have_text(["dog", "bus"][place])
        own = scene(70, 40 + place, place)
        assert (shown(cards.get_by_alt_text("The picture:")) == own).all()
        assert f"of-{1 - place}" not in page.content()
    with people[0].expect_download() as coming:  # the later answer did not take its file away
        people[0].locator("#find-coco").click()
    assert "of-0.png" in coming.value.path().read_text()


def test_the_keyboard_alone_draws_toggles_and_marks(app, open_page):
    page = open_page(app.url)
    field(page, "Prompt").wait_for()

    def go_to(selector: str) -> None:
        """Tab after Tab, as long as it takes; the focus is seen on the way."""
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                return
        pytest.fail(f"no Tab leads to {selector}")

    go_to("[role=tab]")
    go_to("#draw-words textarea, #draw-words input")
    page.keyboard.press("Control+a")
    page.keyboard.type("dog")
    page.keyboard.press("Enter")
    layer = page.locator("#draw-result .wm-layer")
    expect(page.locator("#draw-result .wm-card")).to_have_count(1)
    go_to("#draw-result [data-word]")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none", "the focus is not seen"
    if layer.count():
        page.keyboard.press("Space")
        expect(layer).to_be_hidden()
    page.keyboard.press("Control+Home")
    page.evaluate("document.activeElement.blur()")
    go_to("[role=tab][data-tab-id=browse]")
    page.keyboard.press("Enter")
    expect(page.locator("#browse-grid .wm-tile").first).to_be_visible()
    go_to("#browse-grid input[type=radio]")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#browse-message")).to_contain_text("Kept:")
    for key in ("Shift+Tab", "Shift+Tab", "Shift+Tab", "Tab", "Tab", "Tab"):
        page.keyboard.press(key)  # past the fields above, which shows nothing else
    page.wait_for_timeout(1500)
    expect(page.locator("#browse-message")).to_contain_text("Kept:")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(app, open_page, scheme):
    page = open_page(app.url, color_scheme=scheme)
    fill_all(page)
    for name in TABS:
        tab(page, name)
        page.mouse.move(0, 0)
        page.wait_for_timeout(400)  # colours change over 0.2 seconds
        found = [
            f"{own['impact']}: {own['id']}: {own['nodes'][0]['html'][:200]}"
            for own in Axe().run(page).response["violations"]
            if own["impact"] in ("serious", "critical")
        ]
        assert not found, (name, scheme, found)


def test_a_phone_shows_every_tab_without_scrolling_sideways(app, open_page, screenshot):
    page = open_page(app.url, viewport={"width": 375, "height": 700}, color_scheme="dark")
    fill_all(page)
    for name in TABS:
        tab(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 375, name
    tab(page, "Draw")
    screenshot(page, "phone")
