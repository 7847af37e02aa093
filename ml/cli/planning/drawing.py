"""The shape of a text-to-image model, from its own config files or from the table."""

from ml.cli.planning.known_models import DRAWINGS, Drawing
from ml.cli.planning.models import Found
from ml.cli.planning.weight_files import count_parameters, weight_files
from ml.store.reading import configured, read_object


def drawing_of(found: Found) -> Drawing | None:
    """The shape of the diffusion model: from its own config files, else from the table."""
    if found.folder is None:
        return DRAWINGS.get(found.name)
    import torch
    from diffusers import UNet2DConditionModel

    from ml.diffusion.features import feature_channels

    def config(part: str) -> dict:
        return read_object(found.folder / part / "config.json")

    unet, vae = config("unet"), config("vae")
    with configured(str(found.folder / "unet")), torch.device("meta"):  # without its weights
        features = feature_channels(UNet2DConditionModel.from_config(unet))
    encoders = [
        part
        for part in ("text_encoder", "text_encoder_2")
        if (found.folder / part / "config.json").is_file()
    ]
    widths = vae["block_out_channels"]
    side = unet["sample_size"] if isinstance(unet["sample_size"], int) else unet["sample_size"][0]
    weights = {
        part: sum(
            map(
                count_parameters,
                weight_files(found.folder / part)
                or sorted((found.folder / part).glob("*.safetensors"))[:1],
            )
        )
        for part in ("unet", "vae", *encoders)
    }
    return Drawing(
        side * 2 ** (len(widths) - 1),
        (unet["in_channels"], side, side),
        weights,
        features,
        sum(config(part)["hidden_size"] for part in encoders),
        widths[min(1, len(widths) - 1)],
        "text_encoder_2" in encoders,
    )
