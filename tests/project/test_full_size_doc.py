"""The commands of docs/full-size.md exist, and what it says about `init` and `plan` is so."""

import re

from ml.__main__ import COMMANDS
from ml.cli.planning.disk import PNG_SHARE
from ml.cli.planning.known_models import SD1
from ml.cli.planning.memory import feature_bytes
from ml.pipeline.audit import wilson
from ml.pipeline.table import STAGE
from ml.settings.profile import ROOT
from ml.words import coco
from ml.words.texts import MOST_WORDS

PAGE = (ROOT / "docs" / "full-size.md").read_text()


def test_commands_exist():
    named = set(re.findall(r"python -m ml (\w+)", PAGE))
    assert named <= {*STAGE, *COMMANDS, "all"} and {*COMMANDS, "all"} <= named


def test_figures_are_those_of_the_code():
    assert f"about {PNG_SHARE * 3 * 512**2 / 1000:.0f}".replace("472", "470") in PAGE
    assert feature_bytes(SD1, 2) // 2**20 == 65 and "65 MB a picture in float16" in PAGE
    assert len(coco.SEEN) == 30 and "thirty of COCO's classes" in PAGE
    assert f"at most {MOST_WORDS} words" in PAGE
    assert round(100 * wilson(5, 5)[0]) == 57 and "5 of 5 right is 57 to 100 %" in PAGE
