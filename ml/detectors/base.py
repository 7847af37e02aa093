"""What every detector returns and how it is called.

Here: `Instances` and `Detector`. Not here: label names (`ml.words.spellings`), or any model; each
backend has a module of its own, and `ml.detectors.load_detector` picks one from a literal table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ml.compute.batching import Batches
from ml.errors import NotFinite
from ml.words.spellings import canonical

Found = tuple[np.ndarray, np.ndarray, list[str], np.ndarray]
"""Masks bool (n,H,W), scores (n,), the backend's own label names, boxes (n,4) of one picture."""
ADVICE = "end what else holds the device's memory, or take a smaller detector"
FINITE = "bring its weights again, or set detector.model to another"


@dataclass(frozen=True, eq=False)
class Instances:
    """The objects one detector found in one picture, best score first.

    masks: bool (n,H,W) · scores: float32 (n,) in 0..1 · labels: n class names ·
    boxes: float32 (n,4) as x1,y1,x2,y2 in pixels, the far edges exclusive.
    """

    masks: np.ndarray
    scores: np.ndarray
    labels: tuple[str, ...]
    boxes: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.labels)
        if self.masks.dtype != bool or self.masks.ndim != 3 or len(self.masks) != n:
            raise ValueError(f"masks: expected bool ({n},H,W), got {_describe(self.masks)}")
        if self.scores.dtype != np.float32 or self.scores.shape != (n,):
            raise ValueError(f"scores: expected float32 ({n},), got {_describe(self.scores)}")
        if self.boxes.dtype != np.float32 or self.boxes.shape != (n, 4):
            raise ValueError(f"boxes: expected float32 ({n}, 4), got {_describe(self.boxes)}")

    def __len__(self) -> int:
        return len(self.labels)

    def merged(self, label: str) -> tuple[np.ndarray | None, float, int]:
        """All instances of one class as one mask: (mask bool (H,W) or None, score, count).

        A prompt names a class, not an object: with two dogs in the picture the training mask of
        "dog" must cover both. The score is the best instance's; without an instance the answer
        is (None, 0.0, 0).
        """
        rows = [i for i, name in enumerate(self.labels) if name == label]
        if not rows:
            return None, 0.0, 0
        return np.asarray(self.masks[rows].any(axis=0)), float(self.scores[rows].max()), len(rows)


class Detector:
    """The one protocol: `detect(images, classes) -> instances`. A backend gives `predict`.

    names: the backend's own label names, in any order.
    """

    def __init__(self, names: Sequence[str], *, score_threshold: float, batch_size: int) -> None:
        if not 0.0 <= score_threshold <= 1.0:
            raise ValueError(f"score_threshold: expected a number in 0..1, got {score_threshold}")
        self.known = tuple(sorted({canonical(name) for name in names}))
        self.score_threshold = score_threshold
        self.batches = Batches(batch_size, ADVICE)

    def predict(self, images: Sequence[np.ndarray]) -> list[Found]:
        """What the network finds in each picture uint8 (H,W,3)."""
        raise NotImplementedError

    def detect(
        self, images: Sequence[np.ndarray], classes: Sequence[str] | None = None
    ) -> list[Instances]:
        """Find objects in RGB pictures.

        images: uint8 (H,W,3) each; sizes may differ from one picture to the next.
        classes: the only classes that may come back, under the names asked for (a labeller of
            seen classes must never see another); None: all that the detector knows, by VOC id.
        """
        wanted = self.resolve(classes)
        for i, image in enumerate(images):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(f"image {i}: expected uint8 (H,W,3), got {_describe(image)}")
        return [
            self._keep(raw, wanted)
            for _, raws in self.batches.run(list(images), self.predict)
            for raw in raws
        ]

    def resolve(self, classes: Sequence[str] | None) -> dict[str, str]:
        """{our id: the name asked for}. Refuses a class that the detector does not know."""
        if classes is None:
            return {name: name for name in self.known}
        wanted: dict[str, str] = {}
        for name in classes:
            ours = canonical(name)
            if ours not in self.known:
                raise ValueError(
                    f"{type(self).__name__} does not know the class {name!r}. It knows: "
                    f"{', '.join(self.known)}. Take the class out, or use another detector."
                )
            if wanted.setdefault(ours, name) != name:
                raise ValueError(
                    f"{wanted[ours]!r} and {name!r} are one class, {ours}: ask for one of them."
                )
        return wanted

    def _keep(self, raw: Found, wanted: dict[str, str]) -> Instances:
        masks, scores, names, boxes = raw
        scores = np.asarray(scores, np.float32)
        if not (np.isfinite(scores).all() and np.isfinite(np.asarray(boxes, np.float32)).all()):
            raise NotFinite(
                f"{type(self).__name__}: expected finite scores and boxes, got NaN or "
                f"infinite ones; {FINITE}"
            )
        ours = [canonical(name) for name in names]
        rows = [
            int(i)
            for i in np.argsort(-scores, kind="stable")
            if scores[i] >= self.score_threshold and ours[i] in wanted and masks[i].any()
        ]
        return Instances(
            masks=np.asarray(masks, bool)[rows],
            scores=scores[rows],
            labels=tuple(wanted[ours[i]] for i in rows),
            boxes=np.asarray(boxes, np.float32).reshape(-1, 4)[rows],
        )


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype} {array.shape}"
