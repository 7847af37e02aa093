"""Training a segmenter on pictures with label maps.

A run that was stopped goes on from its last checkpoint and ends with the same weights, because
what a step sees depends on the seed and the step's number alone; so it may also go on with another
number of processes. Not here: architectures, what is done to the pictures, files of stages.
"""

from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from ml.compute import processes
from ml.compute.devices import own_device
from ml.compute.gradients import own_rows, same_weights
from ml.metrics.iou import confusions, miou
from ml.segmenters.learner import Learner
from ml.segmenters.pictures import Arrays, batches, check_pictures
from ml.segmenters.prediction import predict_each
from ml.settings.sections import SegmenterParams
from ml.store.training_state import load_state, save_state

CHECKPOINT_EVERY = 100
"""Steps; a kill costs at most half a minute at micro size."""
CHECKPOINT = "checkpoint.pt"
EVALUATE_EVERY = 150
HELD_OUT_SHARE, HELD_OUT_MOST = 0.04, 64
"""Pictures kept for the curve's mIoU. It decides nothing, so a few are enough."""


class CurveRow(TypedDict):
    step: int
    loss: float
    learning_rate: float
    val_miou: float | None  # percent; None between evaluations


def train(
    model: PreTrainedModel,
    images: Arrays,
    labels: Arrays,
    params: SegmenterParams,
    progress: Path,
    seed: int,
) -> list[CurveRow]:
    """Trains in place; returns the curve, one row a step.

    images, labels: sequences of uint8 (H,W,3) RGB and uint8 (H,W), 255 ignored: arrays or
    `Encoded`. `val_miou` (percent, over the foreground labels of held-out pictures against their
    labels as given) is None between evaluations, and in all but the first process. `progress` is
    a folder for the checkpoint; it is the caller's to remove.
    """
    check_pictures(images, labels, params)
    learner = _learner(model, params)
    curve = _resume(progress, learner)
    kept, held = hold_out(len(images), seed)
    picture_seed = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
    rows = own_rows(params.batch_size, "segmenter.batch_size")
    main = processes.is_main()
    todo = range(len(curve) + 1, params.steps + 1)
    with tqdm(
        total=params.steps, initial=len(curve), desc="segmenter", unit="step", disable=not main
    ) as bar:
        made = batches(
            images,
            labels,
            kept,
            params,
            picture_seed,
            todo,
            rows,
            len(model.config.id2label or {}) - 1,
        )
        for step, pictures, maps in made:
            rate = float(learner.schedule.get_last_lr()[-1])
            drawn = np.random.SeedSequence([seed, 3, step, rows[0]]).generate_state(1)[0]
            loss = learner.step(pictures, maps, seed=int(drawn))
            row: CurveRow = {"step": step, "loss": loss, "learning_rate": rate, "val_miou": None}
            if main and len(held) and (step % EVALUATE_EVERY == 0 or step == params.steps):
                row["val_miou"] = _held_out_miou(learner.best(), images, labels, held)
                bar.set_postfix(loss=f"{loss:.2f}", miou=f"{row['val_miou']:.1f}")
            curve.append(row)
            if main and step % CHECKPOINT_EVERY == 0:
                save_state(progress / CHECKPOINT, learner.state_dict() | {"curve": curve})
            bar.update()
    if learner.average is not None:
        model.load_state_dict(learner.best().state_dict())
    model.eval()
    return curve


def _learner(model: PreTrainedModel, params: SegmenterParams) -> Learner:
    """On its device, with the first process's weights. Raises ValueError for fp16 on a CPU."""
    device = own_device()
    if params.precision == "float16" and device.type != "cuda":
        raise ValueError(
            "segmenter.precision float16 needs a CUDA GPU and there is none here: "
            "expected bfloat16 or float32"
        )
    # The ignored error: transformers wraps `to` without its types.
    model.to(device, memory_format=torch.channels_last)  # type: ignore[arg-type]
    same_weights(model)
    return Learner(model, params, device)


def hold_out(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices to train on and indices kept for the curve."""
    order = np.random.default_rng([seed, 0]).permutation(n)
    held = min(HELD_OUT_MOST, int(n * HELD_OUT_SHARE))
    return order[held:], order[:held]


def _held_out_miou(
    model: PreTrainedModel, images: Arrays, labels: Arrays, held: np.ndarray
) -> float:
    classes = len(model.config.id2label or {}) - 1
    found = predict_each(model, [images[place] for place in held])
    counts = confusions(found, [labels[place] for place in held], classes).sum(0)
    return float(100 * miou(counts, range(1, classes + 1)))


def _resume(progress: Path, learner: Learner) -> list[CurveRow]:
    """Restores a checkpoint and returns its curve, empty where there is no whole checkpoint."""
    state = load_state(progress / CHECKPOINT)
    if state is None:
        return []
    learner.load_state_dict(state)
    curve: list[CurveRow] = state["curve"]
    return curve
