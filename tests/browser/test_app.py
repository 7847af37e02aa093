"""The app by use, in a real browser: draw, show and hide, find, take masks along, mark, reload."""

import base64
import io
import json
import re
import zipfile

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from pycocotools.coco import COCO

from ml import GroundedDiffusionPipeline
from ml.pipeline.marks import picture_sha256
from ml.store.shards import read_shards
from tests.builders.uploads import ACCEPTED, REFUSED, encoded

pytestmark = pytest.mark.browser
PROMPT = "a photograph of a dog and a cat"


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def field(page: Page, name: str) -> Locator:
    """A field of the open tab; what stands under its name is a part of its label."""
    return page.get_by_role("textbox", name=re.compile(f"^{name}"))


def ask_to_draw(page: Page, prompt: str, words: str, seed: int) -> Locator:
    """The result's pictures, when they are there."""
    field(page, "Prompt").fill(prompt)
    field(page, "Words").fill(words)
    page.get_by_role("spinbutton", name=re.compile("^Seed")).fill(str(seed))
    page.get_by_role("button", name="Draw", exact=True).click()
    cards = page.locator("#draw-result .wm-card")
    expect(cards.first).to_contain_text(f"seed {seed}")
    return cards


def bring(page: Page, name: str, data: bytes) -> None:
    """Chooses a file, as the dialogue would; one that is there is put away first."""
    away = page.locator("#find-picture").get_by_label("Clear")
    if away.count():
        away.click()
    page.locator("#find-picture input[type=file]").set_input_files(
        {"name": name, "mimeType": "image/png", "buffer": data}
    )


def ask_to_find(page: Page, words: str) -> Locator:
    field(page, "Words").fill(words)
    page.get_by_role("button", name="Find", exact=True).click()
    return page.locator("#find-result .wm-card")


def shown(picture: Locator) -> np.ndarray:
    """The pixels of an <img> whose address holds them."""
    data = base64.b64decode(picture.get_attribute("src").split(",")[1])
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.fixture(scope="module")
def door(app) -> GroundedDiffusionPipeline:
    """The same models, asked without the app."""
    return GroundedDiffusionPipeline.from_pretrained(app.workspace.folder("grounding_model"))


def test_draw_shows_what_the_library_draws_and_masks_toggle_word_by_word(
    app, open_page, door, screenshot
):
    page = open_page(app.url, viewport={"width": 1200, "height": 900})
    page.evaluate(
        """() => { window.said = []; new MutationObserver(() => {
             window.said.push(document.querySelector('#draw-message')?.innerText);
           }).observe(document.body, {subtree: true, childList: true, characterData: true}); }"""
    )
    cards = ask_to_draw(page, PROMPT, "dog, cat", 3)
    truth = door(PROMPT, ["dog", "cat"], seed=3)
    assert np.array_equal(
        shown(cards.get_by_alt_text("The picture:").first), np.asarray(truth.images[0])
    )
    layers = {
        word: cards.get_by_alt_text(re.compile(f"^Mask of {word},")) for word in ("dog", "cat")
    }
    for word, mask in truth.masks[0].items():
        if mask.any():
            assert np.array_equal(shown(layers[word])[..., 3] > 0, mask)
    words = [word for word in layers if truth.masks[0][word].any()]
    assert words, "the models found neither word: nothing would be seen to toggle"
    for word in words:
        box = page.locator("#draw-result").get_by_label(word, exact=True)
        before = cards.locator(".wm-stack").first.screenshot()
        box.uncheck()
        expect(layers[word]).to_be_hidden()
        assert cards.locator(".wm-stack").first.screenshot() != before
        box.check()
        expect(layers[word]).to_be_visible()
    expect(cards.get_by_alt_text("DAAM's attention")).to_have_count(2)
    expect(cards.get_by_alt_text("this module's probability")).to_have_count(2)
    expect(page.locator("#draw-message")).to_contain_text("1 picture in")
    said = page.evaluate("window.said.join('\\n')")
    assert "Drawing: step" in said or "Waiting for the models" in said, said[-500:]
    screenshot(page, "draw")


def test_what_cannot_be_drawn_is_said_in_one_sentence(app, open_page):
    page = open_page(app.url)
    for prompt, words, sentence in (
        ("a photograph of a dog", "zebra", "'zebra' is not in the prompt"),
        ("a photograph of a dog", "dog, dog", "asked for twice"),
        ("", "dog", "no prompt"),
        ("<b id=made-of-text>", "", "names no word of the vocabulary"),
        ("a dog " * 200, "dog", "tokens"),
    ):
        field(page, "Prompt").fill(prompt)
        field(page, "Words").fill(words)
        page.get_by_role("button", name="Draw", exact=True).click()
        expect(page.locator("#draw-message [role=alert]")).to_contain_text(sentence)
        expect(page.locator("#draw-result .wm-card")).to_have_count(0)
    assert page.locator("#made-of-text").count() == 0
    assert "Traceback" not in app.log.read_text()


def test_find_masks_words_of_an_upload_and_gives_files_that_others_read(
    app, open_page, door, tmp_path, screenshot
):
    drawn = door(PROMPT, ["dog", "cat"], seed=8).images[0].resize((150, 100))
    page = open_page(app.url, viewport={"width": 1200, "height": 900})
    tab(page, "Find")
    bring(page, "mine.png", encoded(drawn))
    expect(page.locator("#find-message")).to_contain_text("mine.png: 150 x 100 pixels")
    cards = ask_to_find(page, "dog, cat, bus")
    expect(cards).to_contain_text("mine.png (150 x 100 pixels)")
    expect(cards.locator("tbody tr")).to_have_count(3)
    expect(cards).to_contain_text("segmenter")
    truth = door.ground(drawn, ["dog", "cat", "bus"], min_presence=0.01)
    with page.expect_download() as coming:
        page.locator("#find-png").click()
    coming.value.save_as(tmp_path / "masks.zip")
    with zipfile.ZipFile(tmp_path / "masks.zip") as archive:
        for number, (word, mask) in enumerate(truth.masks[0].items(), 1):
            png = Image.open(io.BytesIO(archive.read(f"{number}-{word}.png")))
            assert np.array_equal(np.asarray(png) > 0, mask)
    with page.expect_download() as coming:
        page.locator("#find-coco").click()
    coming.value.save_as(tmp_path / "coco.json")
    coco = COCO(tmp_path / "coco.json")
    names = {own["id"]: own["name"] for own in coco.loadCats(coco.getCatIds())}
    assert list(names.values()) == ["dog", "cat", "bus"]
    read = {names[own["category_id"]]: coco.annToMask(own) for own in coco.anns.values()}
    assert set(read) == {word for word, mask in truth.masks[0].items() if mask.any()}
    assert all(np.array_equal(read[word] > 0, truth.masks[0][word]) for word in read)
    screenshot(page, "find")


def test_uploads_of_every_kind_get_one_sentence_and_the_app_lives_on(app, open_page):
    page = open_page(app.url)
    tab(page, "Find")
    for name, (data, sentence) in REFUSED.items():
        bring(page, name, data)
        alert = page.locator("#find-message [role=alert]")
        expect(alert).to_contain_text(sentence)
        assert len(alert.inner_text()) < 400
        expect(page.locator("#find-picture img")).to_have_count(0)  # it was put away
    for name, (data, size) in ACCEPTED.items():
        bring(page, name, data)
        expect(page.locator("#find-message")).to_contain_text(f"{name}: {size}")
        cards = ask_to_find(page, "dog")
        expect(cards).to_contain_text(name)
    assert "Traceback" not in app.log.read_text()


def test_a_mark_is_on_disk_and_still_there_after_a_reload(app, open_page, screenshot):
    page = open_page(app.url, viewport={"width": 1200, "height": 900})
    tab(page, "Browse")
    tiles = page.locator("#browse-grid .wm-tile")
    field = page.locator("#browse-grid fieldset[data-key]").first
    key, word = field.get_attribute("data-key"), field.get_attribute("data-word")
    field.get_by_label("wrong mask").check()
    expect(page.locator("#browse-message")).to_contain_text(f"{word} in {key} is wrong mask")
    page.reload()
    tab(page, "Browse")
    again = page.locator(f'#browse-grid fieldset[data-key="{key}"][data-word="{word}"]')
    expect(again.get_by_label("wrong mask")).to_be_checked()
    expect(page.locator("#browse-message")).to_contain_text("1 marked by you")
    (mark,) = json.loads((app.workspace.data / "audit/marks.json").read_text())["marks"]
    rows = read_shards(app.workspace.folder("synthetic_dataset"), ["key", "image"])
    png = rows.image[rows.key == key].item()
    assert (mark["stage"], mark["key"], mark["word"]) == ("synthetic_dataset", key, word)
    assert (mark["sha256"], mark["verdict"]) == (picture_sha256(png), "wrong mask")
    again.get_by_label("right").check()  # another mind: the last one counts
    expect(page.locator("#browse-message")).to_contain_text("1 mark so far")
    screenshot(page, "browse")
    shown_class = tiles.first.locator("strong").last.inner_text()
    page.locator("#browse-class input").click()
    page.get_by_role("option").nth(1).click()
    expect(page.locator("#browse-message")).not_to_contain_text("so far")
    assert shown_class
    page.get_by_label("Triplets").check()
    expect(page.locator("#browse-message")).to_contain_text("0 marked by you")
    expect(tiles.first).to_be_visible()
    assert not page.locator("#browse-grid input:checked").count(), "what was chosen for another"


def test_a_mark_that_could_not_be_kept_is_not_shown_as_chosen(app, open_page):
    marks = app.workspace.data / "audit/marks.json"
    marks.parent.mkdir(exist_ok=True)
    before = marks.read_bytes() if marks.exists() else None
    page = open_page(app.url)
    tab(page, "Browse")
    field = page.locator("#browse-grid fieldset[data-key]").last
    chosen = field.locator("input:checked")
    expect(chosen).to_have_count(0)
    marks.write_text("{")
    try:
        field.get_by_label("wrong mask").check()
        expect(page.locator("#browse-message")).to_contain_text("marks.json")
        expect(chosen).to_have_count(0)
    finally:
        marks.write_bytes(before) if before else marks.unlink()


def test_compare_shows_two_runs_side_by_side(app, open_page, screenshot):
    page = open_page(app.url, viewport={"width": 1200, "height": 900})
    tab(page, "Compare")
    expect(page.locator("#compare-other input")).to_have_value(
        "before"
    )  # another run than the first
    page.get_by_role("button", name="Compare", exact=True).click()
    result = page.locator("#compare-result")
    expect(result.get_by_role("table").first).to_contain_text("this module: one object, seen")
    expect(result.get_by_role("columnheader", name="before").first).to_be_visible()
    screenshot(page, "compare")
