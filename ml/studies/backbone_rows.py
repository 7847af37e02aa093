"""What U-Net and transformer are compared by: methods and blocks, their specifications, and the
raw rows that are made."""

import functools
from dataclasses import replace

import pandas as pd

from ml.diffusion.backbones.kinds import backbone_of, denoiser
from ml.diffusion.backbones.mmdit import spread
from ml.diffusion.loading import load_pipeline
from ml.studies import concept_maps
from ml.studies.baselines import make_baselines
from ml.studies.concept_maps import CONCEPT
from ml.studies.picture_makers import feature_timestep
from ml.studies.protocol_one_methods import SPECS, TRAINED, spec_of
from ml.studies.query_maps import THRESHOLD_SHARE
from ml.studies.scores import RAW
from ml.studies.sizes import FRACTIONS
from ml.studies.specs import Spec
from ml.studies.study_run import TRANSFORMER, StudyRun
from ml.studies.trainings import done, precision_of, recipe_of, rows_of

KEPT = "transformer"
"""Name of the table with all of the transformer's raw rows; a probe's label is its `method`."""
UNTRAINED = {
    "DAAM, best threshold": "daam",
    "ConceptAttention": CONCEPT,
    "contrast alone": "contrast",
}
"""Row label -> method in the raw rows; ConceptAttention is the transformer's alone."""
METHODS = TRAINED | UNTRAINED
PROBE = SPECS["paper"]
"""Learns from features alone: ours has the evidence too, which hides what a block lacks."""

TWO = {"the paper's module": PROBE, "our default": SPECS["seeded"]}
"""What is tried with other features or parts, by what rows are called."""

STEPS = 4
"""Of FRACTIONS, from the last, whose features are tried."""
MATCHED = 2
"""Which of them has about as much noise as the U-Net's last step."""


def runs(run: StudyRun) -> dict[str, StudyRun]:
    """The run itself, and one whose pictures the transformer makes, by what rows are called."""
    return {"U-Net": run, "transformer": replace(run, backbone=TRANSFORMER)}


def labels_of(name: str) -> dict[str, str]:
    """Row label -> method of a backbone."""
    return {
        f"{name}: {label}": method
        for label, method in METHODS.items()
        if name == "transformer" or method != CONCEPT
    }


@functools.cache
def block_count(run: StudyRun) -> int:
    """Joint blocks of a run's transformer, which is loaded once for it: every recipe asks."""
    pipe = load_pipeline(run.diffusion)
    return len(backbone_of(pipe).joint_blocks(denoiser(pipe)))


def noise_to_signal(run: StudyRun) -> float:
    """Of the latents whose features are taken: those of the last denoising step."""
    pipe = load_pipeline(run.diffusion)
    process, timestep = backbone_of(pipe).process, feature_timestep(pipe, run)
    signal, noise = process.shares(pipe.scheduler, timestep)
    return noise / signal


def alone(count: int) -> dict[str, Spec]:
    """Row label -> the probe on one block's features."""
    return {
        f"block {block + 1} of {count}": replace(PROBE, blocks=(block,)) for block in range(count)
    }


def together(count: int) -> dict[str, Spec]:
    """Row label -> the probe on several blocks' features: so many, spread over the depth, and the
    deeper half."""
    chosen = [spread(count, taps) for taps in range(1, count + 1)]
    deeper = list(range(count // 2, count))
    specs = {}
    for blocks in [*chosen, deeper]:
        label = f"{len(blocks)} of {count} blocks: {', '.join(str(own + 1) for own in blocks)}"
        own_way = None if blocks == spread(count) else tuple(blocks)
        specs[label] = replace(PROBE, blocks=own_way)
    return specs


def concept_labels(count: int) -> dict[str, str]:
    """Row label -> method in the raw rows."""
    return {
        f"ConceptAttention, block {block + 1} of {count}": f"{CONCEPT}-{block}"
        for block in range(count)
    }


def late_steps(run: StudyRun) -> dict[str, Spec]:
    """Row label -> the probe on the features of each of the last denoising steps, and our default
    on those of the last and of MATCHED: the last one of rectified flow has hardly any noise
    left."""
    steps = run.params.diffusion.steps
    places = sorted({max(1, round(share * steps)) for share in FRACTIONS})[:STEPS]
    return {
        f"{name}, step {step} of {steps} from the last": replace(spec, place=place)
        for name, spec in TWO.items()
        for place, step in enumerate(places)
        if spec == PROBE or place in (0, MATCHED)
    }


def without() -> dict[str, Spec]:
    """Row label -> the probe and our default without one of their parts."""
    bare = {
        f"{name}, no block of convolutions": replace(spec, lone_block=False)
        for name, spec in TWO.items()
    }
    return TWO | bare | {"our default, evidence has no say between words": Spec(settles=False)}


def probes(run: StudyRun) -> dict[str, Spec]:
    """Row label -> specification of everything that is trained on the transformer beside METHODS;
    split 1 alone."""
    count = block_count(runs(run)["transformer"])
    return alone(count) | together(count) | late_steps(run) | without()


def method_rows(run: StudyRun, name: str) -> pd.DataFrame:
    """Raw rows of a backbone's methods that are made, all splits; the column `method` as METHODS
    has it."""
    own, parts = runs(run)[name], list[pd.DataFrame]()
    if own is not run and kept(run):
        rows = pd.read_parquet(run.table_path(KEPT))
        return rows[~rows.method.isin(probes(run))]
    for split in run.size.splits:
        for method in TRAINED.values():
            if done(own, spec_of(method, split)):
                parts.append(rows_of(own, spec_of(method, split)).assign(method=method))
        if own.table_path(f"baselines-{split}").is_file():
            parts.append(make_baselines(own, split))
        if own.table_path(f"concepts-{split}").is_file():
            parts.append(concept_maps.rows(own, split))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=RAW)


def probe_rows(run: StudyRun, specs: dict[str, Spec]) -> dict[str, pd.DataFrame]:
    """Row label -> raw rows of those that are made."""
    if kept(run):
        rows = pd.read_parquet(run.table_path(KEPT))
        return {label: rows[rows.method == label] for label in specs}
    own = runs(run)["transformer"]
    return {label: rows_of(own, spec) for label, spec in specs.items() if done(own, spec)}


def precision(run: StudyRun, name: str) -> str | None:
    """What a backbone's modules were trained in; None while they are not."""
    own, spec = runs(run)[name], spec_of("seeded", run.size.splits[0])
    if own is not run and kept(run):
        return str(pd.read_parquet(run.table_path(KEPT), columns=["precision"]).precision.iloc[0])
    return precision_of(own, spec) if done(own, spec) else None


def kept(run: StudyRun) -> bool:
    """Whether all of the transformer's raw rows are in place, made here or taken over."""
    return run.in_place(run.table_path(KEPT), _recipe(run))


def keep_rows(run: StudyRun) -> None:
    """The transformer's raw rows as a table of the run's own, which goes to `docs/paper/raw`."""
    specs = probes(run)

    def make() -> pd.DataFrame:
        probed = [rows.assign(method=label) for label, rows in probe_rows(run, specs).items()]
        rows = pd.concat([method_rows(run, "transformer"), *probed], ignore_index=True)
        return rows.assign(precision=precision(run, "transformer"))

    run.table(KEPT, _recipe(run), make)


def _recipe(run: StudyRun) -> str:
    """Of all settings, so that it needs no picture."""
    own = runs(run)["transformer"]
    return run.recipe(
        other=own.recipe(),
        counts=own.counts(),
        seeds=run.size.seeds,
        splits=run.size.splits,
        candidates=own.params.benchmark.daam_thresholds,
        concepts=[concept_maps.BACKGROUNDS, THRESHOLD_SHARE],
        methods=[recipe_of(own, spec_of(method, run.size.splits[0])) for method in SPECS],
        probes={label: recipe_of(own, spec) for label, spec in probes(run).items()},
    )
