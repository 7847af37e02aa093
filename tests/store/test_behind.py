"""Work behind the making of the next item: order, bound, errors, and shards that stay whole."""

import threading

import pandas as pd
import pyarrow as pa
import pytest

from ml.store.behind import behind
from ml.store.making import write_shards
from ml.store.shards import read_shards
from ml.store.sidecars import rows_in_place

SCHEMA = pa.schema([("key", pa.int64())])


def test_the_next_item_is_made_while_one_is_finished_and_no_further():
    """Each item's end waits for the next one's making to begin, and could not come otherwise."""
    began = [threading.Event() for _ in range(5)]
    said = []

    def made():
        for number in range(4):
            began[number].set()
            said.append(("made", number))
            yield number
        began[4].set()

    def finish(number):
        assert threading.current_thread() is not threading.main_thread()
        assert began[number + 1].wait(10)
        said.append(("finished", number))
        return -number

    assert list(behind(made(), finish)) == [0, -1, -2, -3]
    for number in range(2):  # a queue of one: two are never waiting
        assert said.index(("finished", number)) < said.index(("made", number + 2)) + 1
    assert [number for what, number in said if what == "finished"] == [0, 1, 2, 3]


def test_errors_of_both_sides_are_raised():
    def finish(number):
        if number == 1:
            raise ValueError("the disk is full")
        return number

    found = behind(range(3), finish)
    assert next(found) == 0
    with pytest.raises(ValueError, match="the disk is full"):
        list(found)

    finished = []

    def made():
        yield 7
        raise RuntimeError("no such word")

    with pytest.raises(RuntimeError, match="no such word"):
        list(behind(made(), finished.append))
    assert finished == [7]


def test_a_shard_that_was_made_is_written_whole_when_the_next_one_fails(tmp_path):
    def make(group):
        if 2 in group:
            raise ValueError("prompt too long")
        return pd.DataFrame({"key": list(group)})

    plan = [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(ValueError, match="prompt too long"):
        write_shards(tmp_path, "a", plan, make, SCHEMA)
    assert rows_in_place(tmp_path / "shard-00000.parquet", "a") == 2
    assert [path.name for path in tmp_path.glob("*.parquet")] == ["shard-00000.parquet"]
    asked = []

    def again(group):
        asked.append(list(group))
        return pd.DataFrame({"key": list(group)})

    rows = write_shards(tmp_path, "a", plan, again, SCHEMA)
    assert asked == [[2, 3], [4, 5]] and list(rows.values()) == [2, 2, 2]
    assert list(read_shards(tmp_path).key) == list(range(6))
