"""What is known of a set as a whole: for cards and info blocks, and to tell two sets apart."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Licence:
    """Of the weights that made a set."""

    weights: str  # the model's name
    name: str  # of the licence, or what is known of it
    tag: str = "other"  # as the Hugging Face hub calls it
    note: str = ""


@dataclass(frozen=True)
class About:
    """A set of pictures with label maps, in words.

    intro: what it is, in a sentence or two. origin: the columns of its rows that say where a
    picture comes from, by the name that they get in an export. facts: (what, value) pairs, how it
    was made. faults: what is known to be wrong or doubtful, a sentence each. precision: rows as
    `ml.pipeline.audit.precision` gives them; none where no one judged the set.
    """

    name: str
    digest: str
    intro: str
    classes: tuple[str, ...]  # label i+1 is classes[i]
    origin: dict[str, str]
    facts: tuple[tuple[str, str], ...]
    faults: tuple[str, ...]
    licences: tuple[Licence, ...]
    precision: tuple[dict[str, Any], ...] = ()
