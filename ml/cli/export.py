"""`python -m ml export --profile pets --format coco`: a labelled set in another tool's format.

Writes the accepted pictures of the finished synthetic set, or (--pictures) a folder of photographs
that a model of the profile labels, with a card. The folder appears whole or not at all; where this
very export stands already, nothing is done. docs/export.md has two lines for each format that read
it.
"""

import argparse
import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml.arguments import add_profile, add_workspace, folder, make_parser, number
from ml.cli.exporting.labellers import LABELLERS
from ml.errors import shown
from ml.exports import FORMATS
from ml.exports.splits import DEFAULT, read_split
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.settings.profile import load_params
from ml.store.files import remove, sha256_json
from ml.store.locks import FolderLock
from ml.store.places import is_remote
from ml.store.stage_places import lock_of

if TYPE_CHECKING:  # loaded where it is used: --help needs none of it
    from ml.exports.exporting import Order


GROUNDING = "grounding"
"""Who labels photographs where nobody is named."""


def main(arguments: list[str]) -> int:
    """Writes the export, prints what is in it, and returns the exit code."""
    parser = make_parser("python -m ml export", __doc__)
    parser.add_argument("--format", required=True, choices=list(FORMATS))
    add_profile(parser)
    add_workspace(parser)
    parser.add_argument("--out", type=folder, help="by default data/<profile>/exports/<format>")
    parser.add_argument("--split", default=DEFAULT, help=f"shares by name (default {DEFAULT})")
    parser.add_argument("--seed", type=number(int, 0, 2**32 - 1), default=0, help="of the split")
    parser.add_argument(
        "--pictures",
        type=Path,
        help="label these photographs instead",
    )
    parser.add_argument(
        "--with", dest="by", choices=list(LABELLERS), help="who labels them (default grounding)"
    )
    parser.add_argument(
        "--min-presence", type=number(float, 0, 10**6), help="grounding: words below are absent"
    )
    chosen = parser.parse_args(arguments)
    refuse_without_effect(chosen)
    from ml.exports.exporting import Order
    from ml.pipeline.audit import STAGE

    params = load_params(chosen.profile)
    workspace = Workspace(chosen.root, params.profile)
    shares = read_split(chosen.split, chosen.format)
    order = Order(chosen.format, shares, chosen.seed, params.triplets.duplicate_bits)
    out = chosen.out or _usual_place(workspace, chosen)
    if chosen.pictures is not None and out.resolve().is_relative_to(chosen.pictures.resolve()):
        raise ValueError(
            f"--out {out} lies in the folder of the photographs, {chosen.pictures}: expected a "
            "place outside, since the same command knows its export by these photographs; choose "
            "another --out"
        )
    with ExitStack() as locks:
        if not is_remote(workspace.data) and os.access(workspace.data, os.W_OK):
            own = FolderLock(workspace.data, f"export-{sha256_json(str(out.resolve()))[:12]}")
            locks.enter_context(own).write()
        if workspace.data.exists():
            source = STAGE if chosen.pictures is None else LABELLERS[chosen.by or GROUNDING].stage
            locks.enter_context(lock_of(workspace.data, source)).read()
        if chosen.pictures is None:
            facts, done = _synthetic(params, workspace, out, order)
        else:
            facts, done = _photographs(params, workspace, out, order, chosen)
    _say(out, facts, done)
    return 0


def refuse_without_effect(chosen: argparse.Namespace) -> None:
    """Raises ValueError for options that would be passed over."""
    given = {"--with": chosen.by, "--min-presence": chosen.min_presence}
    option = next((name for name, value in given.items() if value is not None), None)
    if chosen.pictures is None and option:
        raise ValueError(
            f"{option} is about photographs that are to be labelled, and the synthetic set has its "
            f"labels: expected --pictures FOLDER beside it, got none. Name one, or leave {option} "
            "out"
        )
    if chosen.min_presence is not None and chosen.by not in (None, GROUNDING):
        raise ValueError(
            f"--min-presence: only --with {GROUNDING} asks which words are present, got --with "
            f"{chosen.by}, which labels every pixel: leave --min-presence out"
        )


def _usual_place(workspace: Workspace, chosen: argparse.Namespace) -> Path:
    if is_remote(workspace.data):
        raise ValueError("--out: expected a local folder, since --root is an address; name one")
    source = "" if chosen.pictures is None else f"{chosen.pictures.resolve().name}-"
    return workspace.data / "exports" / f"{source}{chosen.format}"


def _synthetic(
    params: Params, workspace: Workspace, out: Path, order: "Order"
) -> tuple[dict[str, Any], bool]:
    """The facts of the export, and whether it stood there already."""
    from ml.cli.exporting.synthetic import synthetic_about
    from ml.exports.exporting import standing, write_export
    from ml.pipeline.audit import STAGE

    about = synthetic_about(params, workspace)
    if (facts := standing(out, about, order)) is not None:
        return facts, True
    return write_export(out, workspace.folder(STAGE), about, order), False


def _photographs(
    params: Params, workspace: Workspace, out: Path, order: "Order", chosen: argparse.Namespace
) -> tuple[dict[str, Any], bool]:
    """As `_synthetic`. What is labelled before a stop is kept beside `out`, and gone on from."""
    from ml.cli.exporting.photographs import photographs
    from ml.exports.exporting import standing, write_export
    from ml.grounding.presence import MIN_PRESENCE

    least = MIN_PRESENCE if chosen.min_presence is None else chosen.min_presence
    photos = photographs(chosen.pictures, params, workspace, chosen.by or GROUNDING, least)
    if (facts := standing(out, photos.about, order)) is not None:
        return facts, True
    kept = out.with_name(f".{out.name}.{photos.about.digest[:12]}")
    labels = kept / "labels"  # the progress bar says so
    photos.label(labels)
    facts = write_export(out, labels, photos.about, order)
    remove(kept)
    return facts, False


def _say(out: Path, facts: dict[str, Any], done: bool) -> None:
    from ml.exports.card import MEASURED, number_text

    counts = ", ".join(f"{name} {count}" for name, count in facts["pictures"].items())
    print(shown(f"{out}: {'up to date' if done else 'written'}; pictures: {counts}"))
    print(f"near copies, kept on one side: {facts['near_copies']}")
    for name, value in facts["measured"].items():
        print(f"{MEASURED[name]}: {number_text(value)}")
    print(shown(f"how to read it, known faults, licences: {out / 'README.md'}"))
