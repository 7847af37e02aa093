"""Detectors of detectron2's model zoo (the paper's family of labellers is its COCO Mask R-CNN).

For those who installed detectron2: it has no release on PyPI, so this project cannot require it.
Both forms of its configurations are read: YAML ("...yaml") and Python ("...py", LazyConfig).
"""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from ml.compute.weights import fill
from ml.detectors.base import Detector, Found
from ml.detectors.weights import SUFFIXES, Weights, load_weights
from ml.store.reading import read_text

INSTALL = (
    "python -m pip install 'setuptools<81' wheel fvcore iopath yacs termcolor\n"
    "    python -m pip install --no-build-isolation --no-deps "
    "'git+https://github.com/facebookresearch/detectron2.git'"
)
"""As in its guide, but for two points: its setup.py needs torch, which pip's isolated build lacks,
and it asks for omegaconf below 2.4, which would replace DVC's (it works with 2.4). Its model zoo
imports pkg_resources, which setuptools 82 dropped."""
UNTRAINED = ("pixel_mean", "pixel_std", "anchor_generator.cell_anchors")
"""Buffers that come from the configuration; old checkpoints have them, new ones do not."""


class Detectron2Zoo(Detector):
    """path: a configuration of the zoo, "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml",
    or a folder with config.yaml, one weight file and, where detectron2 does not know the data
    set, classes.txt (a label name a line). weights: a file in place of the published one.
    """

    def __init__(
        self, path: str, *, weights: str | None, revision: str | None, device: str,
        score_threshold: float, batch_size: int,
    ) -> None:  # fmt: skip
        refuse_missing()
        from detectron2.data.transforms import AugInput, AugmentationList

        is_folder = Path(path).is_dir()
        file = folder_config(Path(path)) if is_folder else zoo_config(path)
        build = build_lazy if file.suffix == ".py" else build_yaml
        self.model, augmentations, data_set = build(file)
        heads: Any = getattr(self.model, "roi_heads", None)
        if not getattr(heads, "mask_on", False):
            raise ValueError(
                f"detector.model {path!r}: not a configuration for instance masks. Take one of "
                f"{', '.join(zoo_names('COCO-InstanceSegmentation/mask_rcnn'))}"
            )
        self.names = label_names(Path(path) / "classes.txt", data_set)
        if len(self.names) != heads.num_classes:
            raise ValueError(
                f"detector.model {path!r}: {len(self.names)} label names, expected "
                f"{heads.num_classes} as the configuration says"
            )
        chosen = Path(weights) if weights else \
            folder_weights(Path(path)) if is_folder else zoo_weights(path)  # fmt: skip
        fill_detectron2(self.model, load_weights(chosen), str(chosen))
        set_threshold(self.model, score_threshold)
        self.model.eval().to(device)
        self.bgr = self.model.input_format == "BGR"
        self.resize: Callable[[Any], Any] = AugmentationList(augmentations)
        self.as_input: Callable[[np.ndarray], Any] = AugInput
        super().__init__(self.names, score_threshold=score_threshold, batch_size=batch_size)

    @torch.inference_mode()
    def predict(self, images: Sequence[np.ndarray]) -> list[Found]:
        inputs = []
        for image in images:
            height, width = image.shape[:2]
            taken = self.as_input(np.ascontiguousarray(image[:, :, ::-1] if self.bgr else image))
            self.resize(taken)
            chw = np.ascontiguousarray(taken.image.transpose(2, 0, 1).astype(np.float32))
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


def refuse_missing() -> None:
    """Raises ImportError with the install line unless detectron2 and its model zoo can be used."""
    try:
        import detectron2.model_zoo  # noqa: F401
    except ImportError as error:
        if error.name == "detectron2":
            state = "is not installed and has no release on PyPI. Build it with"
        else:
            state = f"is installed but lacks a part ({error}). Install as follows"
        raise ImportError(
            f"the detector backend 'detectron2' needs detectron2, which {state}:\n    {INSTALL}\n"
            "or use the backend 'torchvision' (model 'coco'), a Mask R-CNN for COCO too."
        ) from error


def zoo_folder() -> Path:
    from detectron2 import model_zoo

    return Path(model_zoo.__file__).parent / "configs"


def zoo_names(start: str = "") -> list[str]:
    """Configuration names of the installed zoo, as `detector.model` takes them."""
    names = [file.relative_to(zoo_folder()).as_posix() for kind in ("yaml", "py")
             for file in zoo_folder().glob(f"*/*.{kind}")]  # fmt: skip
    return sorted(name for name in names if name.startswith(start))


def zoo_config(name: str) -> Path:
    """The file of a zoo configuration. Raises ValueError with near matches for an unknown name."""
    if name not in (known := zoo_names()):
        near = get_close_matches(name, known, n=5, cutoff=0.4)
        raise ValueError(
            f"detector.model {name!r} is neither a folder nor a configuration of the installed "
            f"detectron2's zoo; near are: {', '.join(near) or 'none'}. All are in {zoo_folder()}"
        )
    return zoo_folder() / name


def zoo_weights(name: str) -> Path:
    """The published weights of a zoo configuration, downloaded once into detectron2's own cache.

    Raises ValueError if there are none, ConnectionError, saying which file to bring, if they
    cannot be downloaded.
    """
    from detectron2 import model_zoo
    from detectron2.utils.file_io import PathManager

    try:
        url = model_zoo.get_checkpoint_url(name)
    except RuntimeError as error:
        raise ValueError(
            f"detector.model {name!r}: detectron2 publishes no weights for it. Set "
            "detector.weights to a file, or take a configuration of its MODEL_ZOO.md"
        ) from error
    try:
        return Path(PathManager.get_local_path(url))
    except OSError as error:
        file = "/".join(PurePosixPath(url).parts[-2:])
        raise ConnectionError(
            f"detector.model {name!r} needs {file} of detectron2's model zoo, which could not be "
            f"downloaded: {error}. Bring it from a machine that can (its MODEL_ZOO.md links it), "
            "and set detector.weights to its path"
        ) from error


def folder_config(folder: Path) -> Path:
    if not (folder / "config.yaml").is_file():
        raise FileNotFoundError(
            f"{folder}: expected config.yaml as detectron2's tools write it, and one weight file. "
            "For a Python configuration give its name in the zoo and detector.weights"
        )
    return folder / "config.yaml"


def folder_weights(folder: Path) -> Path:
    files = sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES)
    if len(files) != 1:
        raise ValueError(
            f"{folder}: expected one weight file ({', '.join(SUFFIXES)}), got "
            f"{[file.name for file in files]}; set detector.weights to the one to use"
        )
    return files[0]


def build_yaml(file: Path) -> tuple[nn.Module, list[Any], str]:
    """(network with random weights, test-time augmentations, name of its data set)."""
    from detectron2.config import get_cfg
    from detectron2.data.transforms import ResizeShortestEdge
    from detectron2.modeling import build_model

    cfg = get_cfg()
    # YAML can run code too, and the zoo's RetinaNets do; nobody else's may.
    try:
        cfg.merge_from_file(str(file), allow_unsafe=zoo_folder() in file.parents)
    except (yaml.YAMLError, KeyError, ValueError) as error:
        raise ValueError(
            f"{file}: expected a YAML configuration of the installed detectron2, plain data as "
            f"its tools write it, got: {' '.join(str(error).split())}"
        ) from error
    cfg.MODEL.DEVICE = "cpu"
    size = cfg.INPUT.MIN_SIZE_TEST
    resize = ResizeShortestEdge([size, size], cfg.INPUT.MAX_SIZE_TEST)
    return build_model(cfg), [resize], (cfg.DATASETS.TEST or cfg.DATASETS.TRAIN)[0]


def build_lazy(file: Path) -> tuple[nn.Module, list[Any], str]:
    """`build_yaml` for a Python configuration, which is run: only the installed zoo's are."""
    from detectron2.config import LazyConfig, instantiate

    cfg = LazyConfig.load(str(file))
    loader = cfg.dataloader.test
    augmentations = [instantiate(one) for one in loader.mapper.augmentations]
    return instantiate(cfg.model), augmentations, loader.dataset.names


def label_names(listed: Path, data_set: str) -> list[str]:
    """The label names of a network: classes.txt of its folder, else those of its data set."""
    from detectron2.data import MetadataCatalog

    if listed.is_file():
        return [name.strip() for name in read_text(listed).strip().split("\n")]
    names = MetadataCatalog.get(data_set).get("thing_classes")
    if not names:
        raise ValueError(
            f"detectron2 does not know the label names of the data set {data_set!r}: put them "
            "into classes.txt beside config.yaml, one a line, in the order of training"
        )
    return list(names)


def fill_detectron2(model: nn.Module, weights: Weights, source: str) -> None:
    """Loads weights; names of Caffe2's and other libraries' checkpoints are matched first."""
    from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts

    tensors = weights.tensors
    if weights.heuristics:
        tensors = align_and_update_state_dicts(
            model.state_dict(), tensors, c2_conversion=weights.author == "Caffe2"
        )
    fill(model, tensors, source, optional=UNTRAINED)


def set_threshold(model: nn.Module, score_threshold: float) -> None:
    """Makes the network itself drop boxes that score less, before it makes their masks."""
    from detectron2.modeling.roi_heads import FastRCNNOutputLayers

    for part in model.modules():
        if isinstance(part, FastRCNNOutputLayers):
            part.test_score_thresh = score_threshold
