"""Stage `synthetic_dataset`: the model draws pictures of all classes and labels them itself.

Reads: `prompts`, `grounding_model`, `benchmark` (whose copies are rejected). Writes: shards in the
SYNTHETIC schema, contact_sheet.jpg. Settings: seed, vocabulary, diffusion, shards, synthetic. Not
here: generating and grounding (`ml.grounding.engine`), or checks on the result.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ml.compute.workers import Workers
from ml.diffusion.loading import load_pipeline
from ml.diffusion.tokens import refuse_long_prompts
from ml.grounding.engine import GroundingEngine
from ml.grounding.grounded import Grounded
from ml.grounding.module import GroundingModule
from ml.images.contact_sheet import contact_sheet, spread
from ml.images.facts import picture_facts
from ml.images.leaks import Thumbs, find_overlap, small
from ml.images.overlays import IGNORED
from ml.images.png import decode_png, encode_png
from ml.images.run_lengths import encode_rle
from ml.pipeline.stored_thumbs import stored_thumbs
from ml.pipeline.table import Output
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.settings.sections import SyntheticParams
from ml.store.behind import behind
from ml.store.making import write_shards
from ml.store.objects import local_copy
from ml.store.schemas import PROMPTS, SYNTHETIC
from ml.store.shards import iter_shards, read_shards, split
from ml.words.vocabulary import Vocabulary, load_vocabulary

SHEET_PICTURES = 24
REASONS = ("benchmark overlap", "entity too small", "too uncertain")
"""Why a labelled picture is not accepted; the first that holds is kept."""


def run(params: Params, workspace: Workspace, recipe: str) -> Output:
    """Writes one row a prompt of purpose synthetic.

    Raises ValueError when there is no prompt of purpose synthetic.
    """
    vocabulary = load_vocabulary(params.vocabulary)
    folder = workspace.folder("synthetic_dataset")
    prompts = read_shards(workspace.folder("prompts"))
    prompts = prompts[prompts.purpose == "synthetic"]
    if prompts.empty:
        raise ValueError(
            f"no prompt of purpose synthetic in {workspace.folder('prompts')}; set "
            "prompts.synthetic_one or synthetic_two above 0"
        )
    refuse_long_prompts(workspace.located(params.diffusion), prompts.to_dict("records"))
    plan = split(prompts.to_dict("records"), params.shards.size)
    rows = write_shards(
        folder,
        recipe,
        plan,
        ShardMaker(params, workspace),
        SYNTHETIC,
        Workers(params.executor, params.diffusion.device),
    )
    _sheet(folder)
    return Output(facts=facts_of(folder, vocabulary), rows=rows)


class ShardMaker:
    """Turns the prompts of a shard into its rows; loads the models when the first one is made."""

    def __init__(self, params: Params, workspace: Workspace):
        self.params, self.workspace = params, workspace
        self.vocabulary = load_vocabulary(params.vocabulary)

    @cached_property
    def grounded(self) -> GroundingEngine:
        with local_copy(self.workspace.folder("grounding_model")) as folder:
            module = GroundingModule.from_pretrained(folder)
        return GroundingEngine(
            load_pipeline(self.workspace.located(self.params.diffusion)),
            module,
            self.params.diffusion.batch_size,
        )

    @cached_property
    def benchmark(self) -> Thumbs:
        return stored_thumbs(self.workspace)

    def __call__(self, prompts: Sequence[dict[str, Any]]) -> pd.DataFrame:
        return pd.DataFrame(
            make_rows(prompts, self.grounded, self.benchmark, self.vocabulary, self.params)
        )


def make_rows(
    prompts: Sequence[dict[str, Any]],
    grounded: GroundingEngine,
    benchmark: Thumbs,
    vocabulary: Vocabulary,
    params: Params,
) -> list[dict[str, Any]]:
    """Rows of the SYNTHETIC schema for rows of prompts. benchmark: its thumbnails."""
    batches = grounded.draw_batches(
        [p["text"] for p in prompts],
        [list(p["words"]) for p in prompts],
        phrases=[list(p["phrases"]) for p in prompts],
        seeds=[p["seed"] for p in prompts],
        steps=params.diffusion.steps,
        guidance_scale=params.diffusion.guidance_scale,
    )
    left = iter(prompts)
    shown = ((made, list(islice(left, len(made.images)))) for made in batches)
    competition = grounded.config.competition

    def rows_of(batch: tuple[Grounded, list[dict[str, Any]]]) -> list[dict[str, Any]]:
        made, asked = batch
        overlapping = set(find_overlap(map(small, made.images), benchmark))
        return [
            _row(prompt, made, place, place in overlapping, competition, vocabulary, params)
            for place, prompt in enumerate(asked)
        ]

    return [row for rows in behind(shown, rows_of) for row in rows]


def _row(
    prompt: dict[str, Any],
    made: Grounded,
    place: int,
    overlap: bool,
    competition: bool,
    vocabulary: Vocabulary,
    params: Params,
) -> dict[str, Any]:
    """The row of the picture at this place of a batch."""
    labels = [vocabulary.label(entity) for entity in prompt["entities"]]
    label = label_map(made.probabilities[place], labels, params.synthetic.ignore_band, competition)
    areas = [float((label == value).mean()) for value in labels]
    ignored = float((label == IGNORED).mean())
    reason = reject_reason(areas, ignored, overlap, params.synthetic)
    return (
        {name: prompt[name] for name in PROMPTS.names}
        | {
            "image": encode_png(made.images[place]),
            "label": encode_png(label),
            "rles": [encode_rle(mask) for mask in made.masks[place]],
            "areas": areas,
            "ignored": ignored,
            "accepted": not reason,
            "reason": reason,
            "benchmark_overlap": overlap,
        }
        | picture_facts(made.images[place])
    )


def label_map(
    probabilities: np.ndarray, labels: Sequence[int], band: Sequence[float], competition: bool
) -> np.ndarray:
    """Label map uint8 (H,W): each pixel to its most probable word or the background, or 255.

    probabilities: float (n,H,W) in 0..1. The background holds what the words leave of 1, with
    competition; without (independent sigmoids), 1 less the strongest word. A pixel is uncertain,
    255, when its winner holds at most the band's upper end, or its strongest word lies within the
    band [low, high].
    """
    low, high = band
    strongest = probabilities.max(0)
    background = 1 - (probabilities.sum(0) if competition else strongest)
    shares = np.concatenate([background[None], probabilities])
    label: np.ndarray = np.array([0, *labels], np.uint8)[shares.argmax(0)]
    uncertain = (shares.max(0) <= high) | ((strongest >= low) & (strongest <= high))
    label[uncertain] = IGNORED
    return label


def reject_reason(
    areas: Sequence[float], ignored: float, overlap: bool, synthetic: SyntheticParams
) -> str:
    """ "" for a picture to keep, else one of REASONS. areas, ignored: shares of the picture."""
    holds = (overlap, min(areas) < synthetic.min_area, ignored > synthetic.max_ignore)
    return next((reason for reason, bad in zip(REASONS, holds, strict=True) if bad), "")


def facts_of(folder: Path, vocabulary: Vocabulary) -> dict[str, Any]:
    """Counts over all rows; pixel shares over the accepted pictures."""
    rows = read_shards(
        folder, ["entities", "areas", "ignored", "accepted", "reason", "benchmark_overlap"]
    )
    kept = rows[rows.accepted]
    pixels: defaultdict[str, float] = defaultdict(float)
    pictures: Counter[str] = Counter()
    for names, areas in zip(kept.entities, kept.areas, strict=True):
        pictures.update(names)
        for name, area in zip(names, areas, strict=True):
            pixels[name] += float(area)
    rejected = Counter(rows.reason[~rows.accepted])
    lost = Counter(e for names in rows.entities[~rows.accepted] for e in names)
    count = max(len(kept), 1)
    return {
        "pictures": len(rows),
        "accepted": len(kept),
        "by_reason": {reason: rejected[reason] for reason in REASONS},
        "pictures_by_class": {name: pictures[name] for name in vocabulary.classes},
        "rejected_by_class": {name: lost[name] for name in vocabulary.classes},
        "pixel_share": {name: pixels[name] / count for name in vocabulary.classes},
        "ignored_share": float(kept.ignored.mean()) if len(kept) else 0.0,
        "benchmark_overlap": int(rows.benchmark_overlap.sum()),
    }


def _sheet(folder: Path) -> None:
    keys = read_shards(folder, ["key"]).key
    shown = set(keys.iloc[spread(len(keys), SHEET_PICTURES)])
    rows = pd.concat(
        [
            frame[frame.key.isin(shown)]
            for frame in iter_shards(folder, ["key", "text", "image", "label", "reason"])
        ]
    )
    captions = [
        text if not reason else f"({reason}) {text}"
        for text, reason in zip(rows.text, rows.reason, strict=True)
    ]
    contact_sheet(
        [decode_png(d) for d in rows.image],
        [decode_png(d) for d in rows.label],
        captions,
        folder / "contact_sheet.jpg",
    )
