"""The vocabulary for one's own words: what the detector knows is seen, the rest is unseen."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ml.cli.own_words.classes import is_part_of
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.settings.profile import ROOT, load_params
from ml.words import coco
from ml.words.spellings import canonical
from ml.words.vocabulary import MAX_CLASSES, Vocabulary, synonyms


@dataclass(frozen=True)
class World:
    """What a base profile's models can draw and find."""

    name: str
    known: tuple[str, ...]  # classes the detector knows
    seen: tuple[str, ...]  # of them, the classes whose masks may be used in training
    closed: bool  # nothing but `known` can be drawn


def world_of(base: Params, root: Path = ROOT) -> World:
    """The drawn world for profiles with one of the micro diffusion models, COCO's for all others.

    They lie beside one another, under one card, and were all trained on that world.
    """

    def home(params: Params) -> Path:
        return Path(Workspace(root, params.profile).model(params.diffusion.model)).resolve().parent

    if home(base) == home(load_params(root=root)):
        drawn = tuple(sorted(synonyms()))
        return World("the drawn world", drawn, drawn, True)
    return World("COCO", coco.CLASSES, coco.SEEN, False)


def choose(words: Sequence[str], world: World, name: str) -> tuple[Vocabulary, list[str]]:
    """The vocabulary for these words, and notes on them for the user.

    Raises ValueError for a word that cannot be drawn.
    """
    ids = [canonical(word) for word in words]
    if world.closed:
        if strange := [w for w, i in zip(words, ids, strict=True) if i not in world.known]:
            raise ValueError(
                f"{world.name} has no {strange}: its model draws nothing but "
                f"{', '.join(world.known)}. Take --profile sd15 for other words"
            )
        # The detector knows every class here, so the words are held out to rehearse unseen ones.
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
                if one not in ids and any(is_part_of(a, w) or is_part_of(w, a) for a in spoken[one])
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
