"""Detectors of detectron2's model zoo (the paper's labeller is its COCO Mask R-CNN).

For those who installed detectron2: it has no release on PyPI, so this project cannot require it.
"""

import numpy as np
import torch

from ml.detectors.base import Detector

INSTALL = "python -m pip install 'git+https://github.com/facebookresearch/detectron2.git'"


class Detectron2Zoo(Detector):
    """path: a config name, such as "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"."""

    def __init__(self, path: str, *, score_threshold: float, device: str, batch_size: int):
        try:
            from detectron2 import model_zoo
            from detectron2.checkpoint import DetectionCheckpointer
            from detectron2.config import get_cfg
            from detectron2.data import MetadataCatalog
            from detectron2.data.transforms import ResizeShortestEdge
            from detectron2.modeling import build_model
        except ImportError as error:
            raise ImportError(
                "the detector backend 'detectron2' needs detectron2, which is not installed and "
                f"has no release on PyPI. Build it with:\n    {INSTALL}\n"
                "or use the backend 'torchvision' (path 'coco'), the same network."
            ) from error
        cfg = get_cfg()
        cfg.merge_from_file(model_zoo.get_config_file(path))
        cfg.MODEL.WEIGHTS = model_zoo.get_checkpoint_url(path)
        cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = score_threshold
        cfg.MODEL.DEVICE = device
        self.model = build_model(cfg).eval()
        DetectionCheckpointer(self.model).load(cfg.MODEL.WEIGHTS)
        size = cfg.INPUT.MIN_SIZE_TEST
        self.resize = ResizeShortestEdge([size, size], cfg.INPUT.MAX_SIZE_TEST)
        self.bgr = cfg.INPUT.FORMAT == "BGR"
        self.names = list(MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).thing_classes)
        super().__init__(self.names, score_threshold=score_threshold, batch_size=batch_size)

    @torch.inference_mode()
    def predict(self, images: list[np.ndarray]) -> list[tuple]:
        inputs = []
        for image in images:
            height, width = image.shape[:2]
            pixels = image[:, :, ::-1] if self.bgr else image
            pixels = self.resize.get_transform(pixels).apply_image(np.ascontiguousarray(pixels))
            chw = np.ascontiguousarray(pixels.transpose(2, 0, 1).astype(np.float32))
            inputs.append({"image": torch.from_numpy(chw), "height": height, "width": width})
        found = []
        for output in self.model(inputs):
            instances = output["instances"].to("cpu")
            found.append(
                (
                    instances.pred_masks.numpy(),
                    instances.scores.numpy(),
                    [self.names[i] for i in instances.pred_classes.tolist()],
                    instances.pred_boxes.tensor.numpy(),
                )
            )
        return found
