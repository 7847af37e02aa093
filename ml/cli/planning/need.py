"""One row of the plan: a number of bytes and where the figure comes from."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Need:
    name: str  # stage or purpose
    bytes: int | None
    how: str  # where the figure comes from


def largest(needs: Sequence[Need]) -> int:
    """The peak over stages that follow each other; what is not known counts as nothing."""
    return max((need.bytes or 0 for need in needs), default=0)
