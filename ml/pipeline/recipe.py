"""The recipe of a stage, and whether its inputs may be used."""

from collections.abc import Iterable

from ml.errors import QualityError
from ml.pipeline.marks import heeded
from ml.pipeline.table import STAGES, Stage
from ml.pipeline.workspace import VERDICT, Workspace
from ml.settings.params import Params
from ml.settings.profile import find_file
from ml.settings.sections import PHOTO_SOURCES
from ml.store.files import Damaged, sha256_file
from ml.store.lineage import check_lineage
from ml.store.manifest import NAME, read_manifest
from ml.store.seals import read_sealed
from ml.words.vocabulary import load_vocabulary


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
    settings |= heeded(stage.name, params, workspace)
    inputs = {name: read_manifest(workspace.folder(name)).digest for name in stage.inputs}
    models = {place: workspace.digest(params, place) for place in stage.models}
    inputs |= {place: digest for place, digest in models.items() if digest is not None}
    if "triplets" in settings and params.triplets.labels:
        from ml.pipeline.labelled import labels_digest

        inputs["triplets.labels"] = labels_digest(params, workspace)
        settings["benchmark.source"] = params.benchmark.source  # whose pictures are kept out
        part: str | None = "test"
    else:
        part = stage.photo_part
    if part and params.benchmark.source in PHOTO_SOURCES:
        from ml.datasets import data_digest  # scipy and pycocotools, only where they are needed

        inputs["benchmark.root"] = data_digest(
            params.benchmark, part, workspace.model(params.benchmark.root)
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
    """Raises QualityError when the last checks of anything that a stage is made from, directly or
    not, failed: its inputs may have been made before their own inputs were judged."""
    refuse_failed(made_from(stage), workspace, stage.name)


def made_from(stage: Stage) -> list[str]:
    """A stage's inputs, their inputs, and so on."""
    names = dict.fromkeys(stage.inputs)
    for earlier in reversed(STAGES):
        if earlier.name in names:
            names |= dict.fromkeys(earlier.inputs)
    return list(names)


def refuse_failed(names: Iterable[str], workspace: Workspace, reader: str) -> None:
    """Raises QualityError when the last checks of one of these stages, as it is now, failed.

    The checks leave `quality.json` ({"digest", "passed", "failures"}) in the state of what they
    judged. reader: who refuses it, for the message.
    """
    for name in names:
        path = workspace.state(name) / "quality.json"
        try:
            verdict = read_sealed(path, VERDICT)
        except Damaged as error:  # it may have been a failure
            raise QualityError(
                f"stage {reader!r} refuses its input {name!r}, whose checks "
                f"left no readable verdict: {error}. Judge it again (`make run`), "
                "or remove that file to go on without a verdict"
            ) from error
        if verdict is None or verdict["passed"] or not (workspace.folder(name) / NAME).is_file():
            continue
        if verdict["digest"] == read_manifest(workspace.folder(name), verify=False).digest:
            raise QualityError(
                f"stage {reader!r} refuses its input {name!r}, whose checks "
                f"failed: {'; '.join(map(str, verdict['failures']))}. Make "
                f"{name!r} again from sound data ({path})"
            )
