"""Instance detectors behind one protocol, `detect(images, classes) -> list[Instances]`.

A backend is imported only when it is asked for: detectron2 need not be installed.
"""

from importlib import import_module

from ml.detectors.base import Detector, Instances

# backend: (module, class). What `path` means for each:
#   torchvision    a checkpoint folder (config.json, model.safetensors), or "coco"
#   detectron2     a config name of its model zoo
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
    score_threshold: float = 0.5,
    device: str = "auto",
    batch_size: int = 16,
) -> Detector:
    """A detector ready to use.

    path: see BACKENDS. score_threshold: in 0..1, instances below it are dropped.
    device: "cpu", "cuda", "cuda:1", ..., or "auto" (CUDA where there is one).
    batch_size: pictures in one forward pass.
    """
    if backend not in BACKENDS:
        raise ValueError(f"detector backend: expected one of {sorted(BACKENDS)}, got {backend!r}")
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    module, name = BACKENDS[backend]
    return getattr(import_module(module), name)(
        path, score_threshold=score_threshold, device=device, batch_size=batch_size
    )
