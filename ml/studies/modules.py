"""Grounding modules by their specification, trained once a seed and kept."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ml.compute.devices import find_device
from ml.compute.precision import usable_precision
from ml.diffusion.features import channels_of
from ml.diffusion.pipeline import device_of
from ml.diffusion.tokens import text_width
from ml.grounding.config import VARIANTS, make_config
from ml.grounding.features import FeatureSource
from ml.grounding.module import GroundingModule
from ml.grounding.training import train
from ml.settings.sections import GroundingParams
from ml.studies.specs import Spec
from ml.studies.study_run import StudyRun
from ml.studies.training_sets import training_set


class _Empties(FeatureSource):
    """A source whose words without a mask have an empty one as target."""

    def counts(self, index: int) -> tuple[int, int]:
        return (len(self.samples[index].words),) * 2

    def batch(self, indices: Sequence[int]):
        batch = super().batch(indices)
        return replace(batch, present=batch.valid)


def model_folder(run: StudyRun, spec: Spec, seed: int) -> Path:
    return run.folder / "models" / f"{spec.trained.name}-seed{seed}"


def load_module(run: StudyRun, spec: Spec, seed: int) -> GroundingModule:
    """A trained module, in eval mode, on the pipeline's device. Raises ValueError when it was not
    trained."""
    module = GroundingModule.from_pretrained(model_folder(run, spec, seed))
    module.to(find_device(run.params.diffusion.device, "diffusion.device"))
    module.uses_prior = module.uses_prior and spec.settles
    return module


def module_recipe(run: StudyRun, spec: Spec, seed: int, as_asked: bool = False) -> str:
    """Digest of what a trained module is made from. A machine that emulates the precision asked
    for trains in another one (`ml.compute.precision`), which then is in it too; as_asked: what it
    is on a machine that does not."""
    sets = {"counts": run.counts(), "grounding": _settings(run, spec), "seed": run.params.seed}
    used = training_precision(run)
    if used != run.params.grounding.precision and not as_asked:
        sets["precision"] = used
    return run.recipe(spec=spec.name, training=seed, **sets)


def training_precision(run: StudyRun) -> str:
    """What this machine trains a module in."""
    device = find_device(run.params.diffusion.device, "diffusion.device")
    return usable_precision(run.params.grounding.precision, device.type)


def _settings(run: StudyRun, spec: Spec) -> dict:
    """The profile's settings of the module that its training reads: not the other variant's."""
    others = set(VARIANTS) - {spec.variant}
    return {
        name: value for name, value in run.params.section("grounding").items() if name not in others
    }


def modules_made(run: StudyRun, spec: Spec) -> bool:
    """Whether the modules of all seeds are in place; their rows may be here without them
    (`published`)."""
    return all(run.in_place(folder, recipe) for _, folder, recipe in _places(run, spec))


def _places(run: StudyRun, spec: Spec) -> list[tuple[int, Path, str]]:
    return [
        (seed, model_folder(run, spec, seed), module_recipe(run, spec.trained, seed))
        for seed in range(run.size.seeds)
    ]


def trained_modules(run: StudyRun, spec: Spec, pipe) -> list[GroundingModule]:
    """The modules of all seeds: those that are not in place are trained, on features that are
    computed once."""
    places = _places(run, spec)
    if not modules_made(run, spec):
        samples = training_set(run, spec)
        parts = [[s for s in samples if s.subset == name] for name in ("train", "validation")]
        kinds = (_Empties if spec.empty_masks else FeatureSource, FeatureSource)
        seeded = spec.variant == "seeded"
        sources = [
            kind(pipe, part, [s.evidence for s in part] if seeded else None, blocks=spec.blocks)
            for kind, part in zip(kinds, parts, strict=True)
        ]
        for seed, folder, recipe in places:
            if not run.in_place(folder, recipe):
                module = _train_one(run, spec, pipe, sources, seed)
                with run.making(folder, recipe):
                    module.save_pretrained(folder)
    return [load_module(run, spec, seed) for seed, *_ in places]


def grounding_params(run: StudyRun, spec: Spec) -> GroundingParams:
    """The profile's, as many times longer as the specification says, with as many validations."""
    own = run.params.grounding
    return replace(
        own, steps=own.steps * spec.longer, evaluate_every=own.evaluate_every * spec.longer
    )


def _train_one(run: StudyRun, spec: Spec, pipe, sources: list, seed: int) -> GroundingModule:
    params = grounding_params(run, spec)
    channels = channels_of(pipe, spec.blocks)
    config = make_config(
        params,
        {r: channels[r] for r in spec.resolutions or channels},
        text_width(pipe),
        sources[0].samples[0].size[0],
        sources[0].samples[0].timestep,
        spec.variant,
        learned_upsampling=spec.learned_upsampling,
    )
    if spec.resolutions or not spec.lone_block:  # of some resolutions: nothing else changes
        config = replace(config, lone_block=False)
    torch.manual_seed(seed)
    module = GroundingModule(config).to(device_of(pipe))
    train(
        module,
        *sources,
        [s.entities for s in sources[1].samples],
        params,
        seed,
        text_dropout=spec.text_dropout,
    )
    return module
