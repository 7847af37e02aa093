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

    from ml.diffusion.backbones.kinds import KINDS
    from ml.diffusion.configurations import parts_in
    from ml.diffusion.features import feature_channels

    index = read_object(found.folder / "model_index.json")
    kind = KINDS[index["_class_name"]]

    def config(part: str) -> dict:
        return read_object(found.folder / part / "config.json")

    part = kind.backbone.part
    own, vae = config(part), config("vae")
    with configured(str(found.folder / part)), torch.device("meta"):  # without its weights
        network = kind.networks[part].from_config(own)
        features = feature_channels(network)
    widths, side = vae["block_out_channels"], kind.backbone.side(network)
    weights = {
        part: sum(
            map(
                count_parameters,
                weight_files(found.folder / part)
                or sorted((found.folder / part).glob("*.safetensors"))[:1],
            )
        )
        for part in parts_in(kind, index)
    }
    return Drawing(
        side * 2 ** (len(widths) - 1),
        (vae["latent_channels"], side, side),
        weights,
        features,
        sum(width_of(config(part)) for part in kind.words),
        widths[min(1, len(widths) - 1)],
        index["_class_name"] == "StableDiffusionXLPipeline",
    )


def width_of(encoder: dict) -> int:
    """Channels of a text encoder's states: CLIP's hidden_size, T5's d_model."""
    return encoder.get("hidden_size") or encoder["d_model"]
