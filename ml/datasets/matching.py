"""How a data set's labels become the vocabulary's: which classes are one, and a label table."""

import unicodedata
from collections.abc import Mapping

import numpy as np

from ml.datasets.protocol import LabelledPhotos
from ml.images.overlays import IGNORED
from ml.words.spellings import canonical
from ml.words.vocabulary import Vocabulary


def matches(names: Mapping[int, str], vocabulary: Vocabulary) -> dict[int, str]:
    """Label of the data set -> the vocabulary's class, for classes that both have.

    Names match by VOC's and COCO's spellings (`canonical`) and whatever their case: TV is
    tvmonitor. Raises ValueError when two classes of the vocabulary are one class of the data set.
    """
    ours: dict[str, str] = {}
    for name in vocabulary.classes:
        if ours.setdefault(known_as(name), name) != name:
            raise ValueError(
                f"vocabulary {vocabulary.name!r}: {ours[known_as(name)]!r} and "
                f"{name!r} are one class, {known_as(name)}; keep one of them"
            )
    return {label: ours[known_as(name)] for label, name in names.items() if known_as(name) in ours}


def known_as(name: str) -> str:
    """The spelling by which class names are compared."""
    return canonical(unicodedata.normalize("NFC", name).casefold())


def class_table(photos: LabelledPhotos, vocabulary: Vocabulary) -> np.ndarray:
    """uint8 (256,): the data set's label -> the vocabulary's; see `table_of`.

    Raises ValueError when the two share no class.
    """
    known = matches(photos.names, vocabulary)
    if not known:
        raise ValueError(
            f"vocabulary {vocabulary.name!r} lists none of the classes of {photos.title}: expected "
            f"some of {', '.join(photos.names.values())}; got {', '.join(vocabulary.classes)}"
        )
    return table_of(known, vocabulary)


def table_of(known: Mapping[int, str], vocabulary: Vocabulary) -> np.ndarray:
    """uint8 (256,): the data set's label -> the vocabulary's. 0 stays 0, 255 stays 255.

    known: label of the data set -> the vocabulary's class. Any other label becomes 255: its class
    is in the picture, so calling it background would punish a segmenter for seeing it.
    """
    table = np.full(256, IGNORED, np.uint8)
    table[0] = 0
    for label, name in known.items():
        table[label] = vocabulary.label(name)
    return table
