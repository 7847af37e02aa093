"""Models as MLflow pyfuncs: our own weights (safetensors), our own code beside them, no pickle.

`pyfunc_grounding.py` and `pyfunc_segmenter.py` are the models' code; a copy of the package `ml` is
logged with them, so that they load in a process without this checkout. The copy is named after its
content (`ml_1f2e3d4c5b6a`), so that two versions in one process each run their own code.
"""

import ast
import functools
import importlib.metadata
import re
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import ml
from ml.errors import ManifestError
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.files import write_json
from ml.store.folder_digest import sha256_folder
from ml.store.manifest import read_manifest
from ml.store.objects import download
from orchestration.mlflow.as_made import DREW, as_made, side_of

HERE = Path(__file__).parent
CODE = Path(ml.__file__).parent
LEFT_OUT = (
    "app",
    "baselines",
    "cli",
    "datasets",
    "exports",
    "foundation",
    "pipeline",
    "quality",
    "studies",
)
"""Rooms above `ml.grounding`, which nothing that a model runs on may import (the contract of layers
in pyproject.toml): more than half of the files."""
IMPORTS = re.compile(r"^(\s*(?:from|import)) ml(?=[.\s])", re.M)
MODULES = re.compile(r"""(?<=["'])ml(?=\.\w)""")  # imported by name: "ml.detectors.base"
NEEDED = (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "accelerate",
    "safetensors",
    "pycocotools",
    "scipy",
    "pandas",
    "pyarrow",
    "pillow",
    "pyyaml",
    "tqdm",
)


def log_pyfunc(model: str, name: str, workspace: Workspace, params: Params) -> str:
    """Logs a model to the active run and registers it under a name; returns its version."""
    import mlflow

    made = as_made(DREW[model], params, workspace)  # reads all weights of the diffusion model
    side = side_of(made, workspace)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        code, wrapper = copy_code(HERE / f"pyfunc_{model}.py", Path(scratch))
        PACK[model](workspace, made, folder)
        try:
            info = mlflow.pyfunc.log_model(
                name=model,
                registered_model_name=name,
                python_model=str(wrapper),
                artifacts={"model": str(folder)},
                code_paths=[str(code)],
                signature=SIGNATURE[model](side),
                input_example=EXAMPLE[model](side),
                pip_requirements=requirements(),
            )
        finally:
            _forget(code.name)
    return str(info.registered_model_version)


def _forget(package: str) -> None:
    """Unloads a package that MLflow loaded to try the example, since its folder is gone by now: the
    next model with the same code could import no further module of it."""
    for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
        del sys.modules[name]


def copy_code(wrapper: Path, target: Path) -> tuple[Path, Path]:
    """The package `ml` without LEFT_OUT, under a name of its own, and a model's wrapper, both
    under `target`.

    Equal code gets an equal name, so that a process loads it once. Raises ValueError for a module
    that would still import `ml`.
    """
    plain = target / "ml"
    shutil.copytree(CODE, plain, ignore=_left_out)
    package = target / f"ml_{sha256_folder(plain)[:12]}"
    plain.rename(package)
    shutil.copyfile(wrapper, target / wrapper.name)
    for file in [*package.rglob("*.py"), target / wrapper.name]:
        text = IMPORTS.sub(rf"\1 {package.name}", file.read_text(encoding="utf-8"))
        text = MODULES.sub(package.name, text)
        if left := _imports_ml(text):
            raise ValueError(
                f"{file.name}, line {left}: imports `ml` in a way that a copy under "
                "another name can't have; write `from ml.x import y`"
            )
        file.write_text(text, encoding="utf-8")
    return package, target / wrapper.name


def _left_out(folder: str, names: list[str]) -> set[str]:
    """For `shutil.copytree` of CODE."""
    rooms = LEFT_OUT if Path(folder) == CODE else ()
    return {name for name in names if name == "__pycache__" or name in rooms}


@functools.lru_cache(1024)
def _imports_ml(text: str) -> int:
    """The line of the first import of `ml` in a source, 0 without one."""
    for node in ast.walk(ast.parse(text)):
        names = (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
        if any(name.split(".")[0] == "ml" for name in names):
            return node.lineno
    return 0


def requirements() -> list[str]:
    """What a model needs to run, in the versions that this process has: they made it."""
    versions = {name: importlib.metadata.version(name) for name in NEEDED}
    # a build's own mark ("2.14.1+cpu") names a file that no registry has
    return [f"{name}=={version.partition('+')[0]}" for name, version in versions.items()]


def copy_stage(workspace: Workspace, stage: str, target: Path) -> None:
    """The files that a stage's manifest names, and nothing else."""
    for name in read_manifest(workspace.folder(stage), verify=False).files:
        download(workspace.folder(stage) / name, target / name)


def pack_segmenter(workspace: Workspace, made: Params | None, target: Path) -> None:
    """The stage's `model/`, in `save_pretrained` form."""
    download(workspace.folder("segmenter") / "model", target)


def pack_grounding(workspace: Workspace, made: Params | None, target: Path) -> None:
    """As `GroundedDiffusionPipeline.from_pretrained` reads it; a hub id stays a reference.

    made: with the diffusion model and its settings that the module was trained with (`as_made`).
    Raises ManifestError for None: that model is no longer where it was.
    """
    if made is None:
        raise ManifestError(
            f"{workspace.folder('grounding_model')} was trained with a diffusion model that is no "
            "longer where it was, and can't be packed with another: bring it back, or run "
            f"`python -m ml all --profile {workspace.profile}` to train one for the model that the "
            "profile names now"
        )
    own, model = made.diffusion, workspace.model(made.diffusion.model)
    copy_stage(workspace, "grounding_model", target / "grounding")
    if Path(model).is_dir():
        shutil.copytree(model, target / "diffusion")
        model = "diffusion"
    write_json(
        target / "pipeline.json",
        {
            "diffusion": model,
            "revision": own.revision,
            "variant": own.variant,
            "dtype": own.dtype,
            "scheduler": own.scheduler,
            "batch_size": own.batch_size,
            "steps": own.steps,
            "guidance_scale": own.guidance_scale,
        },
    )


def segmenter_signature(side: int):
    """uint8 (n,side,side,3) RGB -> uint8 (n,side,side) labels."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("uint8"), (-1, side, side, 3))]),
        outputs=Schema([TensorSpec(np.dtype("uint8"), (-1, side, side))]),
    )


def grounding_signature(side: int):
    """A table of PNG bytes and words, and min_presence -> a table of run-length masks."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array

    return ModelSignature(
        inputs=Schema(
            [ColSpec(DataType.binary, "image"), ColSpec(Array(DataType.string), "words")]
        ),
        outputs=Schema([ColSpec(Array(DataType.string), "masks")]),
        params=ParamSchema([ParamSpec("min_presence", DataType.double, 0.0)]),
    )


def segmenter_example(side: int) -> np.ndarray:
    return np.full((1, max(side, 64), max(side, 64), 3), 128, np.uint8)


def grounding_example(side: int) -> pd.DataFrame:
    from ml.images.png import encode_png

    return pd.DataFrame({"image": [encode_png(segmenter_example(side)[0])], "words": [["dog"]]})


PACK = {"grounding": pack_grounding, "segmenter": pack_segmenter}
SIGNATURE = {"grounding": grounding_signature, "segmenter": segmenter_signature}
EXAMPLE = {"grounding": grounding_example, "segmenter": segmenter_example}
