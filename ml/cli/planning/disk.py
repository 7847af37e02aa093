"""Bytes on disk by stage, as arithmetic. Every assumption is a constant here."""

from ml.cli.planning.counts import Counts
from ml.cli.planning.known_models import Drawing
from ml.cli.planning.memory import HEAD_SHARE
from ml.cli.planning.need import Need
from ml.settings.params import Params

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
        Need("report", 6_000_000, "report and audit sheet"),
    ]
