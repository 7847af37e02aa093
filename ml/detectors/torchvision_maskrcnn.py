"""The detector on torchvision's Mask R-CNN: COCO weights (path "coco"), or a checkpoint folder of
this project (`ml.detectors.maskrcnn`).
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from huggingface_hub import is_offline_mode
from torchvision.models import detection

from ml.compute.weights import fill
from ml.detectors.base import Detector, Found
from ml.detectors.maskrcnn import load_maskrcnn
from ml.detectors.pasting import SubpixelTransform
from ml.detectors.weights import load_weights

COCO = detection.MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1


def build_coco() -> detection.MaskRCNN:
    """torchvision's maskrcnn_resnet50_fpn_v2 for COCO with random weights; masks are pasted as
    ours are, because its training cuts them out in the same way."""
    classes = len(COCO.meta["categories"])
    model = detection.maskrcnn_resnet50_fpn_v2(
        weights=None, weights_backbone=None, num_classes=classes
    )
    theirs = model.transform
    model.transform = SubpixelTransform(
        theirs.min_size, theirs.max_size, theirs.image_mean, theirs.image_std
    )
    return model


def coco_file() -> Path:
    """torchvision's published COCO weights in torch's hub cache, downloaded if they are not there.

    Raises ConnectionError, saying which file to bring, if they cannot be downloaded.
    """
    name = PurePosixPath(COCO.url).name
    file = Path(torch.hub.get_dir()) / "checkpoints" / name
    if file.is_file():
        return file
    try:
        if is_offline_mode():
            raise OSError("HF_HUB_OFFLINE is set")
        file.parent.mkdir(parents=True, exist_ok=True)
        checksum = file.stem.rpartition("-")[2]
        torch.hub.download_url_to_file(COCO.url, str(file), checksum, progress=False)
    except (OSError, RuntimeError) as error:  # RuntimeError: not the published bytes
        raise ConnectionError(
            f"detector.model 'coco' needs torchvision's file {name} ({COCO.meta['_file_size']:.0f} "
            f"MB), which is not in {file.parent} and could not be downloaded: {error}. Bring it "
            "from a machine that can, and set detector.weights to its path"
        ) from error
    return file


class TorchvisionMaskRCNN(Detector):
    """path: a checkpoint folder, or "coco" for torchvision's published maskrcnn_resnet50_fpn_v2
    (177 MB, or the same from the file `weights`)."""

    def __init__(
        self, path: str, *, weights: str | None, revision: str | None, device: str,
        score_threshold: float, batch_size: int,
    ) -> None:  # fmt: skip
        if path == "coco":
            file = Path(weights) if weights else coco_file()
            self.model = build_coco().eval()
            fill(self.model, load_weights(file).tensors, str(file))
            self.names = COCO.meta["categories"]  # entry 0 is "__background__"
        elif weights:
            raise ValueError(
                f"detector.weights: {path!r} has weights of its own; set it to null, or "
                "detector.model to 'coco'"
            )
        else:
            self.model, config = load_maskrcnn(Path(path))
            self.names = ["__background__", *config.classes]
        self.device = device
        self.model.to(device)
        self.model.roi_heads.score_thresh = score_threshold
        known = [name for name in self.names if name not in ("__background__", "N/A")]
        super().__init__(known, score_threshold=score_threshold, batch_size=batch_size)

    @torch.inference_mode()
    def predict(self, images: Sequence[np.ndarray]) -> list[Found]:
        batch = [torch.tensor(image, device=self.device).permute(2, 0, 1) / 255 for image in images]
        return [
            (
                found["masks"][:, 0].cpu().numpy(),
                found["scores"].cpu().numpy(),
                [self.names[i] for i in found["labels"].tolist()],
                found["boxes"].cpu().numpy(),
            )
            for found in self.model(batch)
        ]
