"""The diffusion model that a finished stage was made with, whatever its profile says by now.

A profile may be edited between a training and its promotion. What goes into the registry is what
was trained and scored.
"""

import dataclasses

from ml.pipeline.picture_size import picture_side
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params, neutral
from ml.store.manifest import read_manifest

DREW = {"grounding": "grounding_model", "segmenter": "synthetic_dataset"}
"""The stage whose diffusion model drew the pictures that a model is for."""


def as_made(stage: str, params: Params, workspace: Workspace) -> Params | None:
    """The settings with `diffusion` as a stage's manifest has it; None when another model, or none,
    lies in that place now."""
    made = read_manifest(workspace.folder(stage), verify=False)
    own = vars(params.diffusion) | neutral("diffusion") | made.params["diffusion"]
    diffusion = dataclasses.replace(params.diffusion, **own)
    found = dataclasses.replace(params, diffusion=diffusion)
    same = workspace.digest(found, "diffusion.model") == made.inputs["diffusion.model"]
    return found if same else None


def side_of(made: Params | None, workspace: Workspace) -> int:
    """Side in pixels of the pictures of a diffusion model from `as_made`; -1, which is any, where
    it is a hub id or gone."""
    return (made and picture_side(made, workspace)) or -1
