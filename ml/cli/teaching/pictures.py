"""A user's own labelled pictures as arrays that teach, judged as those of `triplets.labels` are."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ml.datasets.folder import OwnFolder
from ml.datasets.matching import known_as, matches
from ml.datasets.own import open_own
from ml.datasets.photos import PhotoFiles
from ml.images.png import decode_png
from ml.images.run_lengths import decode_rle
from ml.pipeline.labelled import SHARD_SIZE, LabelledMaker, check_labels
from ml.pipeline.labelled_rows import REASONS, labelled_shards, own_rles, own_triplets
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.making import write_shards
from ml.store.schemas import LABELLED
from ml.store.shards import read_shards, split
from ml.store.sidecars import OWN, shard_files
from ml.words.vocabulary import Vocabulary, load_vocabulary, synonyms

NAME = "the words to teach"


@dataclass(frozen=True)
class Shown:
    """One picture, cut to the model's size, and what teaches of it."""

    name: str  # in the user's data
    image: np.ndarray  # uint8 (H,W,3)
    masks: dict[str, np.ndarray]  # word -> bool (H,W)
    ignored: np.ndarray  # bool (H,W)


def open_pictures(labels: str | None, images: str | None, masks: str | None) -> PhotoFiles:
    """Pictures in one folder of any layout, or in two of one's own. Raises ValueError for another
    combination, and for folders that are not there."""
    if labels is not None and images is None and masks is None:
        named, open_it = {"--labels": labels}, lambda: open_own(Path(labels).resolve(), "labels")
    elif labels is None and images is not None and masks is not None:
        root, own = Path(masks).resolve().parent, (Path(images).resolve(), Path(masks).resolve())
        named = {"--images": images, "--masks": masks}
        open_it = lambda: OwnFolder(root, "labels", *own)  # noqa: E731
    else:
        raise ValueError(
            "expected --images and --masks, or --labels alone, a folder that has both "
            "(docs/own-labels.md)"
        )
    for flag, name in named.items():
        if not Path(name).is_dir():
            raise ValueError(f"{flag}: no folder {name!r}; expected your own pictures with masks")
    return open_it()


def words_to_teach(photos: PhotoFiles, words: str | None, params: Params) -> Vocabulary:
    """The classes that the masks show, or those of them that are named, all to be taught; their
    words are those of the profile's vocabulary, else the usual ones, else their names.

    Raises ValueError for a word without a mask, and for masks of no class.
    """
    known = matches(photos.names, base := load_vocabulary(params.vocabulary))
    labels = {label for key in photos.keys for label in photos.labelled(key)[1]}
    names = {label: known.get(label, name) for label, name in photos.names.items()}
    called = {
        name: base.words.get(name) or synonyms().get(name) or (name,)
        for label, name in names.items()
        if label in labels
    }
    if not called:
        raise ValueError(f"{photos.title}: no mask shows a class of its {len(photos.names)}")
    if words is None:
        return Vocabulary(NAME, (), (), called, tuple(called))
    owner = {known_as(text): name for name, own in called.items() for text in (name, *own)}
    chosen: dict[str, tuple[str, ...]] = {}
    for word in (part.strip() for part in words.split(",")):
        if known_as(word) not in owner:
            raise ValueError(
                f"--words: {word!r} has no mask in {photos.title}; expected some of "
                f"{', '.join(map(repr, called))}, with commas between them"
            )
        chosen[owner[known_as(word)]] = called[owner[known_as(word)]]
    return Vocabulary(NAME, (), (), chosen, tuple(chosen))


def read_pictures(
    photos: PhotoFiles, vocabulary: Vocabulary, side: int, params: Params, workspace: Workspace
) -> tuple[list[Shown], dict[str, int]]:
    """The pictures with a mask that may teach, and how many masks may not, by reason.

    A mask that may not is neither an object nor background: its pixels are ignored. Raises
    ValueError for what `check_labels` refuses, and for a word none of whose masks may teach.
    """
    check_labels(photos, vocabulary)
    maker = LabelledMaker(params, workspace, vocabulary, photos, (side, side))
    none = pd.DataFrame(columns=["key", "std", "dhash"]).astype({"std": float})
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        plan = split(list(enumerate(photos.keys)), SHARD_SIZE)
        write_shards(folder / OWN, NAME, plan, maker, LABELLED)
        judged = own_triplets(folder, labelled_shards(folder), folder, none, params.triplets)
        rows = pd.concat(judged, ignore_index=True)
        rows["rle"] = [rle for shard in shard_files(folder / OWN) for rle in own_rles(shard)]
        pictures = read_shards(folder / OWN, ["key", "source", "image", "ignored"])
    for name in vocabulary.labelled:
        if not (rows.accepted & (rows.entity == name)).any():
            reasons = rows[rows.entity == name].reason.value_counts()
            told = ", ".join(f"{count} {why}: {REASONS[why]}" for why, count in reasons.items())
            raise ValueError(f"{name!r}: none of its masks may teach ({told}); bring others")
    by_key = dict(list(rows.groupby("key")))
    shown = [
        _shown(row, by_key[row.key], side)
        for row in pictures.itertuples()
        if row.key in by_key and by_key[row.key].accepted.any()
    ]
    return shown, rows[~rows.accepted].reason.value_counts().to_dict()


def _shown(row, rows: pd.DataFrame, side: int) -> Shown:
    masks = {own.word: _mask(own.rle, side) for own in rows.itertuples() if own.accepted}
    ignored = [_mask(row.ignored, side), *(_mask(rle, side) for rle in rows.rle[~rows.accepted])]
    return Shown(row.source, decode_png(row.image), masks, np.any(ignored, axis=0))


def _mask(rle: str, side: int) -> np.ndarray:
    return decode_rle(rle).astype(bool) if rle else np.zeros((side, side), bool)


def held_out(pictures: Sequence[Shown], seed: int) -> tuple[list[Shown], list[Shown]]:
    """(to teach with, to judge by): a fifth of the pictures judges, chosen by the seed, but none
    that is a word's last to learn from; of fewer than five none."""
    left = {word: sum(word in p.masks for p in pictures) for p in pictures for word in p.masks}
    judges: set[int] = set()
    for place in np.random.default_rng(seed).permutation(len(pictures)):
        if len(judges) == len(pictures) // 5:
            break
        words = pictures[place].masks
        if all(left[word] > 1 for word in words):
            judges.add(int(place))
            left |= {word: left[word] - 1 for word in words}
    both = ([], [])
    for place, picture in enumerate(pictures):
        both[place in judges].append(picture)
    return both
