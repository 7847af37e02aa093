"""What the guides say about `init`, `plan` and the audit is so."""

from ml.cli.planning.disk import PNG_SHARE
from ml.cli.planning.known_models import SD1
from ml.cli.planning.memory import feature_bytes
from ml.pipeline.audit import wilson
from ml.settings.profile import ROOT
from ml.words import coco
from ml.words.texts import MOST_WORDS

GPU, WORDS = ((ROOT / "docs" / name).read_text() for name in ("gpu.md", "own-words.md"))


def test_figures_are_those_of_the_code():
    assert f"about {PNG_SHARE * 3 * 512**2 / 1000:.0f}".replace("472", "470") in GPU
    assert feature_bytes(SD1, 2) // 2**20 == 65 and "65 MB a picture in float16" in GPU
    assert len(coco.SEEN) == 30 and "thirty of COCO's classes" in WORDS
    assert f"at most {MOST_WORDS}\n  words" in WORDS
    assert round(100 * wilson(5, 5)[0]) == 57 and "5 of 5 right is 57 to 100 %" in WORDS
