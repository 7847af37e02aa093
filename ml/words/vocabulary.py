"""Vocabularies: which classes exist, which of them are seen, which words name them."""

import difflib
import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ml.settings.profile import ROOT, find_file
from ml.store.reading import read_yaml
from ml.words.english import SINGULAR, plurals, singular_of, with_article
from ml.words.spans import check_name, fold
from ml.words.spellings import canonical

FOLDER = Path(__file__).parent / "vocabularies"
MAX_CLASSES = 254
KEYS = ("name", "seen", "unseen", "labelled", "words")
BACKGROUND = "background"
"""Label 0, whatever is no class."""


@dataclass(frozen=True)
class Vocabulary:
    """Classes in label order (label i+1 is classes[i]; 0 is background, 255 is ignored)."""

    name: str
    seen: tuple[str, ...]  # the labeller may use masks of these
    unseen: tuple[str, ...]  # named and drawn, never labelled
    words: dict[str, tuple[str, ...]]  # class -> words, the one used in prompts first
    labelled: tuple[str, ...] = ()  # taught by the user's own masks alone (`triplets.labels`)

    @property
    def taught(self) -> tuple[str, ...]:
        """Classes whose masks may teach the grounding module: seen and labelled ones."""
        return self.seen + self.labelled

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes, alphabetical, so that a label means the same in every split."""
        return tuple(sorted(self.seen + self.unseen + self.labelled))

    def label(self, name: str) -> int:
        """Label of a class, 1..len(classes). Raises ValueError for a class not in here."""
        if name not in self.classes:
            raise ValueError(f"{name!r} is not in vocabulary {self.name!r}: {self.classes}")
        return self.classes.index(name) + 1

    def owners(self) -> dict[str, str]:
        """Folded word (`ml.words.spans.fold`) -> the class that it names.

        Raises ValueError for a word of two classes.
        """
        owners: dict[str, str] = {}
        for name, words in self.words.items():
            for word in words:
                if (other := owners.setdefault(fold(word), name)) != name:
                    raise ValueError(
                        f"vocabulary {self.name!r}: {word!r} is a word of {other!r} "
                        f"and of {name!r}, which cannot be told apart in a prompt; "
                        "give one of them another word under `words:`"
                    )
        return owners

    @property
    def digest(self) -> str:
        """sha256 of everything in it, for manifests: a user's file may change under its name."""
        parts: tuple[object, ...] = (self.seen, self.unseen, sorted(self.words.items()))
        if self.labelled:  # a vocabulary without them has the digest that it had before
            parts += (self.labelled,)
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def load_vocabulary(name: str | Path) -> Vocabulary:
    """Opens a vocabulary.

    A user's file has `seen:` and `unseen:` lists, optionally `labelled:` (classes that the user's
    own masks teach, and no detector) and `words:` (class -> list of words); classes without words
    take theirs from `synonyms.yaml`, else their own name.

    Args:
        name: of a vocabulary that comes with the project (`ml/words/vocabularies/<name>.yaml`), or
            the path of a YAML file, looked for from the current folder, then from the checkout.

    Returns:
        Vocabulary: at most 254 classes in alphabetical order, which is that of their labels 1..n.

    Raises:
        ValueError: what is neither a name nor a path, a missing file, broken YAML, an unknown key,
            what is no word, more than 254 classes, no seen class, and classes and words that are
            equal, plurals, or shared by two; the message names the file.

    Examples:
        >>> from ml import load_vocabulary
        >>> vocabulary = load_vocabulary("voc-1")
        >>> len(vocabulary.classes), vocabulary.unseen
        (20, ('tvmonitor', 'car', 'dog', 'sofa', 'train'))
        >>> vocabulary.words["tvmonitor"][0]
        'tv monitor'
    """
    if not isinstance(name, str | Path):
        raise ValueError(
            "expected a vocabulary's name or the path of a YAML file, "
            f"got {type(name).__name__} {_short(name)}"
        )
    name = str(name)
    is_path = name.endswith((".yaml", ".yml"))
    file = find_file(name) if is_path else FOLDER / f"{name}.yaml"
    if is_path and not file.is_file():
        looked = dict.fromkeys(str(place / name) for place in (Path.cwd(), ROOT))
        raise ValueError(f"unknown vocabulary {name!r}: no file {' or '.join(looked)}")
    if not file.is_file():
        known = sorted(p.stem for p in FOLDER.glob("*.yaml") if p.stem != "synonyms")
        raise ValueError(f"unknown vocabulary {name!r}: expected one of {known} or a YAML file")
    values = read_yaml(file)
    try:
        found = _vocabulary(values, file.stem)
        own = values.get("words") if isinstance(values, dict) else None
        refuse_plurals(found, own or {})
        found.owners()
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    return found


def _vocabulary(values: object, stem: str) -> Vocabulary:
    if not isinstance(values, dict) or not isinstance(values.get("seen"), list):
        raise ValueError(f"expected lists `seen:` and `unseen:`, got {_short(values)}")
    for key in values:
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, 1)
            raise ValueError(
                f"unknown key {key!r}: expected {', '.join(KEYS)}"
                + (f"; did you mean `{near[0]}:`?" if near else "")
            )
    values = {"name": stem} | {key: value for key, value in values.items() if value is not None}
    own, called = values.get("words", {}), values["name"]
    if not isinstance(own, dict) or not isinstance(called, str):
        raise ValueError(
            "expected `name:` as text and `words:` as {class: [word, word]}, got "
            f"{called!r} and {_short(own)}"
        )
    seen, unseen, labelled = (
        _words(values.get(key, []), key) for key in ("seen", "unseen", "labelled")
    )
    classes = seen + unseen + labelled
    if len(classes) > MAX_CLASSES:
        raise ValueError(
            f"{len(classes)} classes, expected {MAX_CLASSES} at most: label maps are "
            "8-bit and 255 means ignored"
        )
    if not seen:
        raise ValueError("no seen class; the labeller needs at least one")
    refuse_repeated(classes, "classes")
    spelt: dict[str, str] = {}
    for name in classes:
        if (other := spelt.setdefault(canonical(name), name)) != name:
            raise ValueError(
                f"{other!r} and {name!r} are one class to every detector, "
                f"{canonical(name)!r}; keep one of them"
            )
    _words(list(own), "words")
    if strangers := sorted(set(own) - set(classes)):
        raise ValueError(f"words given for classes that are not listed: {strangers}")
    for name, words in own.items():
        refuse_repeated(_words(words, f"words of {name!r}"), f"words of {name!r}")
        if not words:
            raise ValueError(
                f"words of {name!r}: expected one or more, got none; leave the line "
                "out to take the class's own name"
            )
    usual = synonyms()
    words = {c: tuple(own.get(c) or usual.get(c) or [c]) for c in classes}
    return Vocabulary(called, seen, unseen, words, labelled)


def refuse_unlabelled(vocabulary: Vocabulary, labels: str | None) -> None:
    """Raises ValueError for a vocabulary whose `labelled:` classes nothing could teach.

    labels: the setting triplets.labels.
    """
    if vocabulary.labelled and labels is None:
        raise ValueError(
            f"vocabulary {vocabulary.name!r} lists {', '.join(map(repr, vocabulary.labelled))} "
            "under `labelled:`, which only masks of your own teach, and triplets.labels is null: "
            "set it to their folder, or list the classes under `unseen:`"
        )


@cache
def synonyms() -> dict[str, tuple[str, ...]]:
    """Class -> its usual words, the one used in prompts first (`synonyms.yaml`)."""
    listed = read_yaml(FOLDER / "synonyms.yaml")
    assert isinstance(listed, dict)  # it is ours
    return {name: tuple(words) for name, words in listed.items()}


def _words(listed: object, place: str) -> tuple[str, ...]:
    """A list of the file as words, each checked."""
    if not isinstance(listed, list):
        raise ValueError(f"{place}: expected a list of words, got {_short(listed)}; write [a, b]")
    for word in listed:
        if not isinstance(word, str):
            raise ValueError(
                f"{place}: expected a list of words, got {word!r} in it, which YAML "
                'takes for something else than text; quote it, as in ["no", "7"]'
            )
        try:
            check_name(word)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
        if fold(word) == BACKGROUND:
            raise ValueError(f"{place}: {word!r} is what is no class (label 0); use another word")
    return tuple(listed)


def refuse_repeated(words: tuple[str, ...], what: str) -> None:
    """Raises ValueError for words that are equal, whatever their case."""
    if twice := [word for word, count in Counter(map(fold, words)).items() if count > 1]:
        same = list(dict.fromkeys(word for word in words if fold(word) == twice[0]))
        raise ValueError(f"{what} listed more than once: {same}; list each once")


def refuse_plurals(vocabulary: Vocabulary, given: dict[str, list[str]]) -> None:
    """Raises ValueError for a word that is another one's plural, and for a class whose name is a
    plural. given: class -> words that the user chose; a name like "tongs" may stand there."""
    owner = {fold(word): word for words in vocabulary.words.values() for word in words}
    for word in list(owner.values()):
        for form in plurals(word):
            if form in owner and form not in SINGULAR:
                raise ValueError(
                    f"{owner[form]!r} is the plural of {word!r}; prompts say "
                    f"{with_article(word)!r}, so list the singular alone"
                )
    for name, words in vocabulary.words.items():
        one = None if name in given else singular_of(words[0])
        if one:
            raise ValueError(
                f"{name!r} is a plural: prompts would say {with_article(words[0])!r}. "
                f"Use the singular, such as {one!r}; if it is none, give the word "
                f"itself under `words:`, as in {{{name}: [{words[0]}]}}"
            )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
