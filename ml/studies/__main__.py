"""`python -m ml.studies`: every study, or one, and the page. See `ml.studies`.

What is finished is found and skipped, what was stopped goes on: run the same command again.
"""

import argparse
import sys
import time
from typing import TYPE_CHECKING

from ml.arguments import add_root, number
from ml.errors import EXIT_CODES, exit_path
from ml.studies.catalogue import ABOUT, STUDIES, command, make_row, make_study, study

if TYPE_CHECKING:
    from ml.studies.study_run import StudyRun


@exit_path
def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    chosen = parser.parse_args(arguments)
    names = chosen.study or list(STUDIES)
    _check(chosen)
    from ml.studies.study_run import open_run

    run = open_run("quick" if chosen.quick else "full", chosen.root, chosen.workers)
    if chosen.published:
        from ml.studies.published import take_over

        print(f"{len(take_over(run))} published tables taken over")
    if chosen.row is not None:
        _print_row(run, names[0], chosen.row)
        return 0
    started = time.perf_counter()
    for name in [] if chosen.page_only else names:
        print(f"{name}: {ABOUT[name]}", flush=True)
        _make(run, name)
    _write_pages(run, chosen.export)
    print(f"all of it: {(time.perf_counter() - started) / 60:.1f} min")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ml.studies",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(
            [*(f"  {name:<15} {about}" for name, about in ABOUT.items()), "", EXIT_CODES]
        ),
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="every study cut down: shows that it works; data/paper-quick",
    )
    parser.add_argument(
        "--study",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="only these, in the order given (all: see below)",
    )
    parser.add_argument(
        "--row",
        metavar="LABEL",
        help="with one --study: make what that row needs and print its figures",
    )
    add_root(parser, "folder that holds data/ and docs/")
    parser.add_argument(
        "--workers",
        type=number(int, 1, 1024),
        help="processes; one a core by default, without the extra [ray] one",
    )
    parser.add_argument(
        "--page-only", action="store_true", help="only write the pages of what is finished"
    )
    parser.add_argument(
        "--published",
        action="store_true",
        help="first take over the published raw rows (docs/paper/raw) that are not made here and "
        "have the present settings: a study then makes what is left",
    )
    parser.add_argument(
        "--export",
        action="store_true",
        help="write docs/paper/ although some studies are not finished; a full run "
        "of all does it anyway",
    )
    return parser


def _check(chosen: argparse.Namespace) -> None:
    """Raises ValueError for names and combinations that can't work, before any work."""
    for name in chosen.study or []:
        if name not in ABOUT:
            study(name)  # raises with the names there are
    if chosen.row is not None and (len(chosen.study or []) != 1 or chosen.page_only):
        raise ValueError("--row needs exactly one --study that it is a row of, and no --page-only")
    if chosen.export and chosen.quick:
        raise ValueError("--export publishes the full size; expected it without --quick")
    if chosen.published and chosen.quick:
        raise ValueError("--published is of the full size; expected it without --quick")


def _make(run: "StudyRun", name: str) -> None:
    """Notes on an error which study failed and what goes on from there."""
    try:
        _, minutes = make_study(run, name)
    except Exception as error:
        error.add_note(f"in study {name}; what is finished is kept, {command(run, name)} goes on")
        raise
    print(f"{name}: finished in {minutes:.1f} min", flush=True)


def _print_row(run: "StudyRun", name: str, label: str) -> None:
    from ml.studies.markdown import plain_rows

    for table in make_row(run, name, label):
        print("\n".join(plain_rows(table)))


def _write_pages(run: "StudyRun", everything: bool) -> None:
    from ml.studies.export import export
    from ml.studies.page import publish

    pages = publish(run)
    size = pages.html.stat().st_size / 1e6
    print(f"pages: {pages.markdown}, {pages.html} ({size:.1f} MB)")
    if everything:
        print(f"export: {export(run)}")
    print(f"one study: {command(run)} --study NAME")


if __name__ == "__main__":
    sys.exit(main())
