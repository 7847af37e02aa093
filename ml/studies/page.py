"""The studies' answers as `docs/results.md` and one self-contained HTML page.

Made from the blocks that finished studies left (`saved`); a study that is not finished is shown
with its command. The full size writes below `docs/`, any other one below its own data folder, so
that a quick run never replaces the published figures. No figure is computed here.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from ml.images.png import jpeg_uri
from ml.store.files import atomic
from ml.studies import markdown, prompt_sets
from ml.studies.blocks import Block, Picture, Plot, Table, Text
from ml.studies.catalogue import ABOUT, STUDIES, command
from ml.studies.export import export
from ml.studies.plots import draw_svg
from ml.studies.published import picture_file, read
from ml.studies.saved import Saved, load
from ml.studies.study_run import StudyRun
from ml.words.markdown import escape as plain

TITLE = "The paper's questions, answered at micro size"
READING = (
    "Each figure is the mean over splits and seeds ± the standard deviation over seeds, and in "
    "brackets the 95 % bootstrap interval over pictures and seeds; percent, unless a table says "
    "otherwise. Three trainings are few for a bootstrap: where they differ most, such intervals "
    "hold the true mean in about 76 of 100 cases for one split and 86 for three (simulated: "
    "python -m benchmarks.coverage). A method without training has no seed and no ±. Below ours "
    "stands the figure of the paper (arXiv 2301.05221): Stable Diffusion and photographs there, "
    "the drawn micro world here, so compare the order of the rows and the gaps, not the heights."
)
OLDER = (
    "These figures were published with other settings or weights than the present ones; the "
    "command makes them anew."
)


@dataclass(frozen=True)
class Place:
    """Where the pages of a run go."""

    markdown: Path
    html: Path
    images: Path  # a folder that nothing else is in


def place(run: StudyRun) -> Place:
    full = run.size.name == "full"
    folder = Path(run.root) / "docs" if full else run.folder
    return Place(
        folder / "results.md",
        folder / "results.html",
        folder / "images" / "paper" if full else folder / "images",
    )


def publish(run: StudyRun) -> Place:
    """Writes both pages from what is finished, and, of a whole full-size run, the export.

    A study that is published and was not made in this run is shown as it is published.
    """
    own = place(run)
    made = {name: load(run, name) for name in STUDIES}
    found = {
        name: saved or (read(run, name, own.images) if run.size.name == "full" else None)
        for name, saved in made.items()
    }
    pictures: dict[str, bytes] = {}
    text = render_markdown(run, found, pictures, own.images.relative_to(own.markdown.parent))
    with atomic(own.images, also="*-[0-9]*.*") as temporary:
        temporary.mkdir()
        for name, data in pictures.items():
            (temporary / name).write_bytes(data)
    if not pictures:
        shutil.rmtree(own.images)
    for path, page in ((own.markdown, text), (own.html, render_html(run, found))):
        with atomic(path) as temporary:
            temporary.write_text(page)
    if run.size.name == "full" and all(made.values()):
        export(run)
    return own


def facts(run: StudyRun) -> list[tuple[str, str]]:
    """What was run, as pairs for the head of the page."""
    size, params = run.size, run.params
    judged = prompt_sets.combinations_of(
        size.sim_one, size.sim_pair, size.sim_unseen_pair, params.seed
    )
    real, own = prompt_sets.drawn_classes(size, params.seed), params.grounding
    return [
        ("size", f"{size.name} (`{command(run)}`)"),
        ("seeds", f"{size.seeds} trainings of every row"),
        ("splits", ", ".join(size.splits)),
        (
            "pictures generated to train on",
            f"{size.train_one} of one object, {size.train_two} of two, over all 20 classes; a "
            "split trains on those of its seen classes",
        ),
        ("pictures judged", f"{len(judged)} generated, {len(real)} drawn with exact truth"),
        (
            "denoising",
            f"{params.diffusion.steps} steps, guidance {params.diffusion.guidance_scale:g}",
        ),
        (
            "training of a grounding module",
            f"{own.steps} steps of {own.batch_size} pictures at most, judged on validation "
            f"pictures every {own.evaluate_every}, stopped after {own.patience} without gain; "
            f"{own.precision}, or float32 on a CPU without it",
        ),
        (
            "training of a segmenter",
            f"{params.segmenter.steps} steps of "
            f"{params.segmenter.batch_size} pictures; {params.segmenter.precision}",
        ),
    ]


def render_markdown(
    run: StudyRun, found: dict[str, Saved | None], pictures: dict[str, bytes], images: Path
) -> str:
    """The page for GitHub. pictures: gets file name -> bytes of what it refers to below images."""
    out = [
        f"# {TITLE}",
        f"<!-- Written by `{command(run)}`: do not edit. -->",
        markdown.prose(READING),
        "\n".join(f"- **{name}**: {markdown.prose(fact)}" for name, fact in facts(run)),
        "\n".join(
            f"{i}. [{plain(_title(name, saved))}](#{name})"
            for i, (name, saved) in enumerate(found.items(), start=1)
        ),
    ]
    for i, (name, saved) in enumerate(found.items(), start=1):
        out.append(f'<a id="{name}"></a>')
        if saved is None:
            out += [
                f"## {i}. {plain(_title(name, saved))}",
                f"Not run yet with these settings: `{command(run, name)}`",
            ]
            continue
        out += [
            f"## {i}. {plain(saved.title)}",
            markdown.prose(saved.question),
            f"`{command(run, name)}`",
            OLDER if saved.older else "",
        ]
        for j, block in enumerate(saved.blocks, start=1):
            out.append(_markdown(run, name, block, f"{name}-{j}", pictures, images))
    return "\n\n".join(part for part in out if part) + "\n"


def _markdown(
    run: StudyRun, name: str, block: Block, stem: str, pictures: dict[str, bytes], images: Path
) -> str:
    match block:
        case Text():
            return markdown.prose(block.text)
        case Table():
            return "\n\n".join(
                part
                for part in (
                    f"**{plain(block.title)}**",
                    markdown.table(block),
                    markdown.prose(block.note),
                    f'One row: `{command(run, name)} --row "<label>"`' if block.rows else "",
                )
                if part
            )
        case Plot():
            caption, file, data = block.title, f"{stem}.svg", draw_svg(block).encode()
        case Picture():
            caption, file, data = block.caption, picture_file(stem), block.jpeg
    pictures[file] = data
    shown = plain(caption)
    return f"![{shown}]({(images / file).as_posix()})\n\n*{shown}*"


def render_html(run: StudyRun, found: dict[str, Saved | None]) -> str:
    """The page as one file: plots are drawn into it, pictures are data URIs."""
    sections = [
        {
            "name": name,
            "command": command(run, name),
            "finished": saved is not None,
            "older": OLDER if saved and saved.older else "",
            "title": _title(name, saved),
            "question": _prose(saved.question) if saved else "",
            "blocks": [
                _html(run, name, block, f"{name}-{j}")
                for j, block in enumerate(saved.blocks, start=1)
            ]
            if saved
            else [],
        }
        for name, saved in found.items()
    ]
    text = (Path(__file__).parent / "page.html.j2").read_text()
    template = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(text)
    return template.render(
        title=TITLE,
        reading=READING,
        sections=sections,
        size=run.size.name,
        facts=[(key, _prose(fact)) for key, fact in facts(run)],
    )


def _html(run: StudyRun, name: str, block: Block, stem: str) -> dict:
    match block:
        case Text():
            return {"kind": "text", "text": _prose(block.text)}
        case Table():
            rows = [
                {
                    "label": row.label,
                    "command": command(run, name, row.label),
                    "cells": [
                        markdown.parts(row.cells.get(column), block.digits(column))
                        for column in block.columns
                    ],
                }
                for row in block.rows
            ]
            return {
                "kind": "table",
                "title": block.title,
                "note": _prose(block.note),
                "headings": list(block.columns.values()),
                "rows": rows,
            }
        case Plot():
            return {"kind": "plot", "caption": block.title, "svg": Markup(draw_svg(block, stem))}
        case Picture():
            return {"kind": "picture", "caption": block.caption, "uri": jpeg_uri(block.jpeg)}


def _title(name: str, saved: Saved | None) -> str:
    return saved.title if saved else ABOUT[name].rstrip(".")


def _prose(text: str) -> Markup:
    return Markup(
        markdown.mixed(
            text, lambda part: str(escape(part)), lambda code: f"<code>{escape(code)}</code>"
        )
    )
