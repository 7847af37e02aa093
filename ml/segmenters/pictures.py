"""The pictures of a training: decoded when needed, resized, cropped, flipped.

A set of pictures is any sequence of uint8 arrays: a numpy array, or `Encoded`, which keeps PNG or
JPEG bytes and decodes one picture at a time (10,000 of 512x512 are 8 GB decoded). Everything random
is a function of (seed, step, place in the batch). Not here: the training loop.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image, ImageEnhance

from ml.images.overlays import IGNORED
from ml.images.png import decode_png
from ml.segmenters import fetched
from ml.settings.sections import SegmenterParams
from ml.store.files import atomic, read_note, sha256_file, write_json
from ml.store.places import is_remote

THREADS = 4
"""That decode and resize; PIL releases Python's global lock while it works."""
AHEAD = 3
"""Steps prepared while the device works on one."""
BEYOND = (124, 116, 104)
"""What a crop shows beyond the picture, under the label 255: ImageNet's mean colour."""
LOOKED_AT = 32
"""Pictures whose size is compared with the crop's before any work."""
Pair = tuple[np.ndarray, np.ndarray]
"""A picture and its label map."""
_SCHEMA = pa.schema([("image", pa.binary()), ("label", pa.binary())])


class Arrays(Protocol):
    """A set of pictures or of label maps: a numpy array, a list of arrays, or `Encoded`."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> np.ndarray: ...


class Encoded(Sequence[np.ndarray]):
    """Pictures or label maps out of their PNG or JPEG bytes, decoded at every access."""

    def __init__(self, data: Sequence[bytes] | pa.ChunkedArray) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, place: int) -> np.ndarray:  # type: ignore[override]  # no slices
        data = self.data[int(place)]
        return decode_png(data.as_py() if isinstance(data, pa.Scalar) else data)


def store_encoded(file: Path, frames: Iterable[pd.DataFrame]) -> None:
    """Writes the columns `image` and `label` (bytes) of the frames for `open_encoded`, and the
    file's digest beside it. On an object store nothing is kept on this machine."""
    if is_remote(file):
        fetched.store(file, frames)
        return
    with (
        atomic(file) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, _SCHEMA) as writer,
    ):
        for frame in frames:
            writer.write_table(
                pa.Table.from_pandas(frame[_SCHEMA.names], _SCHEMA, preserve_index=False)
            )
    write_json(_digest_of(file), sha256_file(file))


def is_stored(file: Path) -> bool:
    """Whether `store_encoded` left the file, and it is as it was then."""
    if is_remote(file):
        return fetched.is_whole(file)
    return file.is_file() and read_note(_digest_of(file), str) == sha256_file(file)


def _digest_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256.json")


def open_encoded(file: Path) -> tuple[Sequence[np.ndarray], Sequence[np.ndarray]]:
    """Pictures and label maps of a stored file: mapped, not read, and shared by all processes; on
    an object store fetched one by one."""
    if is_remote(file):
        return fetched.open_parts(file)
    table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
    return Encoded(table["image"]), Encoded(table["label"])


def check_pictures(images: Arrays, labels: Arrays, params: SegmenterParams) -> None:
    """Raises ValueError for sets that do not fit each other, or a crop that no picture fills."""
    if len(images) != len(labels) or not len(images):
        raise ValueError(
            f"expected as many label maps as pictures, at least one, got {len(images)}"
            f" pictures and {len(labels)} label maps"
        )
    places = range(0, len(images), -(-len(images) // LOOKED_AT))
    largest = max(max(_pair(images, labels, place)[0].shape[:2]) for place in places)
    enlarged = params.scale_range[1] * largest
    if params.crop_size is not None and params.crop_size > enlarged:
        raise ValueError(
            f"segmenter.crop_size is {params.crop_size}, larger than every picture looked at (at "
            f"most {largest} pixels, enlarged {params.scale_range[1]:g} times at most): expected "
            f"at most {int(enlarged)}, else every crop is padded"
        )


def _pair(images: Arrays, labels: Arrays, place: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture and its label map. Raises ValueError unless uint8 (H,W,3) and uint8 (H,W)."""
    image, label = images[place], labels[place]
    fits = image.ndim == 3 and image.shape[2] == 3 and image.shape[:2] == label.shape
    if not fits or image.dtype != np.uint8 or label.dtype != np.uint8:
        raise ValueError(
            f"picture {place}: expected pictures uint8 (H,W,3) and label maps uint8 (H,W) of one "
            f"size, got {image.dtype} {image.shape} and {label.dtype} {label.shape}"
        )
    return image, label


def batch_of(kept: np.ndarray, size: int, seed: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of a step and whether each is flipped: every picture once an epoch, in new order."""
    places = np.arange((step - 1) * size, step * size)
    epochs, within = np.divmod(places, len(kept))
    orders = {
        epoch: np.random.default_rng([seed, epoch]).permutation(kept) for epoch in np.unique(epochs)
    }
    chosen = np.array([orders[epoch][place] for epoch, place in zip(epochs, within, strict=True)])
    return chosen, np.random.default_rng([seed, step, 1]).random(size) < 0.5


def augmented(
    image: np.ndarray,
    label: np.ndarray,
    params: SegmenterParams,
    rng: np.random.Generator,
    flip: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Resized by a factor out of `scale_range`, cropped, recoloured, turned left to right."""
    low, high = params.scale_range
    if (low, high) != (1.0, 1.0):
        factor = rng.uniform(low, high)
        size = tuple(max(1, round(side * factor)) for side in label.shape[::-1])
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
        label = np.asarray(Image.fromarray(label).resize(size, Image.Resampling.NEAREST))
    if params.crop_size is not None:
        image, label = _crop(image, label, params.crop_size, rng)
    if params.colour_jitter:
        image = _recolour(image, params.colour_jitter, rng)
    return (image[:, ::-1], label[:, ::-1]) if flip else (image, label)


def _crop(
    image: np.ndarray, label: np.ndarray, side: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A random square; a smaller picture is put into the square's corner."""
    top, left = (int(rng.integers(0, max(0, length - side) + 1)) for length in label.shape)
    image, label = (x[top : top + side, left : left + side] for x in (image, label))
    height, width = label.shape
    if (height, width) == (side, side):
        return image, label
    wide = np.full((side, side, 3), BEYOND, np.uint8)
    empty = np.full((side, side), IGNORED, np.uint8)
    wide[:height, :width], empty[:height, :width] = image, label
    return wide, empty


def _recolour(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(image))
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = change(picture).enhance(rng.uniform(1 - strength, 1 + strength))
    return np.asarray(picture)


def batches(
    images: Arrays,
    labels: Arrays,
    kept: np.ndarray,
    params: SegmenterParams,
    seed: int,
    steps: Iterable[int],
    rows: Sequence[int],
    classes: int,
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Step, pictures uint8 (b,H,W,3) and label maps uint8 (b,H,W), prepared ahead by threads.

    rows: the places of the step's batch that are made here. Raises ValueError when the pictures
    of a batch differ in size, or a label map holds a label above `classes` that is not 255.
    """

    def one(step: int, row: int, place: int, flip: bool) -> tuple[np.ndarray, np.ndarray]:
        image, label = _pair(images, labels, place)
        unknown = label[(label > classes) & (label != IGNORED)]
        if unknown.size:
            raise ValueError(
                f"picture {place}: expected labels 0..{classes} and {IGNORED}, got "
                f"{unknown.max()}: was it labelled with another vocabulary?"
            )
        return augmented(image, label, params, np.random.default_rng([seed, step, 2, row]), flip)

    with ThreadPoolExecutor(THREADS) as pool:
        waiting: deque[tuple[int, list[Future[Pair]]]] = deque()
        for step in steps:
            chosen, flips = batch_of(kept, params.batch_size, seed, step)
            waiting.append(
                (step, [pool.submit(one, step, row, chosen[row], bool(flips[row])) for row in rows])
            )
            if len(waiting) > AHEAD:
                yield _stacked(*waiting.popleft())
        while waiting:
            yield _stacked(*waiting.popleft())


def _stacked(step: int, futures: Sequence[Future[Pair]]) -> tuple[int, np.ndarray, np.ndarray]:
    pairs = [future.result() for future in futures]
    sizes = sorted({label.shape for _, label in pairs})
    if len(sizes) > 1:
        raise ValueError(
            f"pictures of {len(sizes)} sizes in one batch, e.g. {sizes[0]} and "
            f"{sizes[-1]}: set segmenter.crop_size, so that squares are trained on"
        )
    return step, np.stack([image for image, _ in pairs]), np.stack([label for _, label in pairs])
