"""What is shown: masks as layers, texts of people escaped, one sentence for an error."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from ml.app import showing
from ml.app.answers import Answer, Word
from ml.app.comparing import Change, Comparison, Score
from ml.app.finding import Found, shrunk

MASK = np.zeros((12, 16), bool)
MASK[3:9, 4:12] = True
EVIL = "<img src=x onerror=alert(1)>\"'"


def read(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def test_a_layer_is_opaque_at_the_masks_edge_half_within_and_clear_elsewhere():
    layer = read(showing.layer_uri(MASK, np.array([1, 2, 3])))
    alpha = layer[..., 3]
    assert (alpha[~MASK] == 0).all() and (alpha[4:8, 5:11] == showing.TINT).all()
    edge = MASK.copy()
    edge[4:8, 5:11] = False
    assert (alpha[edge] == showing.OUTLINE).all() and (layer[MASK][:, :3] == [1, 2, 3]).all()


def test_heat_is_brighter_for_more():
    grey = showing.heat(np.linspace(0, 1, 20)[None]).astype(int).sum(2)[0]
    assert (np.diff(grey) > 0).all()


def answer(word: str = EVIL) -> Answer:
    soft = MASK.astype(np.float32)
    own = Word(word, MASK, soft, 0.123, soft, MASK)
    nothing = Word("bus", np.zeros_like(MASK), soft * 0, 0.001, soft * 0, ~MASK)
    return Answer(np.zeros((12, 16, 3), np.uint8), EVIL, [own, nothing])


def test_what_people_typed_is_escaped_wherever_it_is_shown():
    found = Found(answer(), np.stack([MASK, MASK]), (12, 16), EVIL, 0.01, None)
    comparison = Comparison({EVIL: [Score(EVIL, 1.0, None)]}, [EVIL], [Change(EVIL, EVIL, "")], [])
    for page in (
        showing.drawn([answer()]),
        showing.found(found),
        showing.compared(comparison, EVIL, EVIL),
        showing.message(EVIL, "error"),
    ):
        assert "<img src=x" not in page and "&lt;img src=x" in page
        assert "onerror=alert(1)>" not in page


def test_every_picture_has_a_text_and_an_empty_mask_no_layer():
    page = showing.drawn([answer("dog")])
    assert page.count("<img") == page.count("alt=")
    assert 'data-layer="0"' in page and 'data-layer="1"' not in page
    assert "presence 0.123" in page and "25.0\u00a0%" in page


@pytest.mark.parametrize("size", [(10, 4000), (3000, 2000), (40, 30)])
def test_large_pictures_are_shown_smaller(size):
    small = shrunk(np.zeros((*size, 3), np.uint8))
    assert max(small.shape[:2]) == min(768, max(size)) and min(small.shape[:2]) >= 1


def test_a_defect_is_told_as_one_and_refusals_in_their_own_words(capsys):
    pytest.importorskip("gradio")
    from ml.app.answers import words_of
    from ml.app.asked import asked

    said, rest = asked(lambda: words_of(""), ("blank",))
    assert "no word to look for" in said and 'role="alert"' in said and rest == "blank"
    assert not capsys.readouterr().err
    said, rest = asked(lambda: {}["key"], ("blank",))
    assert "A defect of this program (KeyError)" in said
    assert "Traceback" in capsys.readouterr().err
