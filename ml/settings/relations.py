"""Conditions on two settings together."""

from collections.abc import Iterator

from ml.settings.params import Params
from ml.settings.sections import PHOTO_SOURCES


def relations(params: Params) -> Iterator[tuple[tuple[str, ...], str, object, bool]]:
    """What fields must be together: the fields, the first of which is expected to be ..., its
    value, and whether it is. The error names the file that set one of them last."""
    prompts, triplets, grounding = params.prompts, params.triplets, params.grounding
    segmenter, benchmark, executor = params.segmenter, params.benchmark, params.executor
    alone = executor.address is None and executor.workers == 1
    yield (
        ("prompts.train_one", "prompts.train_two"),
        "2 or more training prompts together with prompts.train_two",
        prompts.train_one,
        prompts.train_one + prompts.train_two >= 2,
    )
    yield (
        ("prompts.synthetic_one", "prompts.synthetic_two"),
        "1 or more synthetic prompts together with prompts.synthetic_two",
        prompts.synthetic_one,
        prompts.synthetic_one + prompts.synthetic_two >= 1,
    )
    yield (
        ("diffusion.device", "executor.workers", "executor.address"),
        "auto, cuda or cpu, with no number, unless one worker on this machine (executor.workers 1, "
        "executor.address null) makes the shards: each is given a GPU of its own",
        params.diffusion.device,
        alone or ":" not in params.diffusion.device,
    )
    yield (
        ("executor.num_gpus", "diffusion.device"),
        "more than 0, or null, with diffusion.device cuda",
        executor.num_gpus,
        alone or executor.num_gpus != 0 or not params.diffusion.device.startswith("cuda"),
    )
    yield (
        ("triplets.max_area", "triplets.min_area"),
        f"more than triplets.min_area {triplets.min_area}",
        triplets.max_area,
        triplets.max_area > triplets.min_area,
    )
    yield (
        ("grounding.heads", "grounding.width"),
        f"a divisor of grounding.width {grounding.width}",
        grounding.heads,
        grounding.width % grounding.heads == 0,
    )
    band = params.synthetic.ignore_band
    yield (("synthetic.ignore_band",), "[low, high] with low <= high", band, band[0] <= band[1])
    yield (
        ("segmenter.heads", "segmenter.width"),
        f"a divisor of segmenter.width {segmenter.width}",
        segmenter.heads,
        segmenter.width % segmenter.heads == 0,
    )
    yield (
        ("segmenter.width", "segmenter.architecture"),
        "a multiple of 32 for maskformer, whose pyramid normalises 32 groups of channels",
        segmenter.width,
        segmenter.architecture != "maskformer" or segmenter.width % 32 == 0,
    )
    scales = segmenter.scale_range
    yield (
        ("segmenter.scale_range", "segmenter.crop_size"),
        "[low, high] with low <= high, and [1, 1] where segmenter.crop_size is null",
        scales,
        scales[0] <= scales[1] and (segmenter.crop_size is not None or scales == [1, 1]),
    )
    real = benchmark.source in PHOTO_SOURCES
    yield (
        ("benchmark.root", "benchmark.source"),
        "the folder of the real pictures"
        if real
        else f"null with benchmark.source {benchmark.source}",
        benchmark.root,
        bool(benchmark.root) == real,
    )
