"""Models as MLflow pyfuncs: our own weights (safetensors), our own code beside them, no pickle.

`pyfunc_grounding.py` and `pyfunc_segmenter.py` are the models' code; a copy of the `ml` package
goes along, so that a process that knows nothing of this checkout loads them.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from ml.files import write_json
from ml.manifest import read_manifest
from ml.params import ROOT, Params
from ml.stages import Workspace
from orchestration.tables import model_size

HERE = Path(__file__).parent
NEEDED = ("torch", "torchvision", "diffusers", "transformers", "accelerate", "safetensors",
          "pycocotools", "scipy", "pandas", "pyarrow", "pillow", "pyyaml", "tqdm")


def log_pyfunc(name: str, workspace: Workspace, params: Params) -> str:
    """Logs a model to the active run and registers it; returns its version."""
    import mlflow

    side = model_size(params, workspace) or -1
    with tempfile.TemporaryDirectory() as scratch:
        code, folder = Path(scratch) / "ml", Path(scratch) / "model"
        shutil.copytree(ROOT / "ml", code, ignore=shutil.ignore_patterns("__pycache__"))
        PACK[name](workspace, params, folder)
        info = mlflow.pyfunc.log_model(
            name=name, registered_model_name=name, python_model=str(HERE / f"pyfunc_{name}.py"),
            artifacts={"model": str(folder)}, code_paths=[str(code)],
            signature=SIGNATURE[name](side), input_example=EXAMPLE[name](side),
            pip_requirements=requirements())
    return str(info.registered_model_version)


def requirements(file: Path = ROOT / "requirements.txt") -> list[str]:
    """The pinned lines of requirements.txt that the models need to run."""
    lines = [line.strip() for line in file.read_text().splitlines()]
    return [line for line in lines if line.split("==")[0].lower() in NEEDED]


def copy_stage(workspace: Workspace, stage: str, target: Path) -> None:
    """The files that a stage's manifest names, and nothing else."""
    for name in read_manifest(workspace.folder(stage), verify=False).files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(workspace.folder(stage) / name, target / name)


def pack_segmenter(workspace: Workspace, params: Params, target: Path) -> None:
    """The stage's `model/`, in `save_pretrained` form."""
    shutil.copytree(workspace.folder("segmenter") / "model", target)


def pack_grounding(workspace: Workspace, params: Params, target: Path) -> None:
    """As `GroundedDiffusionPipeline.from_pretrained` reads it; a hub id stays a reference."""
    copy_stage(workspace, "grounding_model", target / "grounding")
    model = workspace.model(params.diffusion.model)
    if Path(model).is_dir():
        shutil.copytree(model, target / "diffusion")
        model = "diffusion"
    own = params.diffusion
    write_json(target / "pipeline.json", {
        "diffusion": model, "revision": own.revision, "variant": own.variant, "dtype": own.dtype,
        "batch_size": own.batch_size})


def segmenter_signature(side: int):
    """uint8 (n,side,side,3) RGB -> uint8 (n,side,side) labels."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("uint8"), (-1, side, side, 3))]),
        outputs=Schema([TensorSpec(np.dtype("uint8"), (-1, side, side))]))


def grounding_signature(side: int):
    """A table of PNG bytes and words, and min_presence -> a table of run-length masks."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array

    return ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, "image"),
                       ColSpec(Array(DataType.string), "words")]),
        outputs=Schema([ColSpec(Array(DataType.string), "masks")]),
        params=ParamSchema([ParamSpec("min_presence", DataType.double, 0.0)]))


def segmenter_example(side: int) -> np.ndarray:
    return np.full((1, max(side, 64), max(side, 64), 3), 128, np.uint8)


def grounding_example(side: int) -> pd.DataFrame:
    from ml.pictures import encode_png

    return pd.DataFrame({"image": [encode_png(segmenter_example(side)[0])], "words": [["dog"]]})


PACK = {"grounding": pack_grounding, "segmenter": pack_segmenter}
SIGNATURE = {"grounding": grounding_signature, "segmenter": segmenter_signature}
EXAMPLE = {"grounding": grounding_example, "segmenter": segmenter_example}
