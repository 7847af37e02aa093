"""Stage `grounding_model`: trains the grounding module on the accepted triplets of seen classes.

Leaves config.json, model.safetensors, curve.csv and a contact sheet of validation pictures. Not
here: the module and the training loop (`ml.grounding`), scores (`grounding_scores`).
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from ml.compute import processes
from ml.compute.precision import usable_precision
from ml.diffusion.features import channels_of
from ml.diffusion.loading import load_pipeline
from ml.diffusion.pipeline import device_of
from ml.diffusion.tokens import text_width
from ml.grounding.config import GroundingConfig, make_config
from ml.grounding.features import FeatureSource, sample_evidence
from ml.grounding.module import GroundingModule
from ml.grounding.progress import Progress, write_curve
from ml.grounding.samples import Sample, refuse_unseen
from ml.grounding.training import train
from ml.grounding.validation import predict_masks
from ml.images.contact_sheet import contact_sheet, spread
from ml.images.overlays import PALETTE
from ml.pipeline.labelled_samples import labelled_samples
from ml.pipeline.samples import load_samples
from ml.pipeline.table import Output
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.settings.sections import GroundingParams
from ml.store.manifest import PROGRESS
from ml.store.objects import written
from ml.words.vocabulary import Vocabulary, load_vocabulary

SHEET_PICTURES = 24


def run(params: Params, workspace: Workspace, recipe: str) -> Output:
    """Trains in the stage's folder; after a kill it goes on from `.progress/`.

    Raises ValueError when there is no training triplet, or one of an unseen class.
    """
    vocabulary = load_vocabulary(params.vocabulary)
    samples = load_samples(workspace, ["train", "validation"])
    pipe = load_pipeline(workspace.located(params.diffusion))
    own = labelled_samples(pipe, workspace, samples[0].timestep, params.diffusion.batch_size)
    samples += own
    refuse_unseen(samples, vocabulary.taught)
    folder = workspace.folder("grounding_model")
    module, progress, validation = train_variant(
        pipe, samples, params, params.grounding.variant, folder / PROGRESS
    )
    if not processes.is_main():
        return Output()
    with written(folder) as place:
        module.save_pretrained(place)
    write_curve(folder / "curve.csv", progress.curve)
    _sheet(module, validation, vocabulary, params, folder / "contact_sheet.jpg")
    precision = usable_precision(params.grounding.precision, device_of(pipe).type)
    facts = _facts(module, progress, samples) | {"precision": precision}
    return Output(facts=facts | ({"labelled": _own_facts(own)} if own else {}))


def train_variant(
    pipe,
    samples: Sequence[Sample],
    params: Params,
    variant: str,
    progress_folder: Path | None = None,
) -> tuple[GroundingModule, Progress, FeatureSource]:
    """Trains one variant on samples of the subsets train and validation.

    Returns the module, its progress and the source of validation features. progress_folder: where
    the checkpoint is kept; None keeps none.
    """
    config = config_for(pipe, samples, params.grounding, variant)
    torch.manual_seed(params.seed)
    module = GroundingModule(config).to(device_of(pipe))
    parts = [[s for s in samples if s.subset == subset] for subset in ("train", "validation")]
    sources = [
        FeatureSource(
            pipe,
            part,
            sample_evidence(pipe, part, config.evidence_timesteps, params.diffusion.batch_size)
            if config.competition
            else None,
        )
        for part in parts
    ]
    checkpoint = None if progress_folder is None else progress_folder / "training.pt"
    progress = train(
        module, *sources, [s.entities for s in parts[1]], params.grounding, params.seed, checkpoint
    )
    return module, progress, sources[1]


def config_for(
    pipe, samples: Sequence[Sample], grounding: GroundingParams, variant: str
) -> GroundingConfig:
    """The config that fits the diffusion model and the pictures.

    Raises ValueError when the latents come from more than one timestep.
    """
    timesteps = Counter(s.timestep for s in samples)
    if len(timesteps) > 1:
        raise ValueError(
            f"latents of {len(timesteps)} timesteps {sorted(timesteps)}: expected "
            "one; make the stage images again with one scheduler and step count"
        )
    return make_config(
        grounding,
        channels_of(pipe),
        text_width(pipe),
        samples[0].size[0],
        next(iter(timesteps)),
        variant,
    )


def _own_facts(own: Sequence[Sample]) -> dict:
    """How many of the training pictures and masks are the user's own."""
    return {"pictures": len(own), "masks": _masks(own)}


def _masks(samples: Sequence[Sample]) -> dict[str, int]:
    """Accepted masks by class."""
    masks = Counter(
        e for s in samples for e, there in zip(s.entities, s.present, strict=True) if there
    )
    return dict(sorted(masks.items()))


def _facts(module: GroundingModule, progress: Progress, samples: Sequence[Sample]) -> dict:
    def count(subset: str) -> int:
        return sum(s.subset == subset for s in samples)

    return {
        "variant": module.config.variant,
        "parameters": sum(p.numel() for p in module.parameters()),
        "pictures": {subset: count(subset) for subset in ("train", "validation")},
        "masks": _masks([s for s in samples if s.subset == "train"]),
        "steps": progress.step,
        "best_step": progress.best_step,
        "val_miou": progress.best_miou,
        "feature_timestep": module.config.feature_timestep,
    }


def _sheet(
    module: GroundingModule,
    validation: FeatureSource,
    vocabulary: Vocabulary,
    params: Params,
    path: Path,
) -> None:
    """Writes a contact sheet of validation pictures with the module's masks."""
    indices = spread(len(validation), SHEET_PICTURES)
    shown, masks = [], []
    for start in range(0, len(indices), params.grounding.batch_size):
        part = indices[start : start + params.grounding.batch_size]
        shown += [validation.samples[i] for i in part]
        predicted = predict_masks(module, validation.batch(part))
        masks += [m[: len(s.words)] for m, s in zip(predicted, shown[-len(part) :], strict=True)]
    contact_sheet(
        [s.image for s in shown],
        masks,
        [s.text for s in shown],
        path,
        colours=[[PALETTE[vocabulary.label(e)] for e in s.entities] for s in shown],
    )
