"""Time and memory of what handles the data, at 1,000, 10,000 and 100,000 samples.

    python -m benchmarks.scale [--folder F] [--counts 1000 10000 100000] [--only NAME ...]

Makes workspaces of those sizes (`benchmarks.scale_folders`; minutes, and kept in the folder), runs
each operation in a process of its own, and prints its processor time (the clock's also counts other
work on the machine) and its peak memory, imports included. Ends with exit code 1 when ten times the
samples take more than 12 times the time, or more memory than OPERATIONS allows. There is no export
of the data set yet; its readers stand for it.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.memory import apart, watched_peak
from benchmarks.scale_folders import make, params_of
from ml.arguments import folder, number
from ml.errors import EXIT_CODES, exit_path
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.sidecars import shard_files

LINEAR = 12.0
"""At most this many times the time for ten times the samples."""
SHORT = 3.0
"""Seconds; below, imports and the 400 benchmark pictures hide what the samples take."""
FLAT = 1.3
"""At most this many times the memory, or no more a sample than OPERATIONS says."""


def prompts(params: Params, workspace: Workspace) -> None:
    _run("prompts", params, workspace)


def triplets(params: Params, workspace: Workspace) -> None:
    _run("triplets", params, workspace)


def _run(stage: str, params: Params, workspace: Workspace) -> None:
    from ml.pipeline.runner import run_stage

    run_stage(stage, params, workspace.root, force=True)


def manifest(params: Params, workspace: Workspace) -> None:
    """Digests of all files of `images`, written and verified."""
    from ml.store.manifest import describe_files, read_manifest

    folder = workspace.folder("images")
    known = read_manifest(folder)
    assert describe_files(folder, {}).keys() == known.files.keys()


def checks(stage: str) -> Callable[[Params, Workspace], None]:
    def judge_all(params: Params, workspace: Workspace) -> None:
        from ml.quality.rules import bounds
        from ml.quality.tables import TABLES
        from orchestration.expectations import judge

        results = judge(stage, TABLES[stage](params, workspace), bounds(stage, params))
        print(*(f"{r.name}: {r.says}" for r in results if not r.passed), sep="\n", file=sys.stderr)

    return judge_all


def training_samples(params: Params, workspace: Workspace) -> None:
    """What `grounding_model` reads: picture, masks, latent and heat maps of each."""
    from ml.pipeline.samples import load_samples

    for sample in load_samples(workspace, ["train", "validation"]):
        assert sample.image.shape[:2] == sample.masks.shape[1:]
        assert sample.latent.any() and len(sample.daam) == len(sample.words)


def thresholds(params: Params, workspace: Workspace) -> None:
    """DAAM's threshold, as `grounding_scores` chooses it."""
    from ml.baselines.daam import best_threshold, candidate_thresholds
    from ml.pipeline.samples import load_samples

    samples = load_samples(workspace, ["train", "validation"])
    best_threshold(samples, (s.daam for s in samples), candidate_thresholds(5))


def segmenter_pictures(params: Params, workspace: Workspace) -> None:
    """What `segmenter` reads: stored once, then each picture and label map decoded."""
    from ml.pipeline.stages.segmenter import accepted_rows
    from ml.segmenters.pictures import open_encoded, store_encoded
    from ml.store.shards import iter_shards, with_keys

    wanted = set(accepted_rows(workspace).key)
    frames = iter_shards(workspace.folder("synthetic_dataset"), ["key", "image", "label"])
    with TemporaryDirectory(dir=workspace.root) as folder:
        file = Path(folder) / "pictures.arrow"
        store_encoded(file, (with_keys(frame, wanted) for frame in frames))
        images, labels = open_encoded(file)
        for place in range(len(images)):
            assert images[place].shape[:2] == labels[place].shape


def sheets(params: Params, workspace: Workspace) -> None:
    """Facts and contact sheets, with which the stages `images` and `synthetic_dataset` end."""
    from ml.pipeline.stages import images, synthetic_dataset
    from ml.words.vocabulary import load_vocabulary

    for name in ("images", "synthetic_dataset"):
        with TemporaryDirectory(dir=workspace.root) as folder:
            for path in shard_files(workspace.folder(name)):
                (Path(folder) / path.name).symlink_to(path.absolute())
            if name == "images":
                images._facts(Path(folder))
                images._contact_sheet(Path(folder))
            else:
                synthetic_dataset.facts_of(Path(folder), load_vocabulary(params.vocabulary))
                synthetic_dataset._sheet(Path(folder))


def audit_sheet(params: Params, workspace: Workspace) -> None:
    """Of the report, what depends on the number of samples."""
    from ml.pipeline.audit_sheet import audit_items
    from ml.words.vocabulary import load_vocabulary

    assert len(audit_items(workspace, load_vocabulary(params.vocabulary), params.seed)) == 100


CHECKED = ("prompts", "images", "masks", "triplets", "synthetic_dataset")
# Each with the bytes of memory that a further sample may take, for facts that are held as a table.
OPERATIONS: dict[str, tuple[Callable[[Params, Workspace], None], int]] = {
    "stage prompts": (prompts, 6000),
    "manifest": (manifest, 0),
    "stage triplets": (triplets, 6000),
    **{f"checks of {name}": (checks(name), 8000) for name in CHECKED},
    "training samples": (training_samples, 6000),
    "DAAM's threshold": (thresholds, 3000),
    "segmenter's pictures": (segmenter_pictures, 1500),
    "facts and sheets": (sheets, 1500),
    "audit sheet": (audit_sheet, 1500),
}


def measure(name: str, root: Path, count: int) -> dict[str, float]:
    """Processor seconds and the peak of the memory that cannot be given back, MB."""
    params = params_of(count)
    workspace, run = Workspace(root, params.profile), OPERATIONS[name][0]
    with watched_peak(0.01) as peak:
        started = time.process_time()
        run(params, workspace)
        seconds = time.process_time() - started
    return {"seconds": seconds, "mb": peak.mb}


def verdict(name: str, small: int, large: int, found: dict[int, dict[str, float]]) -> str:
    """What is wrong with the growth from one size to a larger one; "" for nothing."""
    a, b, times = found[small], found[large], large / small
    more = (b["mb"] - a["mb"]) * 2**20 / (large - small)
    wrong = []
    if b["seconds"] > max(LINEAR / 10 * times * a["seconds"], SHORT):
        wrong.append(f"time {b['seconds'] / a['seconds']:.1f}x for {times:g}x the samples")
    if b["mb"] > FLAT * a["mb"] and more > OPERATIONS[name][1]:
        wrong.append(f"{more:,.0f} bytes a sample, expected {OPERATIONS[name][1]:,} at most")
    return "; ".join(wrong)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=folder, default=Path(".scratch/scale"))
    counts = number(int, 1000, 10_000_000)
    parser.add_argument("--counts", type=counts, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--only", choices=list(OPERATIONS), nargs="+", default=list(OPERATIONS))
    parser.add_argument("--measure", choices=list(OPERATIONS), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        print(json.dumps(measure(chosen.measure, chosen.folder, chosen.counts[0])))
        return 0
    sizes = sorted(chosen.counts)
    roots = {count: chosen.folder.absolute() / str(count) for count in sizes}
    for count in sizes:
        make(roots[count], count)
    print(f"{'':28}" + "".join(f"{count:>18,}" for count in sizes) + "   last step")
    failed = 0
    for name in chosen.only:
        found = {count: apart("scale", name, roots[count], count, "samples") for count in sizes}
        cells = "".join(f"{f['seconds']:9.1f} s {f['mb']:4.0f} MB" for f in found.values())
        steps = [verdict(name, *pair, found) for pair in itertools.pairwise(sizes)]
        growth = ""
        if len(sizes) > 1:
            a, b = found[sizes[-2]], found[sizes[-1]]
            growth = f"{b['seconds'] / a['seconds']:5.1f}x time {b['mb'] / a['mb']:4.2f}x memory"
        print(f"{name:28}{cells}   {growth} {'; '.join(filter(None, steps))}", flush=True)
        failed += any(steps)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(exit_path(main)())
