"""What a run needs, as arithmetic: pictures, bytes by stage, memory, seconds. Nothing is loaded.

Every assumption is a constant here, with where it comes from. Not here: facts of the models
(`ml.cli.plan_models`), seconds on this machine (`ml.cli.plan_probe`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ml.cli.plan_models import BYTES, Drawing
from ml.settings.params import Params
from ml.words.vocabulary import Vocabulary

PNG_SHARE = 0.6
"""PNG bytes of a photograph over its raw bytes, assumed; the probe measures it."""
LABEL_SHARE = 1 / 40  # PNG bytes of a label map over its pixels, assumed
ROW_BYTES = 500  # text, entities, facts and hashes of a row
RLE_BYTES_A_SIDE = 4  # run lengths of a mask grow with its outline
PHOTO_BYTES = 160_000  # JPEG of a VOC or COCO photograph with its label map
DRAWN_BYTES = 5_000  # of a drawn benchmark picture
BENCHMARK_PICTURES = {"drawn": 400, "voc2012": 1449, "coco2017": 5000, "none": 0}
MODEL_COPIES = 6
"""Of a trained model's weights: two of Adam and two of the model in the checkpoint, the model
itself, and the registry's."""
HEAD_SHARE = 1.3  # parameters of a segmenter over those of its backbone, assumed

ADAM_BYTES = 16  # a trained parameter: weight, gradient and two moments in float32
CUDA_BYTES = 600_000_000  # the CUDA context and the libraries' workspaces, assumed
PROCESS_BYTES = 1_500_000_000  # Python and the libraries in main memory, assumed
SLICED_FROM = 64  # side of the latents from which pictures are decoded one after the other
DECODE_MAPS = 4  # full-size maps that decoding holds at once, assumed


@dataclass(frozen=True)
class Counts:
    """Pictures and named objects of a run."""

    train: int
    sim: int
    synthetic: int
    image_words: int  # objects named in train and sim
    synthetic_words: int

    @property
    def images(self) -> int:
        return self.train + self.sim


@dataclass(frozen=True)
class Need:
    name: str  # stage or purpose
    bytes: int | None
    how: str  # where the figure comes from


@dataclass(frozen=True)
class Figures:
    """Seconds on this machine; None where it could not be measured."""

    draw: float | None = None  # a picture, all steps and its decoding
    ground: float | None = None  # a drawn picture: features, evidence, masks
    evidence: float | None = None  # a training picture
    features: float | None = None  # a training picture, one guided pass
    grounding_step: float | None = None  # an optimizer step, features at hand
    validate: float | None = None  # a validation picture, features at hand
    detect: float | None = None  # a picture
    segmenter_step: float | None = None  # an optimizer step


def with_images(params: Params, images: int) -> Params:
    """The settings with so many synthetic pictures, one and two objects in the old proportion."""
    if images < 1:
        raise ValueError(f"--images: expected 1 or more, got {images}")
    old = params.prompts
    total = old.synthetic_one + old.synthetic_two
    one = round(images * old.synthetic_one / total) if total else images // 2
    return replace(params, prompts=replace(old, synthetic_one=one, synthetic_two=images - one))


def counts_of(params: Params, vocabulary: Vocabulary) -> Counts:
    """How many pictures the stage `prompts` will ask for."""
    wanted, seen, unseen = params.prompts, len(vocabulary.seen), len(vocabulary.unseen)
    one = [seen >= 1, unseen >= 1]
    two = [seen >= 2, seen >= 1 and unseen >= 1, unseen >= 2]
    return Counts(
        train=wanted.train_one + wanted.train_two,
        sim=wanted.sim_per_cell * sum(one + two),
        synthetic=wanted.synthetic_one + wanted.synthetic_two,
        image_words=wanted.train_one
        + 2 * wanted.train_two
        + wanted.sim_per_cell * (sum(one) + 2 * sum(two)),
        synthetic_words=wanted.synthetic_one + 2 * wanted.synthetic_two,
    )


def disk_needs(
    counts: Counts,
    drawing: Drawing,
    params: Params,
    classes: int,
    module: int,
    backbone: int | None,
    picture_bytes: float | None = None,
) -> list[Need]:
    """Bytes by stage. module, backbone: parameters. picture_bytes: of a PNG, if measured."""
    side, (c, h, w) = drawing.side, drawing.latent
    raw = 3 * side * side
    picture = picture_bytes or PNG_SHARE * raw
    png = "PNG measured" if picture_bytes else f"PNG assumed {PNG_SHARE:.0%} of raw"
    latent, heat, rle = 4 * c * h * w, 2 * h * w, RLE_BYTES_A_SIDE * side
    words = counts.image_words + counts.synthetic_words
    masks = counts.image_words * (rle + ROW_BYTES)
    synthetic = round(
        counts.synthetic * (picture + LABEL_SHARE * side * side + ROW_BYTES)
        + counts.synthetic_words * rle
    )
    trained = round(4 * HEAD_SHARE * backbone * MODEL_COPIES) if backbone else None
    source = params.benchmark.source
    tested = BENCHMARK_PICTURES.get(source)
    scored = tested or round(0.1 * counts.synthetic)  # without a benchmark, a tenth is held out
    each = DRAWN_BYTES if source == "drawn" else PHOTO_BYTES
    segmenter = None if trained is None else trained + synthetic
    weights = (
        f"{MODEL_COPIES} x weights, and the pictures again while it trains"
        if backbone
        else "its backbone is not known"
    )
    return [
        Need(
            "benchmark",
            None if tested is None else tested * each,
            f"{source}: " + ("unknown number of" if tested is None else f"{tested}") + " pictures",
        ),
        Need("prompts", ROW_BYTES * (counts.images + counts.synthetic), f"{words} named objects"),
        Need(
            "images",
            round(counts.images * (picture + latent + ROW_BYTES) + counts.image_words * heat),
            f"{counts.images} x ({png}, latent {latent / 1024:.0f} KB), DAAM {heat / 1024:.1f} KB "
            "an object; no features",
        ),
        Need("masks", masks, f"{counts.image_words} run-length masks"),
        Need("triplets", masks, "as masks"),
        Need(
            "grounding_model",
            4 * module * MODEL_COPIES,
            f"{MODEL_COPIES} x {module / 1e6:.1f} M weights",
        ),
        Need("synthetic_dataset", synthetic, f"{counts.synthetic} x ({png}, label map, masks)"),
        Need("segmenter", segmenter, weights),
        Need(
            "real_bound",
            0 if source == "none" else segmenter,
            "no real pictures" if source == "none" else "as segmenter, at most",
        ),
        Need("benchmark_scores", 16 * scored * (classes + 1) ** 2, "a confusion a picture, twice"),
        Need("report", 3_000_000, "report and audit sheet"),
    ]


def feature_bytes(drawing: Drawing, width: int) -> int:
    """U-Net features of one picture, both guidance halves. width: bytes a number."""
    return width * sum(channels * r * r for r, channels in drawing.features.items())


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
    weights = width * sum(drawing.parameters.values())
    if drawing.vae_float32:
        weights += (4 - width) * drawing.parameters["vae"]
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
    note = f"weights {weights / 1e9:.2f} GB"
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
    cache = min(2 * cache_bytes, counts.train * feature_bytes(drawing, 2))
    load = BYTES[params.diffusion.dtype] * sum(drawing.parameters.values())  # before they move
    return [
        Need("images", PROCESS_BYTES + load, "libraries, and weights while they are loaded"),
        Need(
            "grounding_model",
            PROCESS_BYTES + max(load, samples + cache),
            f"latents and maps {samples / 1e9:.1f} GB, cached features {cache / 1e9:.1f} GB",
        ),
    ]


def passes(pictures: int, uses: int, cached: int) -> float:
    """U-Net passes for so many uses of pictures, of which `cached` are kept after the first."""
    if not pictures or not uses:
        return 0.0
    kept = min(pictures, cached)
    return min(kept, uses) + (1 - kept / pictures) * uses


def stage_seconds(
    counts: Counts, figures: Figures, params: Params, cached: int
) -> dict[str, float | None]:
    """Seconds by stage; None where a figure is missing. cached: pictures whose features are kept.

    Upper bounds: every picture is taken as accepted, and no training as stopped early.
    """
    grounding, wanted = params.grounding, figures
    held = round(params.triplets.validation_share * counts.train)
    learnt = counts.train - held
    evaluations = -(-grounding.steps // grounding.evaluate_every)
    unet_passes = passes(learnt, grounding.steps * grounding.batch_size, cached) + passes(
        held, evaluations * held, cached
    )
    evidence = counts.train if grounding.variant == "seeded" else 0
    steps = params.segmenter.steps
    return {
        "images": times((counts.images, wanted.draw)),
        "masks": times((counts.images, wanted.detect)),
        "grounding_model": times(
            (evidence, wanted.evidence),
            (unet_passes, wanted.features),
            (grounding.steps, wanted.grounding_step),
            (evaluations * held, wanted.validate),
        ),
        "grounding_scores": times((counts.sim, wanted.ground)),
        "synthetic_dataset": times(
            (counts.synthetic, wanted.draw), (counts.synthetic, wanted.ground)
        ),
        "segmenter": times((steps, wanted.segmenter_step)),
        "real_bound": 0.0
        if params.benchmark.source == "none"
        else times((steps, wanted.segmenter_step)),
    }


def times(*parts: tuple[float, float | None]) -> float | None:
    """Sum of count x seconds; None when a figure that counts is missing."""
    if any(count and seconds is None for count, seconds in parts):
        return None
    return sum(count * seconds for count, seconds in parts if count)


def largest(needs: Sequence[Need]) -> int:
    """The peak over stages that follow each other; what is not known counts as nothing."""
    return max((need.bytes or 0 for need in needs), default=0)
