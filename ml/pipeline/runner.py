"""`run_stage`, the one function that runs a stage of the table (`ml.pipeline.table`).

Every stage is a module of `ml/pipeline/stages/` with `run(params, workspace, recipe) -> Output`. It
reads the folders of the stages named in its row and writes its own folder. It is the same whoever
calls it: a Dagster asset, `python -m ml <stage>` or a DVC stage.
"""

import importlib
import resource
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ml.compute import processes
from ml.compute.batching import free_gpu
from ml.compute.ray_training import in_processes
from ml.errors import ManifestError
from ml.pipeline.recipe import recipe_of, refuse_failed_inputs
from ml.pipeline.table import STAGE, STAGES, Output, Stage
from ml.pipeline.workspace import TIMING, Workspace
from ml.settings.files import claim
from ml.settings.params import Params
from ml.settings.profile import ROOT
from ml.store.files import (
    read_note,
    say,
    sha256_json,
    write_json,
)
from ml.store.manifest import (
    Manifest,
    damage,
    describe_files,
    read_manifest,
    strays,
)
from ml.store.places import place_of
from ml.store.stage_places import check_stage, lock_of, successor_of
from ml.store.successor import Successor, check_shards
from ml.store.versions import Version


@dataclass(frozen=True)
class StageReport:
    stage: str
    digest: str  # of the manifest
    cached: bool  # nothing was done: the folder was made by the same recipe already
    seconds: float  # wall time of the run that made it (after a kill: of the last one)
    peak_rss_mb: float  # of the process that made it
    facts: dict


def run_stage(name: str, params: Params, root: Path = ROOT, *, force: bool = False) -> StageReport:
    """Runs one stage, or finds that its folder was made by the same recipe already.

    A folder made by another recipe stays until the new one is complete (`ml.store.successor`); what
    the same recipe left unfinished is continued. Of several processes (`accelerate launch`) the
    first prepares and writes, all run the stage, and all return the report.

    force: makes the stage again although it is done. Raises ValueError for an unknown stage, or one
    that does not train in several processes; ManifestError for a missing or damaged input, inputs
    that do not belong together, or a folder at the stage's place that is not ours; QualityError for
    an input whose checks failed; WorkspaceBusy while another run makes or reads what this one
    writes.
    """
    if name not in STAGE:
        raise ValueError(f"unknown stage {name!r}; expected one of {[s.name for s in STAGES]}")
    stage, workspace = STAGE[name], Workspace(place_of(root), params.profile)
    if processes.count() > 1 and not stage.trains:
        raise ValueError(
            f"stage {name!r} runs in one process, not in {processes.count()}: expected one of "
            f"{[s.name for s in STAGES if s.trains]} under accelerate launch. Start it with "
            f"`python -m ml {name}`; executor.workers spreads the making of shards over GPUs"
        )
    with ExitStack() as locks:
        begun: list[Successor | Version] = []  # of the process that writes
        recipe, new, done = processes.on_main(
            lambda: _begin(stage, params, workspace, force, locks, begun)
        )
        if done:
            return done
        started = time.perf_counter()
        module = importlib.import_module(f"ml.pipeline.stages.{name}")
        writing = replace(workspace, making=name, new=new)
        run = partial(module.run, params, writing, sha256_json(recipe))
        output = in_processes(run, params.executor, writing.folder(name)) if stage.trains else run()
        free_gpu()
        return processes.on_main(lambda: _finish(writing, recipe, output, started, begun[0]))


def _begin(
    stage: Stage,
    params: Params,
    workspace: Workspace,
    force: bool,
    locks: ExitStack,
    begun: list[Successor | Version],
) -> tuple[dict, Path | None, StageReport | None]:
    """The stage's recipe, and its report when it is done already; else prepares its new folder.

    locks: takes the locks that this process holds until the stage is done. begun: takes what will
    put the new folder into its place.
    """
    for each in STAGE:
        check_stage(workspace.data, each)
    if not workspace.data.exists():  # what is refused at first leaves no folder, and no lock
        recipe_of(stage, params, workspace)
    own = locks.enter_context(lock_of(workspace.data, stage.name))
    own.read()
    for name in stage.inputs:
        locks.enter_context(lock_of(workspace.data, name)).read()
    recipe = recipe_of(stage, params, workspace)
    refuse_failed_inputs(stage, workspace)
    claim(workspace.data, params.file, ROOT)
    successor = successor_of(workspace.data, stage.name, own)
    if not force and not successor.waits() and (done := _finished(workspace, recipe)):
        return recipe, None, done
    own.write()
    successor.settle()
    done = None if force else _finished(workspace, recipe)
    if done:
        successor.forget(recipe)
        return recipe, None, done
    successor.start(recipe, force)
    begun.append(successor)
    return recipe, successor.new, None


def _finish(
    workspace: Workspace,
    recipe: dict,
    output: Output,
    started: float,
    successor: Successor | Version,
) -> StageReport:
    """Writes metrics; then the folder gets its manifest and takes its place."""
    name, folder = recipe["stage"], workspace.folder(recipe["stage"])
    for source in STAGE[name].inputs:
        if read_manifest(workspace.folder(source), verify=False).digest != recipe["inputs"][source]:
            raise ManifestError(
                f"{workspace.folder(source)} changed while {name!r} was made from "
                f"it: run `python -m ml {name}` again"
            )
    write_json(folder / "metrics.json", output.facts)
    files = describe_files(folder, output.rows)
    check_shards(folder, sha256_json(recipe), files)
    manifest = Manifest(**recipe, files=files, facts=output.facts)
    spent = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    successor.finish(manifest, {"seconds": spent, "peak_rss_mb": peak})
    return StageReport(name, manifest.digest, False, spent, peak, output.facts)


def _finished(workspace: Workspace, recipe: dict) -> StageReport | None:
    """The report of the stage's folder if this recipe made it and no file is damaged, else None,
    with a line on stderr about what is damaged."""
    folder = workspace.folder(recipe["stage"])
    try:
        manifest = read_manifest(folder, verify=False)
    except ManifestError as error:
        if folder.exists() and any(folder.iterdir()):
            say(f"{error} (it is being made again)")
        return None
    made_by = {key: getattr(manifest, key) for key in recipe}
    if sha256_json(made_by) != sha256_json(recipe):
        return None
    if problems := list(damage(folder, manifest)):
        say(f"{'; '.join(problems)}: made again, and nothing else")
        return None
    for name in strays(folder, manifest.files):
        say(f"{folder / name} was not made by the stage {manifest.stage!r}: it is left there")
    # No timing when the folder was pulled, not made here.
    timing = read_note(workspace.state(manifest.stage) / "timing.json", TIMING) or {
        "seconds": 0,
        "peak_rss_mb": 0,
    }
    return StageReport(
        manifest.stage,
        manifest.digest,
        True,
        timing["seconds"],
        timing["peak_rss_mb"],
        manifest.facts,
    )
