"""A saved pipeline that was edited by hand, and what programs ask one for."""

import copy
import json

import numpy as np
import pytest

from ml.diffusion.checkpoint import find_checkpoint
from ml.diffusion.configurations import check_configs
from ml.grounding.config import GroundingConfig
from ml.grounding.pipeline import GroundedDiffusionPipeline
from tests.builders.grounded import make_pipeline
from tests.builders.tiny import save_tiny_pipeline


@pytest.fixture(scope="module")
def grounded():
    return make_pipeline()


@pytest.fixture(scope="module")
def saved(grounded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    grounded.save_pretrained(folder)
    return folder


def edited(file, **values):
    before = json.loads(file.read_text())
    file.write_text(json.dumps(before | values))
    return before


@pytest.mark.parametrize(
    "field, value",
    [
        ("diffusion", None),
        ("diffusion", 7),
        ("diffusion", ""),
        ("batch_size", 0),
        ("batch_size", "many"),
        ("variant", 7),
        ("revision", []),
        ("dtype", "float8"),
        ("steps", "many"),
        ("guidance_scale", [7]),
    ],
)
def test_a_reference_says_what_save_pretrained_writes(saved, field, value):
    before = edited(saved / "pipeline.json", **{field: value})
    with pytest.raises(ValueError, match=f"pipeline.json: {field}: expected"):
        GroundedDiffusionPipeline.from_pretrained(saved)
    (saved / "pipeline.json").write_text(json.dumps(before))


@pytest.mark.parametrize(
    "field, value",
    [
        ("width", 0),
        ("width", "64"),
        ("layers", -1),
        ("heads", 1.5),
        ("feature_channels", {}),
        ("feature_channels", []),
        ("feature_channels", {"x": 1}),
        ("evidence_timesteps", []),
        ("evidence_timesteps", 7),
        ("evidence_timesteps", [1000]),
        ("feature_timestep", None),
    ],
)
def test_a_module_s_configuration_holds_numbers_that_make_one(saved, field, value):
    file = saved / "grounding" / "config.json"
    before = edited(file, **{field: value})
    with pytest.raises(ValueError, match="grounding/config.json: "):
        GroundingConfig.load(file)
    file.write_text(json.dumps(before))
    assert GroundingConfig.load(file)


@pytest.mark.parametrize(
    "more, match",
    [
        ({"timestep": -1}, "timestep: expected a whole number from 0 to 999"),
        ({"timestep": 1000}, "timestep: "),
        ({"timestep": 1.5}, "timestep: "),
        ({"seed": -1}, "seed: "),
        ({"seed": 2**32}, "seed: "),
        ({"seed": 1.5}, "seed: "),
        ({"seed": "x"}, "seed: "),
        ({"min_presence": float("nan")}, "min_presence: "),
        ({"min_presence": [0.5]}, "min_presence: "),
    ],
)
def test_numbers_that_a_program_gives_have_ranges(grounded, more, match):
    with pytest.raises(ValueError, match=match):
        grounded.ground(np.zeros((1, 64, 64, 3), np.uint8), [["dog"]], **more)


@pytest.mark.parametrize(
    "more",
    [
        {"num_inference_steps": 0},
        {"num_inference_steps": 2.5},
        {"seed": 1.5},
        {"seed": [1.5]},
        {"seed": True},
        {"seed": "7"},
        {"guidance_scale": float("nan")},
        {"guidance_scale": 0},
        {"seed": 2**32},
    ],
)
def test_drawing_too(grounded, more):
    asked = {"seed": 1, "num_inference_steps": 2, "guidance_scale": 3.0} | more
    with pytest.raises(ValueError, match=f"{next(iter(more))}: expected"):
        grounded("a dog", ["dog"], **asked)


def test_numbers_of_numpy_are_numbers(grounded):
    made = grounded(
        "a dog",
        ["dog"],
        seed=np.arange(1),
        num_inference_steps=np.int64(2),
        guidance_scale=np.float32(3),
    )
    assert made.seeds == [0] and made.images[0].size == (64, 64)


def test_a_model_without_its_tokenizer_or_noise_schedule_is_refused_at_once(tmp_path):
    folder = save_tiny_pipeline(tmp_path / "model")
    find_checkpoint(str(folder))
    file = folder / "scheduler" / "scheduler_config.json"
    said = json.loads(file.read_text())
    file.write_text("{}")
    with pytest.raises(ValueError, match="scheduler_config.json does not say .*beta_schedule"):
        find_checkpoint(str(folder))
    file.write_text(json.dumps(said))
    (folder / "tokenizer").rename(folder / "token")
    with pytest.raises(ValueError, match="tokenizer is missing or holds no tokenizer.json"):
        find_checkpoint(str(folder))


def test_a_text_encoder_of_another_kind_is_refused(tmp_path):
    folder = save_tiny_pipeline(tmp_path / "model")
    parts = {
        "unet": "config",
        "vae": "config",
        "text_encoder": "config",
        "scheduler": "scheduler_config",
    }
    given = {
        part: json.loads((folder / part / f"{name}.json").read_text())
        for part, name in parts.items()
    }
    check_configs(copy.deepcopy(given), "StableDiffusionPipeline")
    for part, field in (("unet", "center_input_sample"), ("vae", "use_quant_conv")):
        with pytest.raises(ValueError, match=f"{part}/config.json: {field} is 'perhaps'"):
            check_configs(
                given | {part: given[part] | {field: "perhaps"}}, "StableDiffusionPipeline"
            )
    given["text_encoder"]["model_type"] = "bert"
    with pytest.raises(ValueError, match="text_encoder/config.json: model_type is 'bert'"):
        check_configs(given, "StableDiffusionPipeline")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(
        json.dumps(index | {"scheduler": ["diffusers", "EDMEulerScheduler"]})
    )
    with pytest.raises(ValueError, match="beta_schedule is None"):
        find_checkpoint(str(folder))
