"""Study 6, beyond nouns: does a mask follow a colour, or a relation, between two of one class?

Here: the scenes, what is asked, the scoring, the tables. The truth is exact: scenes are drawn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ml.diffusion.evidence import add_noise, encode_images
from ml.diffusion.loading import load_pipeline
from ml.diffusion.sampling import sample
from ml.drawn_world.shapes import MAIN_COLOURS
from ml.drawn_world.world import CLASSES, Scene, draw_scene, scene_seed
from ml.grounding.features import Words
from ml.grounding.prompting import compose_prompt
from ml.images.contact_sheet import contact_sheet
from ml.metrics.iou import binary_iou
from ml.studies.asking import (
    CONTRAST,
    SPECS,
    Question,
    answer,
    contrast,
    contrast_masks,
    contrast_threshold,
    load_modules,
    look,
    modules_recipe,
)
from ml.studies.blocks import Block, Picture, Row, Table, Text
from ml.studies.design import word_of
from ml.studies.scores import figure, ratio, sums
from ml.studies.sets import feature_timestep
from ml.studies.trainings import Spec, load_module, train_all
from ml.studies.workspace import Lab
from ml.words.phrases import phrase

TITLE = "Beyond nouns: colours and relations"
QUESTION = (
    'Two objects of one class stand in a picture: does the mask of "red car" fall on the '
    'red one, and that of "car" in "a car left of a dog" on the one to the left?'
)

COLOUR, LEFT, RIGHT = "colour", "left of", "right of"
METHODS = (*SPECS, CONTRAST)

COLOUR_SEEDS, RELATION_SEEDS, GENERATED_SEEDS = 200_000, 500_000, 400_000
"""First index of the scenes' seeds in "paper"; relations try up to TRIES each."""
TRIES = 100
PART = 40  # scenes that a process asks at once
SHOWN = 12  # pictures of the contact sheet


@dataclass(frozen=True)
class Asked:
    """A scene and what it is asked for. The word at `scored[i]` names object `named[i]`, and not
    object `other[i]`, of the same class."""

    scene: Scene
    text: str
    words: tuple[str, ...]
    scored: tuple[int, ...]
    named: tuple[int, ...]
    other: tuple[int, ...]
    kind: str  # COLOUR, LEFT or RIGHT


def colour_scene(index: int) -> Asked:
    """Two objects of one class in different colours, the classes in turn; both words scored."""
    name = list(MAIN_COLOURS)[index % len(MAIN_COLOURS)]
    scene = draw_scene(scene_seed("paper", COLOUR_SEEDS + index), classes=[name, name])
    words = tuple(f"{colour} {word_of(name)}" for colour in scene.colours)
    return Asked(scene, compose_prompt(words), words, (0, 1), (0, 1), (1, 0), COLOUR)


def relation_scenes(index: int) -> list[Asked]:
    """One scene of X Y X, seen from left to right, asked for the X left of the Y and for the X
    right of it. Raises RuntimeError when no placement of TRIES has Y in the middle."""
    rng = np.random.default_rng([RELATION_SEEDS, index])
    name = list(MAIN_COLOURS)[index % len(MAIN_COLOURS)]
    middle = str(rng.choice([own for own in CLASSES if own != name]))
    for attempt in range(TRIES):
        seed = scene_seed("paper", RELATION_SEEDS + TRIES * index + attempt)
        scene = draw_scene(seed, classes=[name, middle, name])
        order = by_x(scene.masks)
        if scene.classes[order[1]] == middle:
            break
    else:
        raise RuntimeError(f"no scene with the {middle} between two of {name} in {TRIES} tries")
    left, right, words = order[0], order[2], (word_of(name), word_of(middle))
    return [
        Asked(
            scene,
            f"{phrase(words[0])} {said} {phrase(words[1])}",
            words,
            (0,),
            (own,),
            (other,),
            said,
        )
        for said, own, other in ((LEFT, left, right), (RIGHT, right, left))
    ]


def by_x(masks: np.ndarray) -> list[int]:
    """Objects bool (n,H,W) from left to right, by the middle of their visible part."""
    return np.argsort([mask.nonzero()[1].mean() for mask in masks]).tolist()


def score_rows(asked: Asked, masks: np.ndarray, said: dict) -> list[dict]:
    """One row a scored word: IoU with the object it names and with the other one, and `right`, 1
    where the first is the higher, 1/2 where they are equal (no mask on either). masks: bool
    (n,H,W), one a word."""
    rows = []
    for word, own, other in zip(asked.scored, asked.named, asked.other, strict=True):
        named, wrong = (binary_iou(masks[word], asked.scene.masks[i]) for i in (own, other))
        rows.append(
            said
            | {
                "kind": asked.kind,
                "key": str(asked.scene.seed),
                "entity": asked.scene.classes[own],
                "named": named,
                "other": wrong,
                "right": (1 + np.sign(named - wrong)) / 2,
            }
        )
    return rows


def make(lab: Lab, only: str | None = None) -> None:
    """Rows of all methods, whatever row is asked for, and a sheet of generated pictures."""
    train_all(lab, list(SPECS.values()))
    threshold = contrast_threshold(lab)
    lab.run("beyond nouns", [(_part, lab, number, threshold) for number in _parts(lab)])
    sheet = _sheet_path(lab)
    if not lab.in_place(sheet, _recipe(lab, "sheet")):
        _draw_sheet(lab, sheet)
        lab.sign(sheet, _recipe(lab, "sheet"))


def _parts(lab: Lab) -> range:
    return range(-(-lab.size.same_class // PART))


def _part(lab: Lab, number: int, threshold: float) -> str:
    _raw(lab, number, threshold)
    return f"part {number}"


def _raw(lab: Lab, number: int, threshold: float | None = None) -> pd.DataFrame:
    def ask() -> pd.DataFrame:
        if threshold is None:
            raise ValueError("the study beyond nouns was not made: run `python -m ml.studies`")
        chosen = range(lab.size.same_class)[number * PART : (number + 1) * PART]
        asked = [colour_scene(i) for i in chosen]
        asked += [one for i in chosen for one in relation_scenes(i)]
        return pd.DataFrame(_ask(lab, asked, threshold))

    return lab.table(f"beyond_nouns-{number:02d}", _recipe(lab, number), ask)


def _recipe(lab: Lab, part: int | str) -> str:
    return lab.recipe(
        study="beyond_nouns",
        part=part,
        counts=lab.counts("same_class"),
        modules=modules_recipe(lab),
    )


def _ask(lab: Lab, asked: Sequence[Asked], threshold: float) -> Iterator[dict]:
    pipe = load_pipeline(lab.diffusion)
    words, timestep = Words(pipe), feature_timestep(pipe, lab)
    modules = load_modules(lab)
    for start in range(0, len(asked), PART):
        part = asked[start : start + PART]
        questions = _questions(pipe, part, timestep)
        maps = contrast(pipe, questions, lab.params.grounding.evidence_timesteps)
        batch = look(pipe, words, questions, maps)
        found = {
            (name, seed): [a.masks for a in answer(module, batch, questions)]
            for name, own in modules.items()
            for seed, module in enumerate(own)
        }
        found[CONTRAST, 0] = contrast_masks(maps, questions, threshold)
        for (method, seed), masks in found.items():
            for one, own in zip(part, masks, strict=True):
                yield from score_rows(one, own, {"method": method, "seed": seed})


def _questions(pipe, asked: Sequence[Asked], timestep: int) -> list[Question]:
    images, seeds = np.stack([a.scene.image for a in asked]), [a.scene.seed for a in asked]
    latents = add_noise(pipe, encode_images(pipe, images), timestep, seeds).cpu().numpy()
    return [
        Question(
            a.scene.image,
            latent,
            timestep,
            a.text,
            a.text,
            a.words,
            tuple(phrase(word) for word in a.words),
            a.scene.seed,
        )
        for a, latent in zip(asked, latents, strict=True)
    ]


def _sheet_path(lab: Lab) -> Path:
    return lab.folder / "raw" / "beyond_nouns.jpg"


def _draw_sheet(lab: Lab, path: Path) -> None:
    """Generated pictures of two of one class with our masks, for the eye: no truth is known."""
    pipe, diffusion = (
        load_pipeline(lab.diffusion),
        lab.params.diffusion,
    )
    scenes = [colour_scene(i) for i in range(SHOWN)]
    texts, words = [s.text for s in scenes], [s.words for s in scenes]
    seeds = [GENERATED_SEEDS + i for i in range(SHOWN)]
    made = sample(
        pipe, texts, seeds, steps=diffusion.steps, guidance_scale=diffusion.guidance_scale
    )
    questions = [
        Question(
            image,
            latent.numpy(),
            made.timestep,
            text,
            text,
            own,
            tuple(phrase(word) for word in own),
            seed,
        )
        for image, latent, text, own, seed in zip(
            made.images, made.latents, texts, words, seeds, strict=True
        )
    ]
    maps = contrast(pipe, questions, lab.params.grounding.evidence_timesteps)
    found = answer(load_module(lab, Spec(), 0), look(pipe, Words(pipe), questions, maps), questions)
    path.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(
        made.images, [a.masks for a in found], [" + ".join(w) for w in words], path, columns=6
    )


def blocks(lab: Lab) -> list[Block]:
    rows = pd.concat([_raw(lab, number) for number in _parts(lab)], ignore_index=True)
    resamples = lab.params.benchmark.bootstrap
    note = (
        "Accuracy: words whose mask has a higher IoU with the object that is named than with "
        "the other of its class; chance is 50."
    )
    return [
        Table(
            'Colours: "a photograph of a red car and a blue car" (%)',
            _COLUMNS,
            _table(rows, [COLOUR], resamples),
            note,
        ),
        Table(
            'Relations: "a car left of a dog", a car on either side (%)',
            _COLUMNS,
            [row for said in (LEFT, RIGHT) for row in _table(rows, [said], resamples, said)],
            note,
        ),
        Text(
            "The micro model was trained on captions that name the colour of a fifth of their "
            "objects, and on 10,000 scenes of two objects of one class whose captions name both "
            'colours; on "left of" and "right of" in an eighth of its captions of two objects; '
            "and on no caption with a relation among three."
        ),
        Picture(
            "Generated pictures of two objects of one class, masks of our module (seed 0), in "
            "the order of the words; no truth is known here.",
            _sheet_path(lab).read_bytes(),
        ),
    ]


_COLUMNS = {"right": "accuracy", "named": "IoU with the named", "other": "IoU with the other"}


def _table(rows: pd.DataFrame, kinds: list[str], resamples: int, said: str = "") -> list[Row]:
    made = []
    for method in METHODS:
        own = rows[(rows.method == method) & rows.kind.isin(kinds)]
        cells = {c: figure([means(own, c)], ratio, resamples) for c in _COLUMNS}
        made.append(Row(f"{method}, {said}" if said else f"{method}, colours", cells))
    return made


def means(rows: pd.DataFrame, column: str) -> np.ndarray:
    """(seeds,pictures,2): sum of the column and number of rows of each picture."""
    return sums(rows, rows[column], np.ones(len(rows)))
