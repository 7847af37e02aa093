"""Copies of tiny models, and what may have happened to their files."""

import contextlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from ml.__main__ import main
from tests.fuzz.parts import stage, write_profile, write_vocabulary


@cache
def tiny_models() -> tempfile.TemporaryDirectory:
    """A tiny pipeline, alone and with a grounding module, and prompts to draw with it."""
    import torch

    from ml.diffusion.features import feature_channels
    from ml.grounding.config import make_config
    from ml.grounding.module import GroundingModule
    from ml.grounding.pipeline import GroundedDiffusionPipeline
    from ml.settings.profile import load_params
    from tests.builders.tiny import save_tiny_pipeline, tiny_pipeline

    place = tempfile.TemporaryDirectory()
    folder = Path(place.name)
    save_tiny_pipeline(folder / "model")
    pipe = tiny_pipeline()
    params = load_params().grounding
    config = make_config(
        params, feature_channels(pipe.unet), pipe.text_encoder.config.hidden_size, 64, 60, "seeded"
    )
    torch.manual_seed(0)
    GroundedDiffusionPipeline(pipe, GroundingModule(config)).save_pretrained(folder / "saved")
    (folder / "root").mkdir()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert main(stage(folder, "prompts", profile_of(folder))) == 0
    return place


def profile_of(folder: Path, **sections) -> Path:
    return write_profile(folder, vocabulary=write_vocabulary(folder), **sections)


def copy_of(source: Path, target: Path) -> Path:
    """Of files that nobody writes in place, so that links do."""
    shutil.copytree(source, target, copy_function=os.link)
    return target


def with_json(file: str, **values) -> Callable[[Path], object]:
    """Fields of a configuration; None of DROP leaves it out."""

    def edit(model: Path) -> None:
        content = json.loads((model / file).read_text()) | values
        (model / file).unlink()
        (model / file).write_text(json.dumps({k: v for k, v in content.items() if v is not DROP}))

    return edit


DROP = object()


def with_bytes(file: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    def edit(model: Path) -> None:
        data = (model / file).read_bytes()
        (model / file).unlink()
        (model / file).write_bytes(change(data))

    return edit


def with_weights(file: str, change: Callable[[dict], object]) -> Callable[[Path], object]:
    def edit(model: Path) -> None:
        from safetensors.torch import load_file, save_file

        path = model / f"{file}.safetensors"
        tensors = load_file(path)
        path.unlink()
        change(tensors)
        save_file(
            {name: value.contiguous() for name, value in tensors.items()}, path, {"format": "pt"}
        )

    return edit


def without(file: str) -> Callable[[Path], object]:
    def edit(model: Path) -> None:
        shutil.rmtree(model / file) if (model / file).is_dir() else (model / file).unlink()

    return edit
