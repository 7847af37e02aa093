"""Instance detectors behind one protocol, `detect(images, classes) -> list[Instances]`.

A backend is imported only when it is asked for: detectron2 need not be installed.
"""

from importlib import import_module

from ml.detectors.base import Detector, Instances
from ml.settings.revisions import refuse_revision

# backend: (module, class). What `path` means for each:
#   torchvision    a checkpoint folder (config.json, model.safetensors), or "coco"
#   detectron2     a config name of its model zoo, or a folder (config.yaml, a weight file)
#   transformers   a folder or hub id of a Mask2Former trained for instances
BACKENDS = {
    "torchvision": ("ml.detectors.torchvision_maskrcnn", "TorchvisionMaskRCNN"),
    "detectron2": ("ml.detectors.detectron2_zoo", "Detectron2Zoo"),
    "transformers": ("ml.detectors.transformers_mask2former", "TransformersMask2Former"),
}

__all__ = ["BACKENDS", "Detector", "Instances", "load_detector"]


def load_detector(
    backend: str,
    path: str,
    *,
    weights: str | None = None,
    revision: str | None = None,
    score_threshold: float = 0.5,
    device: str = "auto",
    batch_size: int = 16,
) -> Detector:
    """A detector ready to use.

    path: see BACKENDS. weights: a weight file on this machine in place of the published one,
    where `path` is a name. revision: of a hub id. score_threshold: in 0..1, instances below it
    are dropped. device: "cpu", "cuda", "cuda:1", ..., or "auto" (CUDA where there is one).
    batch_size: pictures in one forward pass; halved when the device runs out of memory.
    """
    if backend not in BACKENDS:
        raise ValueError(f"detector backend: expected one of {sorted(BACKENDS)}, got {backend!r}")
    if revision and backend != "transformers":
        raise ValueError(
            "detector.revision: only the hub ids of the backend 'transformers' have "
            f"one; set it to null for {backend!r}"
        )
    refuse_revision("detector.revision", revision, path)
    from ml.compute.devices import find_device

    module, name = BACKENDS[backend]
    detector: Detector = getattr(import_module(module), name)(
        str(path), weights=weights, revision=revision, device=str(find_device(device)),
        score_threshold=score_threshold, batch_size=batch_size,
    )  # fmt: skip
    return detector
