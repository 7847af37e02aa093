"""Size of the grounding module, counted on torch's meta device: shapes without memory."""

from ml.cli.planning.known_models import Drawing
from ml.settings.params import Params


def grounding_size(params: Params, drawing: Drawing) -> tuple[int, int]:
    """(trainable parameters, bytes that autograd keeps of one sample) of the grounding module.

    Built and run for real on torch's meta device, which has shapes and no memory.
    """
    import torch

    from ml.grounding.config import make_config
    from ml.grounding.module import GroundingModule

    config = make_config(params.grounding, drawing.features, drawing.text_width, drawing.side, 1)
    kept: dict[int, tuple[int, object]] = {}

    def note(tensor):
        kept[tensor.untyped_storage()._cdata] = (tensor.nbytes, tensor)  # kept alive: ids return
        return tensor

    with torch.device("meta"):
        module = GroundingModule(config).train()
        features = {r: torch.empty(1, c, r, r) for r, c in drawing.features.items()}
        words = torch.empty(1, 2, drawing.text_width), torch.ones(1, 2, dtype=torch.bool)
        evidence = torch.empty(1, 2, len(config.evidence_timesteps), *drawing.latent[1:])
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            module(features, *words, evidence if config.competition else None)
    own = {p.untyped_storage()._cdata for p in module.parameters()}
    return (
        sum(p.numel() for p in module.parameters()),
        sum(size for place, (size, _) in kept.items() if place not in own),
    )
