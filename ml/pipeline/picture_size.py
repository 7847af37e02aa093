"""How large the pictures of a diffusion model are, read from its folder without loading it."""

from pathlib import Path

from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.reading import read_object

FLUX_SIDE = 128
"""Of FLUX's latents, which its configuration does not name (`ml.diffusion.backbones.flux`)."""


def picture_side(params: Params, workspace: Workspace) -> int | None:
    """Side in pixels of the diffusion model's pictures; None for a hub id that is not on disk."""
    folder = Path(workspace.model(params.diffusion.model))
    parts = [folder / part / "config.json" for part in ("unet", "transformer")]
    config = next((file for file in parts if file.is_file()), None)
    if config is None:
        return None
    side = read_object(config).get("sample_size", FLUX_SIDE)
    side = side if isinstance(side, int) else side[0]  # square: ml.diffusion.fields
    vae = read_object(folder / "vae" / "config.json")
    scaled: int = side * 2 ** (len(vae["block_out_channels"]) - 1)
    return scaled
