"""Folders that are sound in themselves and do not belong where they stand."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.poisons.copies import replace_folder
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.manifest import read_manifest, write_manifest


@dataclass(frozen=True)
class Mixup:
    """A workspace changed beyond one stage's rows."""

    name: str
    stage: str  # whose folder is another one
    next: str  # the stage that must not start
    change: Callable[[Workspace, Params, Workspace], Params]
    """(the copy, its settings, another finished workspace) -> the settings to go on with"""


def older_recipe(workspace: Workspace, params: Params, other: Workspace) -> Params:
    """The manifest of `images` says that they were made from prompts that are gone."""
    folder = workspace.folder("images")
    made = read_manifest(folder)
    Path(folder / "manifest.json").unlink()  # a hard link
    write_manifest(folder, dataclasses.replace(made, inputs=made.inputs | {"prompts": "0" * 64}))
    return params


def brought(stage: str, honest: bool) -> Callable[[Workspace, Params, Workspace], Params]:
    """The folder is another profile's; honest: its manifest says it was made here."""

    def change(workspace: Workspace, params: Params, other: Workspace) -> Params:
        own = read_manifest(workspace.folder(stage))
        replace_folder(other.folder(stage), workspace.folder(stage))
        if honest:
            made = read_manifest(workspace.folder(stage))
            Path(workspace.folder(stage) / "manifest.json").unlink()
            write_manifest(
                workspace.folder(stage),
                dataclasses.replace(own, files=made.files, facts=made.facts),
            )
        return params

    return change


def another_vocabulary(workspace: Workspace, params: Params, other: Workspace) -> Params:
    """Other classes are seen from here on."""
    return dataclasses.replace(params, vocabulary="voc-2")


NEXT = {"images": "masks", "masks": "triplets", "triplets": "grounding_model",
        "synthetic_dataset": "segmenter"}  # fmt: skip
MIXUPS = (
    Mixup("manifest of an older recipe", "images", "masks", older_recipe),
    Mixup("another split of the vocabulary", "images", "masks", another_vocabulary),
    Mixup("another split of the vocabulary", "synthetic_dataset", "segmenter", another_vocabulary),
    *(Mixup("another run's folder", s, then, brought(s, False)) for s, then in NEXT.items()),
    *(
        Mixup("another run's folder, as if made here", s, then, brought(s, True))
        for s, then in NEXT.items()
    ),
)
