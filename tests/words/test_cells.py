"""The one table of Protocol I's cells: which prompt is in which, and the titles as published."""

import json
from pathlib import Path

import pytest

from ml.words.cells import CELLS, cell_of

ROOT = Path(__file__).parents[2]


def test_a_prompt_is_in_the_cell_of_its_objects():
    named = (["cat"], ["dog"], ["cat", "cow"], ["dog", "cat"], ["cat", "dog"], ["dog", "bus"])
    assert [cell_of(own, {"dog", "bus"}) for own in named] == [
        "one_seen", "one_unseen", "two_seen", "two_mixed", "two_mixed", "two_unseen",
    ]  # fmt: skip
    for own in ([], ["cat", "dog", "bus"]):
        with pytest.raises(ValueError, match="one or two classes"):
            cell_of(own, {"dog"})


def test_titles_are_those_that_are_published():
    page = json.loads((ROOT / "docs/paper/protocol_one.json").read_text())
    columns = next(block["columns"] for block in page["blocks"] if "one_seen" in str(block))
    assert [tuple(column) for column in columns] == [(k, c.study) for k, c in CELLS.items()]
