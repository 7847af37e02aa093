"""The rows of Protocol II: which pictures each segmenter learns from."""

from dataclasses import dataclass

from ml.studies import prompt_sets, sizes
from ml.studies.study_run import StudyRun


@dataclass(frozen=True)
class Model:
    """A row of Protocol II. shares: of `Size.synthetic`, how many pictures of each source.

    Sources: `one` and `two` objects generated, `rich_one` and `rich_two` with the richer prompts,
    drawn scenes of `seen` classes and of `every` class, both with true labels.
    """

    label: str
    name: str  # of its files
    shares: dict[str, float]


def _mixture(share: float) -> dict[str, float]:
    return {"one": share / 2, "two": share / 2}


MODELS = (
    Model("A: one object", "a", {"one": 1.0}),
    Model("B: two objects", "b", {"two": 1.0}),
    Model("C: mixture", "c", _mixture(1.0)),
    Model("D: mixture and real seen", "d", _mixture(1.0) | {"seen": 0.5}),
    Model("E: as D, richer prompts", "e", {"rich_one": 0.5, "rich_two": 0.5, "seen": 0.5}),
    Model("real bound: all classes labelled", "bound", {"every": 1.0}),
)

SIZES = (
    Model("C, a quarter of the pictures", "quarter", _mixture(0.25)),
    Model("C, half of the pictures", "half", _mixture(0.5)),
    MODELS[2],
    Model("C, twice the pictures", "twice", _mixture(2.0)),
)


def composition(size: sizes.Size, model: Model) -> dict[str, int]:
    """Pictures of each source, before any is rejected."""
    return {source: int(share * size.synthetic) for source, share in model.shares.items()}


def prompts_of(run: StudyRun, name: str) -> list[dict]:
    """Of the set `synthetic` or `rich`."""
    make = {"synthetic": prompt_sets.synthetic_prompts, "rich": prompt_sets.rich_prompts}[name]
    return make(run.size, run.params.seed)


def sets_of(models) -> list[str]:
    """The generated sets that some models need: of `synthetic` and `rich`."""
    sources = {source for model in models for source in model.shares}
    needs = {"synthetic": {"one", "two"}, "rich": {"rich_one", "rich_two"}}
    return [name for name, own in needs.items() if own & sources]
