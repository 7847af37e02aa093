"""Writes the files of a new profile: its settings, its vocabulary, a copy of its prompts."""

import math
import os
import re
from dataclasses import replace
from pathlib import Path

import yaml

from ml.cli.own_words.classes import parse_classes
from ml.cli.own_words.labels import open_folder, setting, with_labels, words_of
from ml.cli.own_words.vocabulary import choose, world_of
from ml.pipeline.workspace import Workspace
from ml.settings.files import RESERVED
from ml.settings.profile import ROOT, load_params
from ml.store.files import atomic
from ml.words.phrases import query_text
from ml.words.prompts import check
from ml.words.text_limit import find_limit
from ml.words.texts import read_texts
from ml.words.vocabulary import Vocabulary

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")

PROFILE = """\
# Made by: python -m ml init --classes "{classes}" --profile {base}
#   python -m ml plan --profile {name}   what it needs, before anything starts
#   python -m ml all --profile {name}    the whole graph
# Settings of {base}, overridden below; ml/settings/sections.py says what each one means.
base: {base}
vocabulary: {vocabulary}

benchmark:
  source: none  # nobody labelled these words: held-out synthetic pictures and the audit sheet
  root: null
"""

WORDS = """\
# Vocabulary of the profile {name}. The labeller may use masks of `seen` classes only; `unseen`
# ones are named and drawn, and nobody ever labels them.
name: {name}
seen: [{seen}]
unseen: [{unseen}]
{labelled}# Other words for a class, the one used in most prompts first:
# words: {{{example}: [{example}, another word for it]}}
"""

LABELLED = """\
# Words that no detector is asked for: your own masks (triplets.labels) alone teach them.
labelled: [{labelled}]
"""

DETAILS = {"attribute_share": 0.4, "scene_share": 0.6}
"""Of the prompts; full size only: the micro model knows few words besides its classes."""


def make_profile(
    classes: str | None,
    profile: str,
    name: str | None = None,
    texts: str | None = None,
    root: Path = ROOT,
    labels: str | None = None,
) -> tuple[list[Path], Vocabulary, list[str]]:
    """Writes the files; returns them, the vocabulary, and notes on the words for the user.

    Raises ValueError, before anything is written, for an unknown base profile, a name that is
    taken, words that cannot be used, a text file with lines that cannot, or labels that the stages
    would refuse.
    """
    photos = open_folder(labels) if labels is not None else None
    if classes is None:
        assert photos is not None, "the command asks for one of the two"
        classes = words_of(photos)
    words = parse_classes(classes)
    name = name or re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower())[:40].strip("-")
    if not NAME.fullmatch(name) or name in RESERVED:
        raise ValueError(
            f"--name {name!r}: expected small letters, digits, - and _, 40 at "
            f"most, and not {' or '.join(RESERVED)}"
        )
    base = load_params(profile, root)
    folder = root / "profiles"
    files = [folder / f"{name}.yaml", folder / "words" / f"{name}.yaml"]
    copied = folder / "words" / f"{name}.txt"
    refuse_taken(name, [*files, copied], root)
    world = world_of(base, root)
    vocabulary, notes = choose(words, world, name)
    if photos is not None:
        vocabulary, more = with_labels(vocabulary, photos)
        notes += more
    details = {} if world.closed else DETAILS
    check(vocabulary, replace(base.prompts, **details))
    drawing = base.diffusion
    model = Workspace(root, name).model(drawing.model)
    limit = find_limit(model, drawing.revision, drawing.t5_tokens)
    if limit is not None:
        limit.refuse_words(vocabulary.owners())
        limit.refuse(query_text(word) for words in vocabulary.words.values() for word in words)
    relative = [path.relative_to(root).as_posix() for path in [*files, copied]]
    prompts = details | ({"texts": relative[2]} if texts else {})
    content = PROFILE.format(
        classes=", ".join(words), base=quoted(profile), name=name, vocabulary=relative[1]
    )
    if prompts:
        content += "\n" + yaml.safe_dump({"prompts": prompts}, sort_keys=False)
    if labels is not None:
        own = {"triplets": {"labels": setting(labels, root)}}
        content += "\n" + yaml.safe_dump(own, allow_unicode=True)
    contents = {
        files[0]: content,
        files[1]: WORDS.format(
            name=quoted(name),
            seen=", ".join(map(quoted, vocabulary.seen)),
            unseen=", ".join(map(quoted, vocabulary.unseen)),
            labelled=LABELLED.format(labelled=", ".join(map(quoted, vocabulary.labelled)))
            if vocabulary.labelled
            else "",
            example=quoted((vocabulary.unseen or vocabulary.taught)[0]),
        ),
    }
    if texts:
        read = read_texts(texts, vocabulary, limit)
        contents[copied] = "".join(f"{text.text}\n" for text in read)
    write_new(contents, name)
    return list(contents), vocabulary, notes


def taken(name: str, file: Path) -> str:
    """What is said of a name that another profile has."""
    return f"profile {name!r} exists ({file}): choose another --name, or remove it first"


def refuse_taken(name: str, files: list[Path], root: Path) -> None:
    """Raises ValueError for a name that a profile has, and for files that cannot be made."""
    if name == load_params(root=root).profile:
        raise ValueError(taken(name, root / "params.yaml"))
    for file in files:
        if os.path.lexists(file):
            raise ValueError(taken(name, file))
        if os.path.lexists(file.parent) and not file.parent.is_dir():
            raise ValueError(
                f"{file.parent} is no folder, expected one or nothing there: move it away"
            )


def write_new(contents: dict[Path, str], name: str) -> None:
    """Writes all of the files or none, the first one last: it names the others.

    Raises ValueError where one stands by then: of two commands at once, one gets the name.
    """
    made: list[Path] = []
    try:
        for path, content in reversed(contents.items()):
            with atomic(path, taken=taken(name, path)) as temporary:
                temporary.write_text(content, encoding="utf-8")
            made.append(path)
    except BaseException:
        for path in made:
            path.unlink()
        raise


def quoted(word: str) -> str:
    """A YAML scalar that is text, on one line: "no" is a boolean, 007 a number, and what follows
    " #" a comment."""
    try:
        plain = re.fullmatch(r"[\w './’-]+", word) and yaml.safe_load(word) == word
    except ValueError:  # a date or a number that there cannot be, such as 2020-99-99
        plain = False
    return word if plain else yaml.safe_dump(word, default_style='"', width=math.inf).strip()
