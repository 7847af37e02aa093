"""Every file of the shipped models, damaged in every way: one clear error that names the folder it
lies in and says to bring it again. docs/faults.md has the table."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from ml.detectors import load_detector
from ml.diffusion.loading import load_pipeline
from ml.errors import INPUT, exit_code, one_line
from ml.foundation.judge import load_judge
from ml.pipeline.workspace import Workspace
from ml.segmenters import architecture
from ml.settings.profile import ROOT, load_params
from tests.builders.damage import DAMAGES, spoil

MICRO = ROOT / "data" / "foundation" / "micro"
PARAMS = load_params("ci")
OPEN = {
    "diffusion": lambda folder: load_pipeline(
        dataclasses.replace(PARAMS.diffusion, model=str(folder), device="cpu")
    ),
    "detector": lambda folder: load_detector("torchvision", str(folder), device="cpu"),
    "backbone": lambda folder: architecture(PARAMS.segmenter.architecture).build(
        str(folder), ["background", "dog"], PARAMS.segmenter
    ),
    "judge": load_judge,
}
FILES = [
    path.relative_to(MICRO).as_posix()
    for name in OPEN
    for path in sorted((MICRO / name).rglob("*"))
    if path.is_file()
]
MAY_LACK = {"diffusion/tokenizer/tokenizer_config.json": ("deleted", "{}")}
"""The tokenizer's own defaults hold then, and the lengths of texts are the encoder's."""


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return Path(shutil.copytree(MICRO, tmp_path_factory.mktemp("models") / "micro"))


@pytest.mark.parametrize("how", [name for name in DAMAGES if name != "flipped"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_model_is_one_clear_error(models, name, how):
    if how in MAY_LACK.get(name, ()):
        pytest.skip("may be missing")
    path, kept = models / name, (models / name).read_bytes()
    spoil(path, how)
    try:
        with pytest.raises((ValueError, OSError)) as raised:
            OPEN[name.split("/")[0]](models / name.split("/")[0])
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(kept)
    assert exit_code(raised.value) == INPUT
    said = one_line(raised.value)
    model, *_, last = path.relative_to(models).parts
    assert str(models / model) in said and (path.parent.name in said or last in said), said
    assert any(words in said for words in ("again", "expected", " set ")), said


@pytest.mark.parametrize("place", ["diffusion.model", "detector.model", "segmenter.backbone"])
def test_one_flipped_bit_in_a_model_is_refused_by_the_card_beside_it(models, tmp_path, place):
    """The file is valid, and all that is made with it would be wrong."""
    section, field = place.split(".")
    model = models / Path(getattr(getattr(PARAMS, section), field)).name
    params = dataclasses.replace(
        PARAMS,
        **{section: dataclasses.replace(getattr(PARAMS, section), **{field: str(model)})},
    )
    workspace = Workspace(tmp_path, "ci")
    workspace.digest(params, place)
    path = next(model.rglob("*.safetensors"))
    kept = path.read_bytes()
    spoil(path, "flipped")
    try:
        with pytest.raises(ValueError, match=f"{model} is not the model of .*card.json.*again"):
            workspace.digest(params, place)
    finally:
        path.write_bytes(kept)


def test_the_models_are_sound(models):
    for name, open_ in OPEN.items():
        open_(models / name)
