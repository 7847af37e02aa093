"""Stage `promotion`: does the new model become champion?

The champion on record is `data/<profile>/champion/<model>/`: record.json and the scores.parquet it
was promoted on. A promoted candidate is written there at once, with the digests of former
champions; orchestration moves the registry's alias to the model of that digest. Not here: the rules
(`ml.pipeline.gate`).

A champion that is scored again on another test set stays champion, and its record gets the new
scores: the next candidate is compared on that test set.

The verdict depends on the champion at the time, which is not part of the recipe. That is safe: a
finished stage is not run again, and if it is forced, it finds its own candidate on record and keeps
it. verdict.json is written before the first record, so that a run that was killed while it promoted
is completed by its own verdict, as long as nobody else's champion came on record meanwhile.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ml.errors import ManifestError
from ml.metrics.iou import nanmean
from ml.metrics.protocol_one import percent
from ml.pipeline.audited import audited
from ml.pipeline.gate import Contender, Policy, Verdict, audit, comparable, decide
from ml.pipeline.stages.benchmark_scores import main_statistic, read_scores
from ml.pipeline.table import Output
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.files import (
    Damaged,
    read_note,
    settle,
    sha256_file,
    sha256_json,
    write_json,
)
from ml.store.manifest import read_manifest
from ml.store.objects import download
from ml.store.seals import read_sealed, sealed
from ml.store.shards import read_frame
from ml.store.shelf import files_of, replaced
from ml.words.vocabulary import Vocabulary, load_vocabulary


@dataclass(frozen=True)
class Contest:
    """Where a model's scores are, and what they were measured on."""

    scores: str  # stage that scored the model
    model: str  # stage that made the model, an input of `scores`
    test_set: tuple[str, ...]  # inputs of `scores` that hold pictures and truth
    read: Callable[[Path], tuple[tuple[str, ...], np.ndarray]]  # scores.parquet -> keys, counts


def grounding_counts(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Summed IoU and number of masks: float64 (pictures, cells, 2, classes); keys ascending."""
    rows = read_frame(path, ["key", "cell", "entity", "iou_ours"])
    axes = [
        np.unique(rows[name].to_numpy(str), return_inverse=True)
        for name in ("key", "cell", "entity")
    ]
    (keys, picture), (cells, cell), (classes, label) = axes
    counts = np.zeros((len(keys), len(cells), 2, len(classes)))
    np.add.at(counts, (picture, cell, 0, label), rows.iou_ours.to_numpy(float))
    np.add.at(counts, (picture, cell, 1, label), 1)
    return tuple(keys.tolist()), counts


def grounding_statistic(counts: np.ndarray) -> np.ndarray:
    """Mean over the cells of Protocol I of mIoU: (..., cells, 2, classes) -> percent (...)."""
    return nanmean(percent(counts))


def segmenter_counts(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Per-picture confusions int64 (pictures, n+1, n+1) of the synthetic segmenter."""
    keys, stack = read_scores(path)
    return tuple(keys), stack


RECORD = {"model": str, "digest": str, "score": (int, float), "test_set": str, "scores_sha256": str}
WHO = {"digest": str}
"""Fields of a champion's record: all that are required, and the one that identifies it."""
LABELS = "synthetic_dataset"
HELD_OUT = (LABELS,)
"""Input that holds pictures and truth where there is no real benchmark."""
NO_BENCHMARK = "measured on held-out synthetic pictures, since there is no real benchmark"

CONTESTS = {
    "grounding": Contest(
        "grounding_scores", "grounding_model", ("images", "triplets"), grounding_counts
    ),
    "segmenter": Contest("benchmark_scores", "segmenter", ("benchmark",), segmenter_counts),
}


def champion_folder(workspace: Workspace, name: str) -> Path:
    """Where the champion on record is kept. name: one of CONTESTS."""
    return files_of(champion_place(workspace, name))


def champion_place(workspace: Workspace, name: str) -> Path:
    """What is replaced as a whole when the champion changes."""
    return workspace.data / "champion" / name


def champion_record(workspace: Workspace, name: str, expected: dict = WHO) -> dict | None:
    """The champion on record: the fields of RECORD, and `former`, the digests of earlier champions.

    None as long as there is no champion. expected: the fields that must be there. Raises ValueError
    for a record that cannot be read: which model holds the title must not be lost.
    """
    settle(champion_place(workspace, name))  # promotion alone writes there, once at a time
    folder = champion_folder(workspace, name)
    try:
        return read_sealed(folder / "record.json", expected)
    except Damaged as error:
        raise ValueError(
            f"{error}. It says who is champion: bring it back, or remove {folder} to "
            "let the next candidate start anew"
        ) from error


def run(params: Params, workspace: Workspace, recipe: str) -> Output:
    """Decides on both models, records a new champion, leaves verdict.json.

    Raises ValueError when a champion's scores are not the ones it was promoted on.
    """
    vocabulary = load_vocabulary(params.vocabulary)
    file = workspace.folder("promotion") / "verdict.json"
    decided = read_note(file, dict.fromkeys(CONTESTS, dict)) or {}  # by a run that was killed
    minimum = params.promotion.min_audited_precision
    judged = None if minimum is None else _judged(workspace)
    verdicts, promoted = {}, {}
    for name, contest in CONTESTS.items():
        facts = read_manifest(workspace.folder(contest.scores)).facts
        policy = policy_of(name, params, vocabulary, facts.get("unscored_classes", ()))
        candidate = _candidate(workspace, contest, policy)
        champion = _champion(workspace, name, contest)
        former = (champion_record(workspace, name) or {}).get("former", [])
        decision = audit(decide(candidate, champion, policy, former), judged, minimum)
        verdict = describe(decision, candidate, champion)
        if facts.get("held_out_synthetic"):
            reason = f"{verdict['reason']}; {NO_BENCHMARK}"
            verdict |= {"held_out_synthetic": True, "reason": reason}
        holder = None if champion is None else champion.digest
        verdicts[name] = decided[name] if _holds(decided.get(name), holder) else verdict
        recorded = holder == candidate.digest
        if verdicts[name]["digest_after"] == candidate.digest and not (
            recorded and comparable(candidate, champion)
        ):
            promoted[name] = candidate
    write_json(file, verdicts)
    for name, candidate in promoted.items():
        _record(workspace, name, CONTESTS[name], candidate)
    return Output(facts=verdicts)


def _holds(decided: dict | None, holder: str | None) -> bool:
    """Whether a verdict was reached beside this champion, or made it champion."""
    if decided is None:
        return False
    before = (decided.get("champion") or {}).get("digest")
    return holder in (before, decided.get("digest_after"))


def policy_of(
    name: str, params: Params, vocabulary: Vocabulary, unscored: Sequence[str] = ()
) -> Policy:
    """What a model of CONTESTS must reach under these settings. unscored: classes for which the
    segmenter's benchmark has no labels."""
    resamples = params.benchmark.bootstrap
    if name == "grounding":
        return Policy(params.promotion.min_grounding, grounding_statistic, resamples)
    return Policy(params.promotion.min_segmenter, main_statistic(vocabulary, unscored), resamples)


def describe(verdict: Verdict, candidate: Contender, champion: Contender | None) -> dict:
    """The verdict as plain data, for facts and verdict.json.

    champion: the one before this decision. The entry `digest_after` is the digest of the model that
    is champion from now on; None when there is none.
    """
    before = None if champion is None else {"digest": champion.digest, "score": champion.score}
    after = candidate.digest if verdict.promote else before and before["digest"]
    plain = {
        "promote": verdict.promote,
        "state": verdict.state,
        "reason": verdict.reason,
        "candidate": {"digest": candidate.digest, "score": candidate.score},
        "champion": before,
        "digest_after": after,
    }
    if verdict.difference is not None:
        points, low, high = verdict.difference
        plain |= {"difference": points, "interval": [low, high]}
    return plain


def _judged(workspace: Workspace) -> dict | None:
    """What people judged of the synthetic set that the scored segmenter learned from, over all
    classes. Raises ManifestError when another one lies there now."""
    scored = read_manifest(workspace.folder("benchmark_scores"), verify=False).inputs[LABELS]
    there = read_manifest(workspace.folder(LABELS), verify=False).digest
    if there != scored:
        raise ManifestError(
            f"the scores are of the synthetic set {scored[:12]}, and {there[:12]} is there now: "
            "run `python -m ml all`"
        )
    return audited(workspace, LABELS).all


def _candidate(workspace: Workspace, contest: Contest, policy: Policy) -> Contender:
    """The model that the stages have just made and scored."""
    folder = workspace.folder(contest.scores)
    manifest = read_manifest(folder)
    inputs, held_out = manifest.inputs, manifest.facts.get("held_out_synthetic", False)
    keys, counts = contest.read(folder / "scores.parquet")
    test_set = sha256_json([inputs[name] for name in (HELD_OUT if held_out else contest.test_set)])
    return Contender(
        inputs[contest.model], float(policy.statistic(counts.sum(0))), test_set, keys, counts
    )


def _champion(workspace: Workspace, name: str, contest: Contest) -> Contender | None:
    """The champion on record with its scores; None before there is one."""
    record = champion_record(workspace, name, RECORD)
    if record is None:
        return None
    scores = champion_folder(workspace, name) / "scores.parquet"
    if not scores.is_file() or sha256_file(scores) != record["scores_sha256"]:
        raise ValueError(
            f"{scores} is missing or not what the champion was promoted on: expected "
            f"sha256 {record['scores_sha256'][:12]}; bring it back, or remove "
            f"{scores.parent} to let the next candidate start anew"
        )
    keys, counts = contest.read(scores)
    return Contender(record["digest"], record["score"], record["test_set"], keys, counts)


def _record(workspace: Workspace, name: str, contest: Contest, candidate: Contender) -> None:
    """Makes the candidate champion: replaces the champion's folder as a whole."""
    before = champion_record(workspace, name) or {}
    former = {*before.get("former", []), before.get("digest")} - {None, candidate.digest}
    with replaced(champion_place(workspace, name)) as temporary:
        temporary.mkdir()
        _write(workspace, name, contest, candidate, sorted(former), temporary)


def write_record(params: Params, workspace: Workspace, name: str, folder: Path) -> None:
    """Writes the record that the candidate would have as champion into a folder.

    A registry keeps it with every model, so that later candidates can be compared with whichever
    model somebody makes champion.
    """
    contest = CONTESTS[name]
    facts = read_manifest(workspace.folder(contest.scores)).facts
    policy = policy_of(
        name, params, load_vocabulary(params.vocabulary), facts.get("unscored_classes", ())
    )
    _write(workspace, name, contest, _candidate(workspace, contest, policy), [], folder)


def _write(
    workspace: Workspace,
    name: str,
    contest: Contest,
    candidate: Contender,
    former: list[str],
    folder: Path,
) -> None:
    """Writes scores.parquet and record.json into an empty folder."""
    source = workspace.folder(contest.scores) / "scores.parquet"
    download(source, folder / "scores.parquet")
    write_json(
        folder / "record.json",
        sealed(
            {
                "model": name,
                "digest": candidate.digest,
                "score": candidate.score,
                "test_set": candidate.test_set,
                "scores_sha256": sha256_file(source),
                "former": former,
            }
        ),
    )
