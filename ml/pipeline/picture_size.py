"""How large the pictures of a diffusion model are, read from its folder without loading it."""

import json
from pathlib import Path

from ml.pipeline.workspace import Workspace
from ml.settings.params import Params


def picture_side(params: Params, workspace: Workspace) -> int | None:
    """Side in pixels of the diffusion model's pictures; None for a hub id that is not on disk."""
    folder = Path(workspace.model(params.diffusion.model))
    if not (folder / "unet" / "config.json").is_file():
        return None
    unet = json.loads((folder / "unet" / "config.json").read_text())
    vae = json.loads((folder / "vae" / "config.json").read_text())
    side = unet["sample_size"]
    side = side if isinstance(side, int) else side[0]  # square: ml.diffusion.fields
    return side * 2 ** (len(vae["block_out_channels"]) - 1)
