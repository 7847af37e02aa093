"""GPU and main memory by stage, as arithmetic. Every assumption is a constant here."""

from dataclasses import replace

from ml.cli.planning.counts import Counts
from ml.cli.planning.known_models import BYTES, Drawing
from ml.cli.planning.need import Need
from ml.settings.params import Params
from ml.settings.sections import DiffusionParams

HEAD_SHARE = 1.3  # parameters of a segmenter over those of its backbone, assumed
ADAM_BYTES = 16  # a trained parameter: weight, gradient and two moments in float32
CUDA_BYTES = 600_000_000  # the CUDA context and the libraries' workspaces, assumed
PROCESS_BYTES = 1_500_000_000  # Python and the libraries in main memory, assumed
SLICED_FROM = 64  # side of the latents from which pictures are decoded one after the other
LAYER_BYTES = 1_000_000_000  # weights on the GPU when they come layer by layer, assumed
T5_FROM = 1_000_000_000
DECODE_MAPS = 4  # full-size maps that decoding holds at once, assumed


def feature_bytes(drawing: Drawing, width: int) -> int:
    """Features of one picture, all guidance halves. width: bytes a number."""
    return width * sum(channels * r * r for r, channels in drawing.features.items())


def kept_bytes(drawing: Drawing, diffusion: DiffusionParams) -> int:
    """Features of one picture as a training keeps them: a U-Net's in float16, a transformer's in
    the dtype of its pass."""
    width = BYTES[diffusion.dtype] if "transformer" in drawing.parameters else 2
    return feature_bytes(drawing, width)


def weight_bytes(drawing: Drawing, diffusion: DiffusionParams) -> tuple[int, str]:
    """Of the diffusion model, that are on the GPU at once, and how to say it."""
    width = BYTES[diffusion.dtype]
    parts = {
        part: count * (1 if diffusion.quantise == "int8" and is_large(part, count) else width)
        for part, count in drawing.parameters.items()
    }
    if drawing.vae_float32:
        parts["vae"] = 4 * drawing.parameters["vae"]
    if diffusion.offload == "sequential":
        return LAYER_BYTES, "weights layer by layer"
    if diffusion.offload == "model":
        most = max(parts.values())
        return most, f"weights {most / 1e9:.2f} GB, one network at a time"
    every = sum(parts.values())
    return every, f"weights {every / 1e9:.2f} GB"


def is_large(part: str, count: int) -> bool:
    """Whether `diffusion.quantise` takes a part: the denoiser, and T5, the only text encoder of so
    many parameters."""
    return part in ("unet", "transformer") or (part.startswith("text_encoder") and count > T5_FROM)


def gpu_needs(
    drawing: Drawing,
    params: Params,
    module: int,
    kept: int,
    backbone: int | None,
    *,
    single: bool = False,
    context: int = CUDA_BYTES,
) -> list[Need]:
    """Peak memory by stage, modelled. kept: bytes that autograd keeps of one grounding sample.

    single: with batches of one picture, which is what the stages come down to when memory runs
    out. Drawing: twice the U-Net's features of each picture, or the decoder's maps. context: what
    the device takes for itself.
    """
    width = BYTES[params.diffusion.dtype]
    weights, note = weight_bytes(drawing, params.diffusion)
    drawn = 1 if single else params.diffusion.batch_size
    trained = 1 if single else params.grounding.batch_size
    features = feature_bytes(drawing, width)
    decoded = 1 if drawing.latent[1] >= SLICED_FROM else drawn
    decode = (
        decoded
        * DECODE_MAPS
        * drawing.vae_width
        * drawing.side**2
        * (4 if drawing.vae_float32 else width)
    )
    if getattr(params.diffusion, "vae_tiling", False):
        decode //= 4  # tiles of half the side
    draw = weights + max(drawn * 2 * features, decode)
    learn = weights + ADAM_BYTES * module + trained * (kept + 3 * features)
    needs = [
        Need("images", draw, f"{note}, {drawn} at once"),
        Need("grounding_model", learn, f"{note}, Adam, {trained} at once"),
        Need("synthetic_dataset", draw + 4 * module, f"{note}, {drawn} at once"),
        Need(
            "segmenter",
            round(ADAM_BYTES * HEAD_SHARE * backbone) if backbone else None,
            "weights and Adam alone: activations are known after a probe"
            if backbone
            else "its backbone is not known",
        ),
    ]
    return [replace(n, bytes=n.bytes and n.bytes + context) for n in needs]


def ram_needs(counts: Counts, drawing: Drawing, params: Params, cache_bytes: int) -> list[Need]:
    """Main memory: the training samples' latents, heat maps and evidence, and a cache of their
    features; pictures and masks stay in their shards."""
    c, h, w = drawing.latent
    grounding = params.grounding
    maps = 1 + (len(grounding.evidence_timesteps) if grounding.variant == "seeded" else 0)
    samples = 4 * h * w * (counts.train * c + counts.image_words * maps)
    cache = min(2 * cache_bytes, counts.train * kept_bytes(drawing, params.diffusion))
    load = BYTES[params.diffusion.dtype] * sum(drawing.parameters.values())  # before they move
    waiting = params.diffusion.offload != "none"  # then they stay, too
    return [
        Need("images", PROCESS_BYTES + load, "libraries, and weights while they are loaded"),
        Need(
            "grounding_model",
            PROCESS_BYTES + (load + samples + cache if waiting else max(load, samples + cache)),
            f"latents and maps {samples / 1e9:.1f} GB, cached features {cache / 1e9:.1f} GB",
        ),
    ]
