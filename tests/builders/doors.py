"""Folders as users have them: what the stages leave and what the registry gives out, made in
seconds. The micro diffusion model is the real one; the trained parts are fresh."""

import shutil
from pathlib import Path

import torch

from ml.diffusion.loading import read_pipeline
from ml.grounding.module import GroundingModule
from ml.pipeline.workspace import Workspace
from ml.segmenters import architecture
from ml.settings.profile import ROOT, load_params
from ml.store.manifest import Manifest, describe_files, write_manifest
from ml.words.vocabulary import BACKGROUND, load_vocabulary
from tests.builders.grounded import make_module

DIFFUSION = "data/foundation/micro/diffusion"


def stage_folder(root: Path, module: GroundingModule | None = None) -> Path:
    """`<root>/data/micro/grounding_model` as the stage leaves it, and the diffusion model in its
    place below the root."""
    if not (root / DIFFUSION).exists():
        shutil.copytree(ROOT / DIFFUSION, root / DIFFUSION)
    folder = root / "data/micro/grounding_model"
    if module is None:
        module = make_module(read_pipeline(root / DIFFUSION, None, torch.float32))
    module.save_pretrained(folder)
    params, workspace = load_params(), Workspace(root, "micro")
    manifest = Manifest(
        stage="grounding_model",
        version=3,
        params={"diffusion": params.section("diffusion")},
        inputs={"diffusion.model": workspace.digest(params, "diffusion.model")},
        files=describe_files(folder, {}),
        facts={},
    )
    write_manifest(folder, manifest)
    return folder


BACKBONE = ROOT / "data/foundation/micro/backbone"


def segmenter_folder(root: Path, kind: str = "maskformer", backbone: Path = BACKBONE) -> Path:
    """`<root>/data/micro/segmenter` with an untrained segmenter in `model`."""
    params, vocabulary = load_params(), load_vocabulary("voc-1")
    names = [BACKGROUND, *vocabulary.classes]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = architecture(kind).build(backbone, names, params.segmenter)
    if kind == "maskformer":  # fresh heads give every place one label; louder ones differ
        for part in (model.class_predictor, *model.mask_embedder.modules()):
            if isinstance(part, torch.nn.Linear):
                part.weight.data.mul_(4)
    folder = root / "data/micro/segmenter"
    model.save_pretrained(folder / "model")
    return folder


def downloaded_folder(target: Path, model: Path) -> Path:
    """A registered model as `mlflow artifacts download` leaves it. model: its own files."""
    shutil.copytree(model, target / "artifacts" / "model")
    (target / "MLmodel").write_text("artifact_path: model\n")
    return target
