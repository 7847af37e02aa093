"""COCO's average precision of masks on drawn scenes, by pycocotools."""

import contextlib
import io

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ml.detectors.base import Instances
from ml.drawn_world.world import CLASSES, Scene


def mask_average_precision(scenes: list[Scene], found: list[Instances]) -> dict:
    """pycocotools' mask AP (mean over IoU 0.5 to 0.95) and AP50 over 20 classes, in percent."""

    def encode(mask: np.ndarray) -> dict:
        return rle.encode(np.asfortranarray(mask.astype(np.uint8)))

    truth = [
        {"image_id": i, "category_id": CLASSES.index(name) + 1, "segmentation": encode(mask),
         "area": int(mask.sum()), "iscrowd": 0}
        for i, scene in enumerate(scenes)
        for name, mask in zip(scene.classes, scene.masks, strict=True)
    ]  # fmt: skip
    results = [
        {"image_id": i, "category_id": CLASSES.index(name) + 1, "segmentation": encode(mask),
         "score": float(score)}
        for i, instances in enumerate(found)
        for name, mask, score in zip(
            instances.labels, instances.masks, instances.scores, strict=True)
    ]  # fmt: skip
    if not results:  # COCO.loadRes cannot take an empty list
        return dict(mask_ap50=0.0, mask_ap=0.0, worst_class=CLASSES[0], worst_class_ap50=0.0)
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": i, "height": 64, "width": 64} for i in range(len(scenes))],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)],
        "annotations": [row | {"id": i + 1} for i, row in enumerate(truth)],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its own progress
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), iouType="segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # precision is (IoU thresholds, recalls, classes, areas, detections); -1 where never drawn.
    by_class = evaluation.eval["precision"][0, :, :, 0, -1].mean(0)
    worst = int(np.where(by_class < 0, np.inf, by_class).argmin())
    return {
        "mask_ap50": 100 * float(evaluation.stats[1]),
        "mask_ap": 100 * float(evaluation.stats[0]),
        "worst_class": CLASSES[worst],
        "worst_class_ap50": 100 * float(by_class[worst]),
    }
