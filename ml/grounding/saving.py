"""Folders that hold a grounding module and its diffusion model, written.

Not here: what the folders are and how they are opened (`opening.py`).
"""

from dataclasses import asdict, fields
from pathlib import Path

from ml.diffusion.backbones.kinds import backbone_of
from ml.diffusion.pipeline import Pipeline
from ml.diffusion.saving import QUANTISE, refuse_to_copy
from ml.grounding.learned import save_queries
from ml.grounding.opening import OF_SOME, REFERENCE, Opened, Reference
from ml.store.files import atomic, write_json


def save_model(
    folder: Path,
    model: Opened,
    diffusion: str | None = None,
    revision: str | None = None,
    variant: str | None = None,
) -> None:
    """Writes a folder that `open_model` opens. `pipeline.json` goes first and comes last, so that
    what a stopped save leaves of two models is never opened as one.

    diffusion, revision, variant: what is written down instead of a copy of the diffusion model.
    Raises ValueError, before anything is written, for a folder that could not be opened.
    """
    _refuse_unopenable(model.pipe, diffusion, revision, variant)
    if diffusion is None:
        refuse_to_copy(model.pipe)
        _copy(model.pipe, folder)
    (folder / REFERENCE).unlink(missing_ok=True)
    model.module.save_pretrained(folder / "grounding")
    if model.queries:
        save_queries(folder, model.queries)
    reference = Reference(
        diffusion=diffusion or "diffusion",
        revision=revision,
        variant=variant,
        scheduler=type(model.pipe.scheduler).__name__,
        dtype=str(model.pipe.dtype).removeprefix("torch."),
        batch_size=model.batch_size,
        steps=model.steps,
        guidance_scale=model.guidance_scale,
        quantise=getattr(model.pipe, QUANTISE, None),
        **{name: getattr(model.pipe, name, None) for name in backbone_of(model.pipe).settings},
        taught=sorted(model.queries),
    )
    own = {name: value for name, value in asdict(reference).items() if value is not None}
    kept = {field.name: None for field in fields(Reference) if field.name not in OF_SOME}
    write_json(folder / REFERENCE, kept | own)


def _copy(pipe: Pipeline, folder: Path) -> None:
    """The diffusion model's files. What fails before they are whole leaves an older folder as it
    was: they are most of what is written."""
    file = folder / REFERENCE
    before = file.read_text() if file.is_file() else None
    try:
        with atomic(folder / "diffusion") as temporary:
            pipe.save_pretrained(temporary, safe_serialization=True)
            file.unlink(missing_ok=True)
    except ValueError:  # somebody's own files lie there: nothing was replaced
        if before is not None:
            with atomic(file) as temporary:
                temporary.write_text(before)
        raise


def _refuse_unopenable(
    pipe: Pipeline, diffusion: str | None, revision: str | None, variant: str | None
) -> None:
    given = {"revision": revision, "variant": variant}
    alone = [f"{name}={value!r}" for name, value in given.items() if value is not None]
    if diffusion is None and alone:
        raise ValueError(
            "save_pretrained: expected revision and variant together with the hub id that they are "
            f"of, got {', '.join(alone)} alone; add diffusion=that id, or leave them out"
        )
    name = type(pipe.scheduler).__name__
    try:
        backbone_of(pipe).process.check_name(name)
    except ValueError as error:
        raise ValueError(
            f"save_pretrained: a folder that draws with {name} is not opened; give `pipe.pipe` "
            f"another scheduler first ({error})"
        ) from error
