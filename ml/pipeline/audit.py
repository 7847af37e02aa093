"""The audit sheet: synthetic pictures that a person ticks, and the precision that follows from it.

The only judgement of a set that nobody labelled. Here: which pictures, the saved ticks, precision
and intervals. Not here: the page (stage `report`), the command (`ml.cli.audit`).
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ml.pipeline.marks import RIGHT, VERDICTS
from ml.pipeline.workspace import Workspace
from ml.store.manifest import read_manifest
from ml.store.reading import read_text
from ml.store.shards import read_shards

STAGE = "synthetic_dataset"
ITEMS = 100
Z = 1.959964  # of a two-sided 95 % interval


def choose_items(
    entities: Sequence[Sequence[str]], classes: Sequence[str], count: int, seed: int
) -> list[tuple[int, str]]:
    """At most `count` pairs (picture, class) to tick, no picture twice, balanced over the classes.

    entities: the classes of each picture. The classes take turns; each turn takes a random unused
    picture of its class, until the count is reached or no picture is left.
    """
    rng = np.random.default_rng([seed, 100])
    piles = {
        name: [
            int(i) for i in rng.permutation([i for i, own in enumerate(entities) if name in own])
        ]
        for name in classes
    }
    chosen: list[tuple[int, str]] = []
    taken: set[int] = set()
    while len(chosen) < count and any(piles.values()):
        for name in classes:
            piles[name] = [i for i in piles[name] if i not in taken]
            if piles[name] and len(chosen) < count:
                taken.add(piles[name][0])
                chosen.append((piles[name][0], name))
    return chosen


def wilson(right: int, judged: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, (low, high) in 0..1; (0, 1) when nothing was judged."""
    if not judged:
        return 0.0, 1.0
    share = right / judged
    middle = share + Z**2 / (2 * judged)
    half = Z * (share * (1 - share) / judged + Z**2 / (4 * judged**2)) ** 0.5
    scale = 1 + Z**2 / judged
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def precision(ticks: Sequence[dict]) -> list[dict]:
    """Per class and, last, over all: the verdicts' counts, precision and interval in percent.

    ticks: {"entity", "verdict"} each; pictures that were not ticked are left out.
    """
    rows = []
    by_class = {
        name: [tick for tick in ticks if tick["entity"] == name]
        for name in sorted({tick["entity"] for tick in ticks})
    }
    for name, own in [*by_class.items(), ("all", ticks)]:  # "all" may be a class, too
        counts = Counter(tick["verdict"] for tick in own)
        judged = sum(counts.values())
        low, high = wilson(counts[RIGHT], judged)
        rows.append(
            {
                "class": name,
                "judged": judged,
                **{v: counts[v] for v in VERDICTS},
                "precision": 100 * counts[RIGHT] / judged,
                "low": 100 * low,
                "high": 100 * high,
            }
        )
    return rows


def read_ticks(path: Path, workspace: Workspace) -> list[dict]:
    """The ticks of a saved sheet. Raises ValueError for a file that is not a saved sheet, holds no
    tick, or belongs to another synthetic set than the profile has now."""
    if not path.is_file():
        raise ValueError(
            f"no file {path}; open {workspace.folder('report') / 'audit.html'} in a "
            "browser, tick, and save"
        )
    try:
        saved = json.loads(read_text(path))
        ticks, digest = list(saved["ticks"]), saved["synthetic_dataset"]
        pairs = [(tick["key"], tick["entity"], tick["verdict"]) for tick in ticks]
        if odd := [pair for pair in pairs if not all(isinstance(part, str) for part in pair)]:
            raise ValueError(f"expected texts, got {odd[0]!r:.80}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path} is no saved audit sheet ({type(error).__name__}: {error}); "
            "save it with the sheet's button"
        ) from error
    now = read_manifest(workspace.folder(STAGE), verify=False).digest
    if digest != now:
        raise ValueError(
            f"{path} is about the synthetic set {str(digest)[:12]}, profile "
            f"{workspace.profile!r} holds {now[:12]}: tick the sheet of its report"
        )
    if not pairs:
        raise ValueError(f"{path} holds no tick; judge some pictures before saving")
    rows = read_shards(workspace.folder(STAGE), ["key", "entities"])
    named = {
        (key, name) for key, names in zip(rows.key, rows.entities, strict=True) for name in names
    }
    for key, entity, verdict in pairs:
        if verdict not in VERDICTS or (key, entity) not in named:
            raise ValueError(
                f"{path}: picture {key!r}, class {entity!r}, verdict {verdict!r}: "
                f"expected one of the set's pictures and one of {VERDICTS}"
            )
    if len({pair[:2] for pair in pairs}) < len(pairs):
        raise ValueError(f"{path}: a picture is judged twice; save the sheet again")
    return ticks
