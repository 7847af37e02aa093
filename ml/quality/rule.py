"""One rule: an expectation of Great Expectations by name, of a table of `ml.quality.tables`.

No import of GX: the names of checks are needed where it is not installed.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    name: str  # of the check
    table: str  # of the stage's tables
    kind: str  # expectation class of great_expectations.expectations
    arguments: dict  # of that class
    says: str  # what must hold, shown in the UI and in the report


def between(name, table, column, low, high, says, *, mostly=1.0) -> Rule:
    arguments = {"column": column, "min_value": low, "max_value": high, "mostly": mostly}
    return Rule(name, table, "ExpectColumnValuesToBeBetween", arguments, says)


def within(name, table, column, allowed, says, *, mostly=1.0) -> Rule:
    arguments = {"column": column, "value_set": allowed, "mostly": mostly}
    return Rule(name, table, "ExpectColumnValuesToBeInSet", arguments, says)


def unique(name, table, column, says) -> Rule:
    return Rule(name, table, "ExpectColumnValuesToBeUnique", {"column": column}, says)


def pair(name, table, left, right, says) -> Rule:
    arguments = {"column_A": left, "column_B": right}
    return Rule(name, table, "ExpectColumnPairValuesToBeEqual", arguments, says)


def together(name, table, columns, says) -> Rule:
    arguments = {"column_list": columns}
    return Rule(name, table, "ExpectCompoundColumnsToBeUnique", arguments, says)


PURPOSES = ["train", "sim", "synthetic"]


HUGE = 1e9
