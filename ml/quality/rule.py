"""One rule: an expectation of Great Expectations by name, of a table of `ml.quality.tables`.

No import of GX: the names of checks are needed where it is not installed.
"""

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Rule:
    name: str  # of the check
    table: str  # of the stage's tables
    kind: str  # expectation class of great_expectations.expectations
    arguments: dict[str, Any]  # of that class; "@name" is a bound that depends on the settings
    says: str  # what must hold, shown in the UI and in the report
    placement: bool = False  # judged where checks.placement is on

    def resolved(self, limits: dict[str, object]) -> dict[str, Any]:
        """The arguments with the bounds in place of their names: "@name" becomes limits["name"]."""
        return {
            key: limits[value[1:]] if isinstance(value, str) and value.startswith("@") else value
            for key, value in self.arguments.items()
        }

    def demand(self, arguments: dict[str, Any]) -> str:
        """What must hold, in words and figures: "grey levels vary (4 to 128, of 98%)".

        arguments: as `resolved` gives them.
        """
        figures = []
        if "min_value" in arguments:
            figures.append(f"{arguments['min_value']:g} to {arguments['max_value']:g}")
        if values := arguments.get("value_set"):
            more = f" and {len(values) - 6} more" if len(values) > 6 else ""
            figures.append("one of " + ", ".join(repr(v) for v in values[:6]) + more)
        if arguments.get("mostly", 1.0) < 1:
            figures.append(f"of {arguments['mostly']:.0%}")
        return f"{self.says} ({', '.join(figures)})" if figures else self.says


Bound = float | str  # a number, or "@name"


def between(
    name: str, table: str, column: str, low: Bound, high: Bound, says: str, *, mostly: float = 1.0
) -> Rule:
    """Every value of a column, or a share `mostly` of them, is from low to high."""
    arguments = {"column": column, "min_value": low, "max_value": high, "mostly": mostly}
    return Rule(name, table, "ExpectColumnValuesToBeBetween", arguments, says)


def within(
    name: str, table: str, column: str, allowed: list[Any] | str, says: str, *, mostly: float = 1.0
) -> Rule:
    """Every value of a column, or a share `mostly` of them, is one of those allowed."""
    arguments = {"column": column, "value_set": allowed, "mostly": mostly}
    return Rule(name, table, "ExpectColumnValuesToBeInSet", arguments, says)


def unique(name: str, table: str, column: str, says: str) -> Rule:
    """No value of a column is there twice."""
    return Rule(name, table, "ExpectColumnValuesToBeUnique", {"column": column}, says)


def pair(name: str, table: str, left: str, right: str, says: str) -> Rule:
    """Two columns are equal in every row."""
    arguments = {"column_A": left, "column_B": right}
    return Rule(name, table, "ExpectColumnPairValuesToBeEqual", arguments, says)


def together(name: str, table: str, columns: list[str], says: str) -> Rule:
    """No combination of the values of several columns is there twice."""
    arguments = {"column_list": columns}
    return Rule(name, table, "ExpectCompoundColumnsToBeUnique", arguments, says)


def placed(*rules: Rule) -> tuple[Rule, ...]:
    """Rules that are judged only where `checks.placement` is on."""
    return tuple(replace(rule, placement=True) for rule in rules)


PURPOSES = ["train", "sim", "synthetic"]
HUGE = 1e9  # no upper bound
