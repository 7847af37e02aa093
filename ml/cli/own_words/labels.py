"""What a user's own pictures with masks (`init --labels`) say about the words."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ml.datasets.matching import known_as, matches
from ml.datasets.own import open_own
from ml.datasets.photos import PhotoFiles
from ml.pipeline.labelled import check_labels
from ml.settings.profile import ROOT
from ml.words.vocabulary import Vocabulary


def open_folder(labels: str) -> PhotoFiles:
    """The pictures of a folder. Raises ValueError when there is none, or in no known layout."""
    if not Path(labels).is_dir():
        raise ValueError(f"--labels: no folder {labels!r}; expected your own pictures with masks")
    return open_own(Path(labels).resolve(), "labels")


def words_of(photos: PhotoFiles) -> str:
    """The classes that its masks show, as --classes would name them."""
    labels = _labels_in(photos)
    shown = [name for label, name in photos.names.items() if label in labels]
    if not shown:
        raise ValueError(f"{photos.title}: no mask shows a class of its {len(photos.names)}")
    return ", ".join(shown)


def with_labels(vocabulary: Vocabulary, photos: PhotoFiles) -> tuple[Vocabulary, list[str]]:
    """The vocabulary with its unseen classes that the masks show as `labelled`, and notes.

    Raises ValueError for data that the stages would refuse.
    """
    known = matches(photos.names, vocabulary)
    labels = _labels_in(photos)
    shown = {name for label, name in known.items() if label in labels}
    labelled = tuple(name for name in vocabulary.unseen if name in shown)
    unseen = tuple(name for name in vocabulary.unseen if name not in shown)
    own = replace(vocabulary, unseen=unseen, labelled=labelled)
    counts = check_labels(photos, own)
    notes = [
        f"{name}: your masks in {counts[name]} of {len(photos.keys)} pictures alone teach it"
        for name in labelled
    ]
    notes += [
        f"{name}: your masks in {count} pictures teach it beside the detector's"
        for name, count in counts.items()
        if name not in labelled
    ]
    strange = _others(photos, vocabulary.classes, labels)
    notes += [f"{name}: is labelled, and no word of this profile: ignored" for name in strange]
    return own, notes


def _labels_in(photos: PhotoFiles) -> set[int]:
    """The labels that some picture of the part shows."""
    return {label for key in photos.keys for label in photos.labelled(key)[1]}


def _others(photos: PhotoFiles, classes: Sequence[str], labels: set[int]) -> list[str]:
    ours = {known_as(name) for name in classes}
    return [n for label, n in photos.names.items() if label in labels and known_as(n) not in ours]


def setting(labels: str, root: Path = ROOT) -> str:
    """triplets.labels of a profile: below the checkout where it lies there, else absolute."""
    folder = Path(labels).resolve()
    inside = folder.is_relative_to(root.resolve())
    return folder.relative_to(root.resolve()).as_posix() if inside else str(folder)
