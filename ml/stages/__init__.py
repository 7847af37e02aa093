"""The pipeline: the stage table and the one function that runs a stage.

Every stage is a module of this folder with `run(params, workspace, recipe) -> Output`. It reads
the folders of the stages named in its row, writes its own folder, and knows nothing of who called
it: a Dagster asset, `python -m ml <stage>` or a DVC stage.
"""

import importlib
import resource
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from ml import processes
from ml.errors import QualityError
from ml.files import (
    Damaged,
    read_json,
    read_note,
    say,
    sha256_file,
    sha256_folder,
    sha256_json,
    write_json,
)
from ml.lineage import check_lineage
from ml.locks import FolderLock
from ml.manifest import (
    Manifest,
    ManifestError,
    damage,
    describe_files,
    read_manifest,
    strays,
    write_manifest,
)
from ml.params import REAL_SOURCES, ROOT, DetectorParams, Params, find_file
from ml.profile_files import claim
from ml.successor import STATE, Successor, check_shards
from ml.vocabulary import load_vocabulary


@dataclass(frozen=True)
class Stage:
    name: str  # of the asset, the module, the DVC stage and the folder
    inputs: tuple[str, ...]  # stages whose folders it reads
    sections: tuple[str, ...]  # fields of Params that it reads, or "field.subfield"
    version: int  # raised when the same inputs give another output
    models: tuple[str, ...] = ()  # Params fields (section.field) that name a foundation model
    heavy: bool = False  # wants the GPU at full size
    real_part: str | None = None  # of the real data that it reads, when `benchmark:` names some
    trains: bool = False  # may run in several processes at once (ml.processes)


STAGES = (
    Stage(
        "benchmark", (), ("vocabulary", "benchmark.source", "benchmark.subset"), 1, real_part="test"
    ),
    Stage("prompts", (), ("seed", "vocabulary", "prompts", "shards"), 1),
    Stage(
        "images",
        ("prompts",),
        ("seed", "diffusion", "shards"),
        2,
        models=("diffusion.model",),
        heavy=True,
    ),
    Stage(
        "masks",
        ("images",),
        ("vocabulary", "detector"),
        1,
        models=("detector.model", "detector.weights"),
        heavy=True,
    ),
    Stage("triplets", ("images", "masks"), ("vocabulary", "triplets"), 1),
    Stage(
        "grounding_model",
        ("images", "triplets"),
        ("seed", "vocabulary", "diffusion", "grounding"),
        3,
        models=("diffusion.model",),
        heavy=True,
        trains=True,
    ),
    Stage(
        "grounding_scores",
        ("images", "triplets", "grounding_model"),
        ("vocabulary", "diffusion", "benchmark.bootstrap", "benchmark.daam_thresholds"),
        2,
        models=("diffusion.model",),
        heavy=True,
    ),
    Stage(
        "synthetic_dataset",
        ("prompts", "grounding_model", "benchmark"),
        ("seed", "vocabulary", "diffusion", "shards", "synthetic"),
        1,
        models=("diffusion.model",),
        heavy=True,
    ),
    Stage(
        "segmenter",
        ("synthetic_dataset",),
        ("seed", "vocabulary", "segmenter", "benchmark.source"),
        1,
        models=("segmenter.backbone",),
        heavy=True,
        trains=True,
    ),
    Stage(
        "real_bound",
        ("synthetic_dataset", "benchmark"),
        ("seed", "vocabulary", "segmenter", "benchmark.source", "benchmark.subset"),
        1,
        models=("segmenter.backbone",),
        heavy=True,
        trains=True,
        real_part="train",
    ),
    Stage(
        "benchmark_scores",
        ("benchmark", "synthetic_dataset", "segmenter", "real_bound"),
        ("seed", "vocabulary", "benchmark.source", "benchmark.bootstrap"),
        1,
        heavy=True,
    ),
    Stage("promotion", ("grounding_scores", "benchmark_scores"), ("promotion",), 1),
    Stage(
        "report",
        (
            "prompts",
            "images",
            "masks",
            "triplets",
            "grounding_model",
            "grounding_scores",
            "synthetic_dataset",
            "segmenter",
            "real_bound",
            "benchmark",
            "benchmark_scores",
            "promotion",
        ),
        ("profile",),
        3,
    ),
)
STAGE = {stage.name: stage for stage in STAGES}


VERDICT = {"digest": str, "passed": bool, "failures": list}
"""What the checks' `quality.json` holds at least."""
TIMING = {"seconds": (int, float), "peak_rss_mb": (int, float)}
"""What `timing.json` holds."""


@dataclass(frozen=True)
class Workspace:
    """Where the stages of one profile keep their folders: `<root>/data/<profile>/<stage>`.

    making: the stage that is being made; its `folder` is the one that will take the other's place.
    """

    root: Path
    profile: str
    making: str = ""

    @property
    def data(self) -> Path:
        return Path(self.root) / "data" / self.profile

    def folder(self, stage: str) -> Path:
        return Successor(self.data, stage).new if stage == self.making else self.data / stage

    def state(self, stage: str) -> Path:
        """What is said about a stage's folder but is no part of its data: `timing.json` of the
        making, `made.json` (that we made it), `quality.json` of the last checks. Apart from the
        folder, so that DVC's hash of the folder depends on the data alone; replaced with it.
        """
        return self.data / STATE / stage

    def model(self, name: str) -> str:
        """A model folder or file (below the root, else the checkout) as an absolute path.

        A name that is neither is a hub id or a backend's own name, returned as it is.
        """
        for base in (Path(self.root), ROOT):
            if (base / name).exists():
                return str(base / name)
        return name

    def detector(self, detector: DetectorParams) -> str:
        """`model` of `detector.model`, where a backend's own name comes first: a folder or file
        of that name below the root is something else."""
        return detector.model if _own_name(detector) else self.model(detector.model)

    def digest(self, params: Params, place: str) -> str | None:
        """What a recipe says of the setting `place` ("diffusion.model"): the sha256 of a folder or
        file, a hub id or a backend's own name as it is; None when the setting is null."""
        value = params.section(place)
        if value is None or (place == "detector.model" and _own_name(params.detector)):
            return value
        model = Path(self.model(value))
        return (
            sha256_folder(model)
            if model.is_dir()
            else sha256_file(model)
            if model.is_file()
            else value
        )


def _own_name(detector: DetectorParams) -> bool:
    """Whether `detector.model` is a name of its backend's."""
    return {
        "torchvision": detector.model == "coco",
        "detectron2": detector.model.endswith((".yaml", ".py")),
    }.get(detector.backend, False)


@dataclass(frozen=True)
class Output:
    """What a stage's `run` hands back; the files are in its folder already."""

    facts: dict = field(default_factory=dict)  # JSON-able counts and scores
    rows: dict[str, int] = field(default_factory=dict)  # by shard file


@dataclass(frozen=True)
class StageReport:
    stage: str
    digest: str  # of the manifest
    cached: bool  # nothing was done: the folder was made by the same recipe already
    seconds: float  # wall time of the making, also when cached; of the last try after a kill
    peak_rss_mb: float  # of the process that made it
    facts: dict


def recipe_of(stage: Stage, params: Params, workspace: Workspace) -> dict:
    """Everything a stage's output depends on, as plain data; verifies the inputs' files.

    Raises ManifestError when an input is unfinished or damaged, or the inputs were not made from
    one another and with what is asked for; ValueError when real data is not what `benchmark:` says.
    """
    settings = {name: params.section(name) for name in stage.sections}
    if "vocabulary" in settings:
        settings["vocabulary_digest"] = load_vocabulary(params.vocabulary).digest
    if "prompts" in settings and params.prompts.texts and find_file(params.prompts.texts).is_file():
        settings["texts_digest"] = sha256_file(find_file(params.prompts.texts))
    inputs = {name: read_manifest(workspace.folder(name)).digest for name in stage.inputs}
    models = {place: workspace.digest(params, place) for place in stage.models}
    inputs |= {place: digest for place, digest in models.items() if digest is not None}
    if stage.real_part and params.benchmark.source in REAL_SOURCES:
        from ml.realdata import data_digest  # scipy and pycocotools, only where they are needed

        inputs["benchmark.root"] = data_digest(
            params.benchmark, stage.real_part, workspace.model(params.benchmark.root)
        )
    recipe = {"stage": stage.name, "version": stage.version, "params": settings, "inputs": inputs}
    check_lineage(
        recipe,
        load_vocabulary(params.vocabulary).digest,
        workspace.data,
        [each.name for each in STAGES],
    )
    return recipe


def refuse_failed_inputs(stage: Stage, workspace: Workspace) -> None:
    """Raises QualityError when the last checks of an input, as it is now, failed.

    The checks leave `quality.json` ({"digest", "passed", "failures"}) in the state of what they
    judged.
    """
    for name in stage.inputs:
        path = workspace.state(name) / "quality.json"
        try:
            verdict = read_json(path, VERDICT)
        except Damaged as error:  # it may have said no
            raise QualityError(
                f"stage {stage.name!r} refuses its input {name!r}, whose checks "
                f"left no readable verdict: {error}. Judge it again (`make run`), "
                "or remove that file to go on without a verdict"
            ) from error
        if verdict is None:
            continue
        digest = read_manifest(workspace.folder(name), verify=False).digest
        if verdict["digest"] == digest and not verdict["passed"]:
            raise QualityError(
                f"stage {stage.name!r} refuses its input {name!r}, whose checks "
                f"failed: {'; '.join(map(str, verdict['failures']))}. Make "
                f"{name!r} again from sound data ({path})"
            )


def run_stage(name: str, params: Params, root: Path = ROOT, *, force: bool = False) -> StageReport:
    """Runs one stage, or finds that its folder was made by the same recipe already.

    A folder of another recipe stands until the new one is whole (`ml.successor`); what the same
    recipe left half-way is continued. Of several processes (`accelerate launch`) the first prepares
    and writes, all run the stage, and all get the report. Raises ValueError for an unknown stage,
    or one that does not train in several processes; ManifestError for a missing or damaged input,
    inputs that do not belong together, or a folder in the way that is not ours; QualityError for an
    input whose checks failed; WorkspaceBusy when another run makes or reads what this one writes.
    """
    if name not in STAGE:
        raise ValueError(f"unknown stage {name!r}; expected one of {[s.name for s in STAGES]}")
    stage, workspace = STAGE[name], Workspace(Path(root), params.profile)
    if processes.count() > 1 and not stage.trains:
        raise ValueError(
            f"stage {name!r} runs in one process, not in {processes.count()}: expected one of "
            f"{[s.name for s in STAGES if s.trains]} under accelerate launch. Start it with "
            f"`python -m ml {name}`; shards.processes spreads the making of shards over GPUs"
        )
    with ExitStack() as locks:
        recipe, done = processes.on_main(lambda: _begin(stage, params, workspace, force, locks))
        if done:
            return done
        started = time.perf_counter()
        module = importlib.import_module(f"ml.stages.{name}")
        writing = replace(workspace, making=name)
        output = module.run(params, writing, sha256_json(recipe))
        return processes.on_main(lambda: _finish(writing, recipe, output, started))


def _begin(
    stage: Stage, params: Params, workspace: Workspace, force: bool, locks: ExitStack
) -> tuple[dict, StageReport | None]:
    """The stage's recipe, and its report when it is made already; else the place is prepared.

    locks: held by this process until the stage is done.
    """
    for each in STAGE:
        Successor(workspace.data, each).check()
    own = locks.enter_context(FolderLock(workspace.data, stage.name))
    own.read()
    for name in stage.inputs:
        locks.enter_context(FolderLock(workspace.data, name)).read()
    recipe = recipe_of(stage, params, workspace)
    refuse_failed_inputs(stage, workspace)
    claim(workspace.data, params.file, ROOT)
    successor = Successor(workspace.data, stage.name)
    if not force and not successor.waits() and (done := _finished(workspace, recipe)):
        return recipe, done
    own.write()
    successor.settle()
    done = None if force else _finished(workspace, recipe)
    if done:
        successor.forget(recipe)
    else:
        successor.start(recipe, force)
    return recipe, done


def _finish(workspace: Workspace, recipe: dict, output: Output, started: float) -> StageReport:
    """Writes metrics and, last, the manifest; then the folder takes its place."""
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
    write_manifest(folder, manifest)
    Successor(workspace.data, name).finish(manifest, {"seconds": spent, "peak_rss_mb": peak})
    return StageReport(name, manifest.digest, False, spent, peak, output.facts)


def _finished(workspace: Workspace, recipe: dict) -> StageReport | None:
    """The report of a folder that was made by this recipe and is whole; says what is not."""
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
