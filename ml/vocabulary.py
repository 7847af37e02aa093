"""Vocabularies are data: which classes exist, which of them are seen, which words name them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import yaml

from ml.params import find_file

FOLDER = Path(__file__).parent / "vocabularies"
MAX_CLASSES = 254


@dataclass(frozen=True)
class Vocabulary:
    """Classes in label order (label i+1 is classes[i]; 0 is background, 255 is ignored)."""

    name: str
    seen: tuple[str, ...]  # the labeller may use masks of these
    unseen: tuple[str, ...]  # named and drawn, never labelled
    words: dict[str, tuple[str, ...]]  # class -> words, the one used in prompts first

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes, alphabetical, so that a label means the same in every split."""
        return tuple(sorted(self.seen + self.unseen))

    def label(self, name: str) -> int:
        """Label of a class, 1..len(classes). Raises ValueError for a class not in here."""
        if name not in self.classes:
            raise ValueError(f"{name!r} is not in vocabulary {self.name!r}: {self.classes}")
        return self.classes.index(name) + 1

    @property
    def digest(self) -> str:
        """sha256 of everything in it, for manifests: a user's file may change under its name."""
        return hashlib.sha256(repr((self.seen, self.unseen, sorted(self.words.items())))
                              .encode()).hexdigest()


def load_vocabulary(name: str) -> Vocabulary:
    """A vocabulary by name (`ml/vocabularies/<name>.yaml`) or by the path of a user's YAML file.

    The file has `seen:` and `unseen:` lists and optionally `words:` (class -> list of words);
    classes without words take theirs from `synonyms.yaml`, else their own name. Raises
    ValueError for a missing file, a class listed twice, more than 254, or no seen class. A path
    is looked for from the current folder, then from the checkout.
    """
    is_path = name.endswith((".yaml", ".yml"))
    file = find_file(name) if is_path else FOLDER / f"{name}.yaml"
    if not file.is_file():
        known = sorted(p.stem for p in FOLDER.glob("*.yaml") if p.stem != "synonyms")
        raise ValueError(f"unknown vocabulary {name!r}: expected one of {known} or a YAML file")
    values = yaml.safe_load(file.read_text())
    if not isinstance(values, dict) or not isinstance(values.get("seen"), list):
        raise ValueError(f"{file}: expected lists `seen:` and `unseen:`, got {values!r}")
    own = values.get("words") or {}
    for place, listed in [("seen", values["seen"]), ("unseen", values.get("unseen") or []),
                          *((f"words of {name!r}", words) for name, words in dict(own).items())]:
        if not isinstance(listed, list) or not all(isinstance(x, str) and x for x in listed):
            raise ValueError(f"{file}: {place}: expected a list of words, got {listed!r}; write "
                             "[a, b], and quote words that YAML takes for something else (\"no\")")
    seen, unseen = tuple(values["seen"]), tuple(values.get("unseen") or ())
    repeated = sorted({c for c in seen + unseen if (seen + unseen).count(c) > 1})
    if repeated:
        raise ValueError(f"{file}: classes listed more than once: {repeated}; list each once")
    if not seen:
        raise ValueError(f"{file}: no seen class; the labeller needs at least one")
    if len(seen + unseen) > MAX_CLASSES:
        raise ValueError(f"{file}: {len(seen + unseen)} classes, expected {MAX_CLASSES} at most: "
                         "label maps are 8-bit and 255 means ignored")
    synonyms = yaml.safe_load((FOLDER / "synonyms.yaml").read_text())
    strangers = sorted(set(own) - set(seen + unseen))
    if strangers:
        raise ValueError(f"{file}: words given for classes that are not listed: {strangers}")
    words = {c: tuple(own.get(c) or synonyms.get(c) or [c]) for c in seen + unseen}
    return Vocabulary(values.get("name", file.stem), seen, unseen, words)
