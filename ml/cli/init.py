"""`python -m ml init --classes "forklift, pallet"`: a profile and a vocabulary for one's own words.

Writes `profiles/<name>.yaml`, which builds upon another profile, and `profiles/words/<name>.yaml`,
the vocabulary; with --texts also a copy of the prompts. Nothing is downloaded here, and of a model
that is on this machine only the tokenizer is loaded: texts that it would cut are refused.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import yaml

from ml.arguments import add_profile, add_root, make_parser
from ml.detectors.base import canonical
from ml.pipeline.workspace import Workspace
from ml.settings.files import RESERVED
from ml.settings.params import Params
from ml.settings.profile import ROOT, load_params
from ml.store.files import atomic
from ml.words import coco
from ml.words.english import SINGULAR, plurals, singular_of, with_article
from ml.words.phrases import query_text
from ml.words.prompts import check
from ml.words.spans import check_name, fold
from ml.words.text_limit import find_limit
from ml.words.texts import read_texts
from ml.words.vocabulary import BACKGROUND, MAX_CLASSES, Vocabulary, synonyms

LETTERS = r"(?:[^\W_][\u0300-\u036f]*)+"  # with their marks: "İ" in small is two characters
WORD = re.compile(rf"{LETTERS}(?:(?:['’]?[ -]|['’]){LETTERS})*")  # "jack-o'-lantern", "dogs' bowl"
PLURALS = {
    form: one
    for one in (*coco.CLASSES, *chain(*synonyms().values()))
    for form in plurals(one) - SINGULAR
}
"""Of the words that detectors know: "wine glasses" looks like "safety glasses"."""
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")

PROFILE = """\
# Made by: python -m ml init --classes "{classes}" --profile {base}
#   python -m ml plan --profile {name}   what it needs, before anything starts
#   python -m ml all --profile {name}    the whole graph
# Settings of {base}, overridden below; ml/settings/profile.py says what each one means.
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
# Other words for a class, the one used in most prompts first:
# words: {{{example}: [{example}, another word for it]}}
"""
DETAILS = {"attribute_share": 0.4, "scene_share": 0.6}
"""Of the prompts; full size only: the micro model knows few words besides its classes."""


@dataclass(frozen=True)
class World:
    """What a base profile's models can draw and find."""

    name: str
    known: tuple[str, ...]  # classes the detector knows
    seen: tuple[str, ...]  # of them, what the labeller teaches with
    closed: bool  # nothing but `known` can be drawn


def world_of(base: Params, root: Path = ROOT) -> World:
    """The drawn world for profiles with the micro diffusion model, COCO's for all others."""
    if base.diffusion.model == load_params(root=root).diffusion.model:
        drawn = tuple(sorted(synonyms()))
        return World("the drawn world", drawn, drawn, True)
    return World("COCO", coco.CLASSES, coco.SEEN, False)


def parse_classes(text: str) -> list[str]:
    """The words of a comma-separated list, in small letters.

    Raises ValueError for none, more than a vocabulary holds, an empty one, a repeated one, a
    plural, characters other than letters and digits, or one that is part of another.
    """
    text = unicodedata.normalize("NFC", text)
    words = [" ".join(word.lower().split()) for word in text.split(",")]
    if not any(words):
        raise ValueError(
            '--classes: expected words separated by commas, such as "forklift, hard '
            f'hat", got {text!r}'
        )
    if len(words) > MAX_CLASSES:
        raise ValueError(
            f"--classes: {len(words)} words, expected {MAX_CLASSES} classes at most, "
            "the seen ones included: label maps are 8-bit. Name fewer"
        )
    for word in words:
        if not word:
            raise ValueError(f"--classes {text!r}: nothing stands between two commas; take one out")
        if not WORD.fullmatch(word) or fold(word) == BACKGROUND:
            raise ValueError(
                f"--classes: {word!r} cannot be a class; expected letters and digits "
                "with single blanks or hyphens between words, and not `background`"
            )
        try:
            check_name(word)
        except ValueError as error:
            raise ValueError(f"--classes: {error}") from error
        if one := PLURALS.get(word) or singular_of(word):
            raise ValueError(
                f"--classes: {word!r} is a plural, and prompts would say "
                f"{with_article(word)!r}; use the singular, such as {one!r}. If it is "
                "none, use any other word and mend it in the vocabulary file"
            )
    named: dict[str, str] = {}
    for word in words:
        if other := named.get(canonical(word)):
            raise ValueError(f"--classes: {other!r} and {word!r} are one class; name it once")
        named[canonical(word)] = word
    for word in words:
        longer = next((other for other in words if other != word and _part_of(word, other)), None)
        if longer:
            raise ValueError(
                f"--classes: {word!r} is part of {longer!r}, so that the two cannot "
                "be told apart in a prompt; use another word for one of them"
            )
    return words


def choose(words: Sequence[str], world: World, name: str) -> tuple[Vocabulary, list[str]]:
    """The vocabulary for these words, and what there is to say about them.

    Raises ValueError for a word that cannot be drawn.
    """
    ids = [canonical(word) for word in words]
    if world.closed:
        if strange := [w for w, i in zip(words, ids, strict=True) if i not in world.known]:
            raise ValueError(
                f"{world.name} has no {strange}: its model draws nothing but "
                f"{', '.join(world.known)}. Take --profile sd15 for other words"
            )
        # Everything is known here, so that holding the words out is what is left to rehearse.
        known, new = [], ids
    else:
        known = [i for i in ids if i in world.known]
        new = [i for i in ids if i not in world.known]
    notes = [f"{i}: the detector knows it already, so it is a seen class" for i in known]
    spoken = {i: synonyms().get(i, (i,)) for i in {*world.seen, *ids}}
    for word, i in zip(words, ids, strict=True):
        if word in spoken[i]:  # as the user says it, first
            spoken[i] = (word, *(other for other in spoken[i] if other != word))
    seen = []
    for one in dict.fromkeys([*world.seen, *known]):
        clash = next(
            (
                w
                for w in words
                if one not in ids and any(_part_of(a, w) or _part_of(w, a) for a in spoken[one])
            ),
            None,
        )
        if clash:
            notes.append(
                f"{one}: left out of the seen classes, its words and {clash!r} could not "
                "be told apart in a prompt"
            )
        elif one not in new:
            seen.append(one)
    if len(seen) < 2:
        raise ValueError(
            f"only {seen} is left as seen classes, expected two or more: name fewer classes"
        )
    classes = (*sorted(seen), *new)
    if len(classes) > MAX_CLASSES:
        raise ValueError(
            f"--classes: {len(new)} new words beside {len(seen)} seen classes are "
            f"{len(classes)}, expected {MAX_CLASSES} at most: label maps are 8-bit. "
            "Name fewer"
        )
    return Vocabulary(
        name, tuple(sorted(seen)), tuple(new), {i: tuple(spoken[i]) for i in classes}
    ), notes


def make_profile(
    classes: str,
    profile: str,
    name: str | None = None,
    texts: str | None = None,
    root: Path = ROOT,
) -> tuple[list[Path], Vocabulary, list[str]]:
    """Writes the files; returns them, the vocabulary, and what there is to say about the words.

    Nothing is written when anything is wrong: ValueError says what, for an unknown base profile,
    a name that is taken, words that do not do, or a text file with lines that do not.
    """
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
    taken = next((f for f in [*files, copied] if f.exists()), None)
    if taken or name == load_params(root=root).profile:
        raise ValueError(
            f"profile {name!r} exists ({taken or root / 'params.yaml'}): choose "
            "another --name, or remove it first"
        )
    world = world_of(base, root)
    vocabulary, notes = choose(words, world, name)
    details = {} if world.closed else DETAILS
    check(vocabulary, replace(base.prompts, **details))
    limit = find_limit(Workspace(root, name).model(base.diffusion.model), base.diffusion.revision)
    if limit is not None:
        limit.refuse_words(vocabulary.owners())
        limit.refuse(query_text(word) for words in vocabulary.words.values() for word in words)
    relative = [path.relative_to(root).as_posix() for path in [*files, copied]]
    prompts = details | ({"texts": relative[2]} if texts else {})
    content = PROFILE.format(
        classes=", ".join(words), base=profile, name=name, vocabulary=relative[1]
    )
    if prompts:
        content += "\n" + yaml.safe_dump({"prompts": prompts}, sort_keys=False)
    contents = {
        files[0]: content,
        files[1]: WORDS.format(
            name=name,
            seen=", ".join(map(_quoted, vocabulary.seen)),
            unseen=", ".join(map(_quoted, vocabulary.unseen)),
            example=_quoted((vocabulary.unseen or vocabulary.seen)[0]),
        ),
    }
    if texts:
        read = read_texts(texts, vocabulary, limit)
        contents[copied] = "".join(f"{text.text}\n" for text in read)
    for path, content in contents.items():
        with atomic(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return list(contents), vocabulary, notes


def _part_of(word: str, other: str) -> bool:
    """Whether a word stands in another at word boundaries: "hat" in "hard hat", not in "hatch"."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", other) is not None


def _quoted(word: str) -> str:
    """A YAML scalar that is text: "no" is a boolean and 7 a number."""
    plain = yaml.safe_load(word) == word and re.fullmatch(r"[\w '’-]+", word)
    return word if plain else yaml.safe_dump(word, default_style='"').strip()


def main(arguments: list[str]) -> int:
    parser = make_parser("python -m ml init", __doc__)
    parser.add_argument("--classes", required=True, help='your words: "forklift, pallet, hard hat"')
    add_profile(parser, "sd15")  # to build upon
    parser.add_argument("--name", help="of the new profile; by default made of the words")
    parser.add_argument("--texts", help="your own prompts, a text file with one a line")
    add_root(parser, "the checkout")
    chosen = parser.parse_args(arguments)
    files, vocabulary, notes = make_profile(
        chosen.classes, chosen.profile, chosen.name, chosen.texts, chosen.root
    )
    print(f"seen ({len(vocabulary.seen)}): {', '.join(vocabulary.seen)}")
    print(f"unseen ({len(vocabulary.unseen)}): {', '.join(vocabulary.unseen) or 'none'}")
    for note in notes:
        print(f"note: {note}")
    for path in files:
        print(f"written: {path}")
    print(f"next: python -m ml plan --profile {vocabulary.name}")
    return 0
