"""Find: masks of words in a picture that somebody brings, the segmenter's label map beside them.

A picture is squeezed into the models' square; its masks come back at its own size.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ml.app.answers import Answer, Told, Word, words_of
from ml.app.models import Models
from ml.grounding.given import enlarged, squared
from ml.images.photographs import open_picture
from ml.segmenters.prediction import predict

SHOWN_SIDE = 768
"""Pixels of the longer side of a picture on the page, at most."""


@dataclass(frozen=True)
class Segmented:
    """What the segmenter sees: a label map uint8 (H,W), the picture's size on the page."""

    title: str
    labels: np.ndarray
    names: dict[int, str]  # label -> class, of those that are in it


@dataclass(frozen=True)
class Found:
    """answer: at the size of the page. masks: bool (n,h,w) at the models' size. size: (H,W) of the
    picture as it was brought. threshold: of presence."""

    answer: Answer
    masks: np.ndarray
    size: tuple[int, int]
    file: str
    threshold: float
    segmented: Segmented | None

    def full_masks(self) -> Iterator[tuple[str, np.ndarray]]:
        """Each word with its mask bool (H,W) at the picture's own size, one after the other: a
        large picture's together would not fit in memory."""
        for place, own in enumerate(self.answer.words):
            yield own.word, enlarged(self.masks[place : place + 1], self.size)[0]


def find(models: Models, data: bytes, file: str, words: str, threshold: float, told: Told) -> Found:
    """Masks of words in the picture that the bytes of a file hold.

    file: its name. words: separated by commas. threshold: words of a lower presence get no mask.
    Raises ValueError for what is no picture or no question, ManifestError where there is no
    finished grounding module.
    """
    named = words_of(words)
    told(0.05, "Reading the picture")
    picture = read_picture(data, file)
    told(0.1, "Waiting for the models")
    with models.lock:
        opened, engine = models.grounding()
        small = squared(picture, engine.config.picture_size)[None].copy()
        told(0.2, "Finding the words")
        found = engine.ground(small, [named], min_presence=threshold)
        told(0.8, "Asking the segmenter")
        segmenter = models.segmenter()
        labels = None if segmenter is None else predict(segmenter.model, small)
    assert found.presence is not None  # a threshold was given
    shown = shrunk(picture)
    masks, soft = (
        enlarged(maps, shown.shape[:2]) for maps in (found.masks[0], found.probabilities[0])
    )
    every = [
        Word(word, masks[i], soft[i], float(found.presence[0][i])) for i, word in enumerate(named)
    ]
    segmented = None
    if segmenter is not None and labels is not None:
        names = {int(own): segmenter.model.config.id2label[int(own)] for own in np.unique(labels)}
        segmented = Segmented(
            segmenter.title,
            enlarged(labels, shown.shape[:2])[0],
            {label: name for label, name in names.items() if label},
        )
    return Found(
        Answer(shown, file, every), found.masks[0], picture.shape[:2], file, threshold, segmented
    )


def read_picture(data: bytes, file: str) -> np.ndarray:
    """uint8 (H,W,3) of the bytes of a picture's file, as a viewer shows it. Raises ValueError, with
    the file's name, for what is none."""
    if not data:
        raise ValueError(f"{file} is empty (0 bytes): choose the picture's file again")
    return open_picture(data, file)


def shrunk(picture: np.ndarray) -> np.ndarray:
    """uint8 (h,w,3) of at most SHOWN_SIDE pixels a side; the same array where it is."""
    scale = SHOWN_SIDE / max(picture.shape[:2])
    if scale >= 1:
        return picture
    size = tuple(max(1, round(side * scale)) for side in picture.shape[1::-1])
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
