"""A grounding module by its specification: trained once a seed, scored on everything.

The same three steps for every row of every study: which pictures and labels, `ml.grounding`'s own
training, masks of the judged and of the drawn pictures.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
import torch

from ml.compute.batching import Batches
from ml.compute.devices import find_device
from ml.diffusion.features import feature_channels
from ml.diffusion.loading import load_pipeline
from ml.diffusion.tokens import text_width
from ml.grounding.config import VARIANTS, make_config
from ml.grounding.features import FeatureSource
from ml.grounding.module import GroundingModule
from ml.grounding.samples import refuse_unseen
from ml.grounding.training import TEXT_DROPOUT, predict_masks, train
from ml.pipeline.stages.triplets import subset_of
from ml.settings.sections import GroundingParams
from ml.studies import design
from ml.studies.scores import raw_rows
from ml.studies.sets import INVERTED, NOISED, Record, drawn, generated
from ml.studies.workspace import Lab
from ml.words.vocabulary import Vocabulary, load_vocabulary

BATCH = 40  # pictures that are scored at once


@dataclass(frozen=True)
class Spec:
    """A row: what differs from the pipeline's own module. All defaults: that module, split 1."""

    vocabulary: str = "voc-1"
    variant: str = "seeded"  # or paper
    place: int = 0  # of the kept latents: design.FRACTIONS of the denoising steps from the last
    empty_masks: bool = False  # words without a mask have an empty one as target
    seen: int | None = None  # only the first so many seen classes; all others are unseen
    pictures: int | None = None  # only so many training pictures
    resolutions: tuple[int, ...] | None = None  # of the U-Net's features
    text_dropout: float = TEXT_DROPOUT
    settles: bool = True  # the evidence has a say between words when masks are made
    labels: str = "detector"  # or exact masks of drawn scenes: noised, inverted
    learned_upsampling: bool | None = None  # of the map, by convolutions; None: as the variant is
    longer: int = 1  # times the profile's training steps, and its steps between validations

    @property
    def name(self) -> str:
        """Of its files: what differs, in words."""
        own = asdict(Spec())
        parts = [f"{key}-{value}" for key, value in asdict(self).items() if value != own[key]]
        return "_".join(parts).translate(str.maketrans("(), ", "....")) or "default"

    @property
    def few(self) -> bool:
        """Fewer seen classes than a split has: pictures of those alone are drawn for it."""
        return self.seen is not None and self.seen < len(load_vocabulary(self.vocabulary).seen)

    @property
    def trained(self) -> "Spec":
        """The specification of its training: `settles` only matters afterwards."""
        return replace(self, settles=True)


def vocabulary_of(spec: Spec) -> Vocabulary:
    """Its seen and unseen classes, of all 20."""
    own = load_vocabulary(spec.vocabulary)
    if spec.seen is None:
        return own
    seen = own.seen[: spec.seen]
    return replace(own, seen=seen, unseen=tuple(c for c in own.classes if c not in seen))


def training_set(lab: Lab, spec: Spec) -> list[Record]:
    """The pictures that it may learn from, each with an accepted mask at least; seen classes only.

    Raises ValueError when a mask of a class that is not seen would be among them.
    """
    seen = set(vocabulary_of(spec).seen)
    if spec.labels == "detector":
        own = few_pictures(lab, spec.seen) if spec.few else training_pictures(lab)
        own = [r.at(spec.place) for r in own]
    else:
        place = (NOISED, INVERTED).index(spec.labels)
        own = [r.by_truth().at(place) for r in real_training_pictures(lab)]
    own = [r for r in own if set(r.entities) <= seen and (any(r.rles) or spec.empty_masks)]
    if spec.pictures is not None:
        own = [own[i] for i in np.random.default_rng(0).permutation(len(own))[: spec.pictures]]
    refuse_unseen(own, seen)
    return [
        replace(r, subset=subset_of(r.key, "train", lab.params.triplets.validation_share))
        for r in own
    ]


def training_pictures(lab: Lab) -> list[Record]:
    return generated(
        lab, "train", design.training_prompts(lab.size, lab.params.seed), design.FRACTIONS
    )


def few_pictures(lab: Lab, seen: int) -> list[Record]:
    return generated(lab, f"few{seen}", design.few_class_prompts(lab.size, seen, lab.params.seed))


def judged_pictures(lab: Lab) -> list[Record]:
    return generated(
        lab, "judged", design.judged_prompts(lab.size, lab.params.seed), design.FRACTIONS
    )


def real_pictures(lab: Lab) -> list[Record]:
    return drawn(lab, "real", design.real_classes(lab.size, lab.params.seed), 0)


def real_training_pictures(lab: Lab) -> list[Record]:
    return drawn(
        lab, "real_train", design.real_training_classes(lab.size, lab.params.seed), 100_000
    )


class _Empties(FeatureSource):
    """A source whose words without a mask have an empty one as target."""

    def counts(self, index: int) -> tuple[int, int]:
        return (len(self.samples[index].words),) * 2

    def batch(self, indices: Sequence[int]):
        batch = super().batch(indices)
        return replace(batch, present=batch.valid)


def train_all(lab: Lab, specs: Sequence[Spec]) -> None:
    """Trains and scores every specification that is not in place, `lab.workers` at once."""
    for make in (training_pictures, judged_pictures, real_pictures):
        make(lab)
    for seen in {s.seen for s in specs if s.few}:
        few_pictures(lab, seen)
    if any(s.labels != "detector" for s in specs):
        real_training_pictures(lab)
    left = [s for s in dict.fromkeys(specs) if not done(lab, s)]
    lab.run("grounding", [(train_and_score, lab, spec) for spec in left])


def model_folder(lab: Lab, spec: Spec, seed: int):
    return lab.folder / "models" / f"{spec.trained.name}-seed{seed}"


def load_module(lab: Lab, spec: Spec, seed: int) -> GroundingModule:
    """A trained module, in eval mode, on the pipeline's device. Raises ValueError when it was not
    trained."""
    module = GroundingModule.from_pretrained(model_folder(lab, spec, seed))
    module.to(find_device(lab.params.diffusion.device, "diffusion.device"))
    module.settles = module.settles and spec.settles
    return module


def rows_of(lab: Lab, spec: Spec) -> pd.DataFrame:
    """Its raw rows (`ml.studies.scores.RAW`, where its pixels fell) of all seeds; made if
    missing."""
    return lab.table(spec.name, recipe_of(lab, spec), lambda: _train_and_score(lab, spec))


def train_and_score(lab: Lab, spec: Spec) -> str:
    rows = rows_of(lab, spec)
    unseen = rows[(rows.source == "generated") & (rows.cell == "two_unseen")].iou.mean()
    return f"{spec.name}: two unseen {100 * unseen:.1f}"


def done(lab: Lab, spec: Spec) -> bool:
    """Whether its raw rows are in place."""
    return lab.in_place(lab.table_path(spec.name), recipe_of(lab, spec))


def recipe_of(lab: Lab, spec: Spec) -> str:
    """Digest of what its raw rows are made from."""
    return lab.recipe(rows=_recipe(lab, spec, 0), seeds=lab.size.seeds)


def _recipe(lab: Lab, spec: Spec, seed: int) -> str:
    sets = {"counts": lab.counts(), "grounding": _settings(lab, spec), "seed": lab.params.seed}
    return lab.recipe(spec=spec.name, training=seed, **sets)


def _settings(lab: Lab, spec: Spec) -> dict:
    """The profile's settings of the module that its training reads: not the other variant's."""
    others = set(VARIANTS) - {spec.variant}
    return {
        name: value for name, value in lab.params.section("grounding").items() if name not in others
    }


def _train_and_score(lab: Lab, spec: Spec) -> pd.DataFrame:
    pipe = load_pipeline(lab.diffusion)
    modules = _trained(lab, spec, pipe)
    sets = [[r.at(spec.place) for r in judged_pictures(lab) if r.whole]]
    if spec.place == 0:  # the drawn scenes were brought to the last step's timestep alone
        plain = Spec(spec.vocabulary, spec.variant, learned_upsampling=spec.learned_upsampling)
        ways = (0, 1) if spec == plain else (0,)
        sets += [[r.at(place) for r in real_pictures(lab)] for place in ways]
    return pd.concat(
        [score(lab, spec, pipe, modules, records) for records in sets], ignore_index=True
    )


def _trained(lab: Lab, spec: Spec, pipe) -> list[GroundingModule]:
    """The modules of all seeds: those that are not in place are trained, on features that are
    computed once."""
    places = [
        (seed, model_folder(lab, spec, seed), _recipe(lab, spec.trained, seed))
        for seed in range(lab.size.seeds)
    ]
    if not all(lab.in_place(folder, recipe) for _, folder, recipe in places):
        samples = training_set(lab, spec)
        parts = [[s for s in samples if s.subset == name] for name in ("train", "validation")]
        kinds = (_Empties if spec.empty_masks else FeatureSource, FeatureSource)
        seeded = spec.variant == "seeded"
        sources = [
            kind(pipe, part, [s.evidence for s in part] if seeded else None)
            for kind, part in zip(kinds, parts, strict=True)
        ]
        for seed, folder, recipe in places:
            if not lab.in_place(folder, recipe):
                _train_one(lab, spec, pipe, sources, seed).save_pretrained(folder)
                lab.sign(folder, recipe)
    return [load_module(lab, spec, seed) for seed, *_ in places]


def grounding_params(lab: Lab, spec: Spec) -> GroundingParams:
    """The profile's, as many times longer as the specification says, with as many validations."""
    own = lab.params.grounding
    return replace(
        own, steps=own.steps * spec.longer, evaluate_every=own.evaluate_every * spec.longer
    )


def _train_one(lab: Lab, spec: Spec, pipe, sources: list, seed: int) -> GroundingModule:
    params = grounding_params(lab, spec)
    channels = feature_channels(pipe.unet)
    config = make_config(
        params,
        {r: channels[r] for r in spec.resolutions or channels},
        text_width(pipe),
        sources[0].samples[0].size[0],
        sources[0].samples[0].timestep,
        spec.variant,
        learned_upsampling=spec.learned_upsampling,
    )
    torch.manual_seed(seed)
    module = GroundingModule(config).to(pipe.device)
    train(
        module,
        *sources,
        [s.entities for s in sources[1].samples],
        params,
        seed,
        text_dropout=spec.text_dropout,
    )
    return module


def score(
    lab: Lab, spec: Spec, pipe, modules: Sequence[GroundingModule], records: Sequence[Record]
) -> pd.DataFrame:
    """Raw rows of every module on pictures of one source, features computed once for all."""
    vocabulary = vocabulary_of(spec)
    rows: list[dict] = []
    for part, _ in Batches(BATCH).run(records, len):
        batch = FeatureSource(pipe, part, [r.evidence for r in part]).batch(range(len(part)))
        for seed, module in enumerate(modules):
            masks = predict_masks(module, batch)
            for record, found in zip(part, masks, strict=True):
                rows += raw_rows(
                    record,
                    found,
                    vocabulary,
                    {"method": spec.name, "seed": seed, "split": spec.vocabulary},
                )
    return pd.DataFrame(rows)
