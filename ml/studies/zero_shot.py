"""Study 3, Protocol II: segmenters that learn from generated pictures, on the frozen benchmark.

Table 2 of the paper at micro size, and how many pictures are worth making. Here: figures. Not
here: what the segmenters learn from and their trainings (`segmenters`).
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ml.datasets.drawn import label_maps
from ml.drawn_world.benchmark import benchmark_scenes
from ml.images.contact_sheet import contact_sheet
from ml.pipeline.stages.benchmark_scores import statistics
from ml.studies import sizes
from ml.studies.blocks import Block, Cell, Picture, Plot, Row, Table, Text
from ml.studies.parallel import run_tasks
from ml.studies.scores import figure
from ml.studies.segmenter_models import MODELS, SIZES, Model, composition, sets_of
from ml.studies.segmenters import result, train_and_score
from ml.studies.study_run import StudyRun
from ml.studies.synthetic_labels import LABELLER, label_part, labelling, pictures_of
from ml.studies.trainings import have_modules, train_all
from ml.words.vocabulary import load_vocabulary

TITLE = "Zero-shot segmentation with generated pictures (Protocol II)"
QUESTION = (
    "Does a segmenter that learns from generated pictures and the module's labels find "
    "classes that nobody labelled, and how many such pictures does it need?"
)
PAPER = {  # Table 2, VOC: seen, unseen, harmonic
    "a": (62.8, 50.0, 55.7),
    "b": (65.8, 60.1, 62.8),
    "c": (69.5, 63.2, 66.2),
    "d": (83.0, 71.3, 76.7),
    "e": (83.4, 74.4, 78.7),
}
SCORES = {
    "seen": "seen",
    "unseen": "unseen",
    "harmonic": "harmonic",
    "background": "background",
    "all": "all classes",
}
WORTH = 1.0
"""Points of harmonic mIoU that a doubling of the pictures must gain to be worth it."""


def make(run: StudyRun, only: str | None = None) -> None:
    """Trains the labellers, labels the pictures, trains the segmenters and scores them.

    only: the label of a row. Raises ValueError for an unknown one.
    """
    models = chosen(only)
    sets = sets_of(models)
    if sets:
        train_all(run, [LABELLER])
    for name in sets:
        pictures_of(run, name)
    unlabelled = [
        (label_part, run, name, i)
        for name in sets
        for i, (path, recipe, _) in enumerate(labelling(run, name))
        if not run.in_place(path, recipe)
    ]
    if unlabelled:
        have_modules(run, [LABELLER])
    run_tasks("labels", unlabelled, run.workers)
    # The seeds of a row one after another, so that a run that is stopped leaves whole rows.
    run_tasks(
        "segmenter",
        [
            (train_and_score, run, model, seed)
            for model in models
            for seed in range(run.size.seeds)
            if not _made(run, model, seed)
        ],
        run.workers,
    )


def chosen(only: str | None) -> list[Model]:
    """The models of a row, all of them for None; each once."""
    models = list({model.name: model for model in MODELS + SIZES}.values())
    own = [model for model in models if only in (None, model.label)]
    if not own:
        raise ValueError(
            f"no row {only!r} in the zero-shot study: expected one of "
            f"{[model.label for model in models]}"
        )
    return own


def blocks(run: StudyRun) -> list[Block]:
    """Tables, plot and pictures of the rows that are made; a row that is not is left out.

    Raises ValueError when none is.
    """
    made = {
        m.name: _results(run, m)
        for m in chosen(None)
        if all(_made(run, m, seed) for seed in range(run.size.seeds))
    }
    if not made:
        raise ValueError(
            f"no segmenter of the zero-shot study in {run.folder / 'raw'}: make it first"
        )
    rows = {m.name: _row(run, m, made[m.name]) for m in chosen(None) if m.name in made}
    main = Table(
        "Protocol II: mIoU on 400 drawn pictures with exact labels",
        {"pictures": "pictures it learned from"} | SCORES,
        [rows[m.name] for m in MODELS if m.name in rows],
        _note(run),
        ("pictures",),
    )
    sizes = [m for m in SIZES if m.name in rows]
    found: list[Block] = [main, _sheet(run, made)] if main.rows else []
    if sizes:
        points = [(sum(composition(run.size, m).values()), rows[m.name]) for m in sizes]
        found += [
            Table(
                "How many pictures: Model C's mixture",
                {"made": "pictures made"} | main.columns,
                [
                    Row(row.label, {"made": Cell(float(n))} | _without_paper(row))
                    for n, row in points
                ],
                "Half of them of one object, half of two; every number of pictures is "
                "learned from for the same number of steps.",
                ("made", "pictures"),
            ),
            Plot(
                "Number of generated pictures",
                "generated pictures",
                "mIoU, %",
                {
                    name: [
                        (float(n), row.cells[name].value, row.cells[name].spread or 0.0)
                        for n, row in points
                    ]
                    for name in ("harmonic", "seen", "unseen")
                },
            ),
            Text(worth_making([(n, row.cells["harmonic"]) for n, row in points])),
        ]
    return found


def worth_making(points: Sequence[tuple[int, Cell]]) -> str:
    """In words, where more pictures stop to help. points: (pictures made, harmonic), rising."""
    if len(points) < 2:
        return f"With {points[0][0]} pictures the harmonic mIoU is {points[0][1].value:.1f} %."
    enough, steps = points[0][0], []
    for (_, before), (n, after) in zip(points, points[1:], strict=False):
        gain = after.value - before.value
        noise = np.hypot(before.spread or 0, after.spread or 0)
        steps.append(f"{gain:+.1f} up to {n}")
        if gain > max(WORTH, noise):
            enough = n
    said = (
        f"From {points[0][0]} pictures on ({points[0][1].value:.1f} % harmonic), each next "
        f"step changes the harmonic mIoU by {', '.join(steps)} points. "
    )
    if enough == points[-1][0]:
        return said + f"The last step still pays: more than {enough} pictures may be worth making."
    return said + (
        f"About {enough} pictures are worth making: a step beyond gains less than "
        f"{WORTH:g} point or less than the spread over seeds."
    )


def _row(run: StudyRun, model: Model, results: Sequence) -> Row:
    stack = np.stack([one["confusions"] for one in results]).astype(np.float64)
    published = dict(zip(("seen", "unseen", "harmonic"), PAPER.get(model.name, ()), strict=False))
    scores = statistics(load_vocabulary(sizes.ZERO_SHOT))
    counts = np.array([float(one["pictures"]) for one in results])
    spread = float(counts.std(ddof=1)) if len(counts) > 1 else None
    return Row(
        model.label,
        {"pictures": Cell(float(counts.mean()), spread)}
        | {
            name: figure([stack], scores[name], run.params.benchmark.bootstrap, published.get(name))
            for name in SCORES
        },
    )


def _without_paper(row: Row) -> dict[str, Cell]:
    return {
        name: Cell(cell.value, cell.spread, cell.low, cell.high) for name, cell in row.cells.items()
    }


def _note(run: StudyRun) -> str:
    total = run.size.synthetic
    return (
        f"A, B, C: {total} generated pictures labelled by the module, which saw masks of 15 "
        "classes; C half one-object, half two-object. Pictures that the filter rejects are not "
        f"replaced. D adds {total // 2} drawn scenes of seen classes with true labels (the "
        "paper's real pictures). E is D with all generated pictures made from prompts with "
        f"colours, places and synonyms. The bound learns from {total} drawn scenes of all 20 "
        "classes with true labels. The paper's figures are for VOC photographs."
    )


def _sheet(run: StudyRun, made: dict[str, list]) -> Picture:
    """Benchmark pictures with the truth and the label maps of Model C and of the bound, seed 0."""
    scenes = list(benchmark_scenes())
    truth = label_maps(scenes, load_vocabulary(sizes.ZERO_SHOT))
    models = {
        name: said for name, said in (("c", "Model C"), ("bound", "real bound")) if name in made
    } or {name: f"model {name}" for name in list(made)[:1]}
    pictures, maps, captions = [], [], []
    for i, place in enumerate(next(iter(made.values()))[0]["shown"]):
        own = [made[name][0]["maps"][i] for name in models]
        pictures += [scenes[place].image] * (2 + len(own))
        maps += [None, truth[place], *own]
        captions += ["picture", "truth", *models.values()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sheet.jpg"
        contact_sheet(pictures, maps, captions, path, columns=2 * (2 + len(models)))
        data = path.read_bytes()
    return Picture("Benchmark pictures: the truth, and what segmenters find.", data)


def _made(run: StudyRun, model: Model, seed: int) -> bool:
    return run.in_place(*result(run, model, seed))


def _results(run: StudyRun, model: Model) -> list[dict]:
    return [dict(np.load(result(run, model, seed)[0])) for seed in range(run.size.seeds)]
