"""What the pipeline takes and returns: in the manner of diffusers, each mask under its word."""

import copy
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ml import GroundedOutput
from ml.grounding.given import pictures_of
from tests.builders.grounded import make_pipeline

DOG_AND_CAT = "a photograph of a dog and a cat"


@pytest.fixture(scope="module")
def tiny():
    return make_pipeline()


def pixels(out: GroundedOutput) -> np.ndarray:
    return np.stack([np.asarray(image) for image in out.images])


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


def test_the_snippet_of_the_readme(door):
    out = door(DOG_AND_CAT, entities=["dog", "cat"], seed=0)
    assert isinstance(out, GroundedOutput)
    assert isinstance(out.images[0], Image.Image) and out.images[0].size == (64, 64)
    mask, share = out.masks[0]["dog"], out.probabilities[0]["cat"]
    assert mask.dtype == bool and mask.shape == (64, 64)
    assert share.dtype == np.float32 and 0 <= share.min() and share.max() <= 1
    assert out.presence is None
    found = door.ground(out.images[0], entities=["dog", "bus"], min_presence=0.01)
    assert list(found.masks[0]) == list(found.presence[0]) == ["dog", "bus"]
    # The micro model is the real one, and knows what it drew.
    assert found.presence[0]["dog"] > 0.01 > found.presence[0]["bus"]
    assert not found.masks[0]["bus"].any() and not found.probabilities[0]["bus"].any()


def test_defaults_are_the_folders_and_the_engine_draws_the_same(door):
    out = door(DOG_AND_CAT, entities=["dog", "cat"], seed=3)
    made = door.engine.draw(
        [DOG_AND_CAT], [["dog", "cat"]], seeds=[3], steps=15, guidance_scale=4.0
    )
    assert np.array_equal(pixels(out), made.images)
    for place, word in enumerate(("dog", "cat")):
        assert np.array_equal(out.masks[0][word], made.masks[0][place])
        assert np.array_equal(out.probabilities[0][word], made.probabilities[0][place])


def test_output_types(tiny):
    given = {"prompt": DOG_AND_CAT, "entities": ["dog", "cat"], "seed": 1}
    pil, array, tensor = (tiny(**given, output_type=kind) for kind in ("pil", "np", "pt"))
    assert array.images.shape == (1, 64, 64, 3) and array.images.dtype == np.float32
    assert tensor.images.shape == (1, 3, 64, 64) and tensor.images.dtype == torch.float32
    assert np.array_equal((array.images * 255).round().astype(np.uint8), pixels(pil))
    assert np.array_equal(tensor.images.permute(0, 2, 3, 1).numpy(), array.images)
    mask = tensor.masks[0]["dog"]
    assert isinstance(mask, torch.Tensor) and mask.dtype == torch.bool
    assert np.array_equal(mask.numpy(), pil.masks[0]["dog"])
    assert tensor.probabilities[0]["cat"].dtype == torch.float32
    with pytest.raises(ValueError, match="output_type: expected pil, np or pt, got 'latent'"):
        tiny(**given, output_type="latent")


def test_a_list_of_prompts_takes_a_list_of_lists(tiny):
    prompts, words = [DOG_AND_CAT, "a photograph of a dining table"], [["cat"], ["dining table"]]
    out = tiny(prompts, entities=words, seed=5)
    assert [list(own) for own in out.masks] == words and out.seeds == [5, 6]
    alone = tiny(prompts[1], entities=words[1], seed=6)
    assert np.abs(pixels(out)[1].astype(int) - pixels(alone)[0]).max() <= 1
    for entities, match in (
        ([["dog"]], "flat list of words for one picture"),
        ("dog", "expected a list of words"),
        ([], "at least one word"),
        (["dog", "dog"], "asked for twice"),
        (["sheep"], "'sheep' is not in the prompt"),
        ({"dog", "cat"}, r"entities: expected a list, whose order is kept, got a set; .*sorted"),
    ):
        with pytest.raises(ValueError, match=match):
            tiny(DOG_AND_CAT, entities=entities, seed=0)
    with pytest.raises(ValueError, match="expected a list of words for each picture"):
        tiny([DOG_AND_CAT], entities=["dog"], seed=0)
    for sets in ([{"dog", "cat"}], {frozenset({"dog", "cat"})}):
        with pytest.raises(ValueError, match="expected a list, whose order is kept, got a"):
            tiny.ground(noise(1, 64, 64), entities=sets)
    assert list(tiny.ground(noise(64, 64), {"dog": 1, "cat": 2}.keys()).masks[0]) == ["dog", "cat"]
    with pytest.raises(ValueError, match="1 prompts, 2 entities"):
        tiny([DOG_AND_CAT], entities=[["dog"], ["cat"]], seed=0)


def test_seeds_and_generators(tiny):
    def drawn(**noise) -> GroundedOutput:
        return tiny([DOG_AND_CAT] * 2, entities=[["dog"]] * 2, num_inference_steps=2, **noise)

    def generator(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    one, again = drawn(generator=generator(7)), drawn(generator=generator(7))
    assert one.seeds == again.seeds and np.array_equal(pixels(one), pixels(again))
    assert one.seeds[0] != one.seeds[1] and not np.array_equal(*pixels(one))
    assert np.array_equal(pixels(drawn(seed=one.seeds)), pixels(one))
    advancing = generator(7)
    assert drawn(generator=advancing).seeds == one.seeds
    assert drawn(generator=advancing).seeds != one.seeds  # its state moves on
    each = drawn(generator=[generator(7), generator(7)])
    assert each.seeds == [one.seeds[0]] * 2 and np.array_equal(*pixels(each))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        free = drawn().seeds
        torch.manual_seed(1)
        assert drawn().seeds == free
        assert drawn().seeds != free
    for wrong, match in (
        ({"seed": 1, "generator": generator(1)}, "got both"),
        ({"seed": [1]}, "seed: expected one for each of 2 pictures, got 1"),
        ({"generator": [generator(1)]}, "generator: expected one for each of 2"),
        ({"generator": [1, 2]}, "expected torch.Generator, got 1"),
        ({"generator": 7}, "generator: expected a torch.Generator, or a list of .* got 7"),
        ({"seed": torch.tensor(3)}, r"seed: expected a whole number, or .* got tensor\(3\)"),
        ({"seed": -1}, "seed: expected"),
        ({"seed": 2**32 - 1}, "seed: expected"),  # the second picture's is too large
    ):
        with pytest.raises(ValueError, match=match):
            drawn(**wrong)


def test_a_callback_sees_every_step_and_may_change_the_latents(tiny):
    seen = []

    def look(pipe, step, timestep, kwargs):
        seen.append((step, int(timestep), tuple(kwargs["latents"].shape)))
        assert pipe is tiny.pipe
        return kwargs

    given = {"entities": ["dog"], "seed": 1, "num_inference_steps": 4}
    looked = tiny(DOG_AND_CAT, callback_on_step_end=look, **given)
    assert [step for step, *_ in seen] == [0, 1, 2, 3]
    assert {shape for *_, shape in seen} == {(1, 6, 16, 16)}
    assert sorted(seen, key=lambda entry: -entry[1]) == seen
    assert np.array_equal(pixels(looked), pixels(tiny(DOG_AND_CAT, **given)))

    def change(pipe, step, timestep, kwargs):
        return {"latents": torch.zeros_like(kwargs["latents"])} if step == 1 else kwargs

    changed = tiny(DOG_AND_CAT, callback_on_step_end=change, **given)
    assert not np.array_equal(pixels(changed), pixels(looked))


def test_a_callback_may_not_take_the_last_step_away(tiny):
    def interrupt(pipe, step, timestep, kwargs):
        pipe._interrupt = True
        return kwargs

    def without_guidance(pipe, step, timestep, kwargs):
        pipe._guidance_scale = 0.0
        return kwargs

    for callback, match in (
        (interrupt, "neither interrupts the drawing"),
        (without_guidance, "nor switches the guidance off"),
        (lambda *given: None, "got NoneType"),
    ):
        with pytest.raises(ValueError, match=f"callback_on_step_end: expected .*{match}"):
            tiny(DOG_AND_CAT, entities=["dog"], seed=1, callback_on_step_end=callback)
    assert tiny(DOG_AND_CAT, entities=["dog"], seed=1).masks  # the next call is none the worse


def test_a_callback_may_not_use_the_model(tiny):
    """Its passes would take the places of the last step's, in silence."""

    def ground(pipe, step, timestep, kwargs):
        tiny.ground(noise(64, 64), entities=["cat"])
        return kwargs

    def draw(pipe, step, timestep, kwargs):
        tiny(DOG_AND_CAT, entities=["cat"], seed=2)
        return kwargs

    for callback in (ground, draw):
        with pytest.raises(ValueError, match="callback_on_step_end: .*finish the drawing first"):
            tiny(DOG_AND_CAT, entities=["dog"], seed=1, callback_on_step_end=callback)
    assert tiny.ground(noise(64, 64), entities=["cat"]).masks  # afterwards it may


def test_given_pictures_come_in_every_form(tiny, tmp_path):
    array = noise(64, 64)
    picture = Image.fromarray(array)
    picture.save(tmp_path / "picture.png")
    expected = tiny.ground(array, entities=["dog", "cat"])
    for other in (picture, picture.convert("RGBA"), tmp_path / "picture.png"):
        found = tiny.ground(other, entities=["dog", "cat"])
        for word in ("dog", "cat"):
            assert np.array_equal(found.masks[0][word], expected.masks[0][word])
    for several in ([picture, array], np.stack([array, array])):
        found = tiny.ground(several, entities=[["dog", "cat"], ["bus"]])
        assert [list(own) for own in found.masks] == [["dog", "cat"], ["bus"]]
        assert np.allclose(
            found.probabilities[0]["dog"], expected.probabilities[0]["dog"], atol=1e-4
        )
    assert expected.seeds is None and pixels(expected).tolist() == [array.tolist()]


def test_another_size_is_squeezed_in_and_its_masks_come_back(tiny):
    """Against the same picture, resized by hand, and its masks, looked up place by place."""
    wide = Image.fromarray(noise(90, 150))
    found = tiny.ground(wide, entities=["dog"])
    small = tiny.ground(wide.resize((64, 64), Image.Resampling.LANCZOS), entities=["dog"])
    assert found.images[0].size == wide.size
    for own, other in (
        (found.masks[0]["dog"], small.masks[0]["dog"]),
        (found.probabilities[0]["dog"], small.probabilities[0]["dog"]),
    ):
        assert own.shape == (90, 150) and own.dtype == other.dtype
        for y, x in ((0, 0), (89, 149), (45, 75), (13, 140), (70, 3)):
            assert own[y, x] == other[int((y + 0.5) * 64 / 90), int((x + 0.5) * 64 / 150)]
    both = tiny.ground([wide, noise(64, 64)], entities=[["dog"], ["dog"]])
    assert [mask["dog"].shape for mask in both.masks] == [(90, 150), (64, 64)]
    with pytest.raises(ValueError, match="theirs are of 2 sizes"):
        tiny.ground([wide, noise(64, 64)], entities=[["dog"], ["dog"]], output_type="np")


@pytest.mark.parametrize(
    "image, match",
    [
        (noise(64, 64) / 1.0, r"got floats in 0..255: scale them to 0..1"),
        (np.full((64, 64, 3), np.nan), "got floats in nan..nan"),
        (noise(64, 64)[..., 0], r"array \(H,W,3\) RGB, .*got an array uint8 \(64, 64\)"),
        (np.zeros((64, 64)), r"got an array float64 \(64, 64\)"),
        (noise(0, 64), r"got an array uint8 \(0, 64, 3\)"),
        (torch.zeros(3, 0, 64), "got no pixels"),
        (torch.zeros(64, 64, 3), r"tensor \(3,H,W\), .*got a tensor torch.float32 \(64, 64, 3\)"),
        (torch.zeros(3, 64, 64, dtype=torch.uint8), "got a tensor torch.uint8"),
        (Image.new("RGB", (0, 0)), "at least one pixel, got 0x0"),
        (noise(1, 64, 64)[:0], "at least one picture"),
        (noise(64, 64).transpose(2, 0, 1), r"got an array uint8 \(3, 64, 64\)"),
        (Image.new("I;16", (64, 64)), "the PIL picture: its 16-bit values use so little"),
        (Image.new("F", (64, 64)), "8 or 16 bits a channel, got mode F"),
        ("nowhere.png", "no file 'nowhere.png'"),
        (None, "expected a picture"),
        ([], "at least one"),
        ([7], "expected a picture .*got int"),
    ],
)
def test_what_is_no_picture_is_refused(tiny, image, match):
    with pytest.raises(ValueError, match=match):
        tiny.ground(image, entities=["dog"])


def seen_file(folder: Path, kind: str) -> Path:
    """A picture file that a viewer shows otherwise than its stored samples lie."""
    file, array = folder / f"{kind}.png", noise(48, 64)
    if kind == "transparent":
        alpha = np.where(np.arange(64) < 32, 0, 255).astype(np.uint8)
        stored = np.dstack([array, np.broadcast_to(alpha, (48, 64))])
        Image.fromarray(stored).save(file)
    elif kind == "turned":
        exif = Image.Exif()
        exif[274] = 6
        Image.fromarray(array).save(file, exif=exif)
    else:
        Image.fromarray(array[..., 0].astype(np.uint16) * 257).save(file)
    return file


@pytest.mark.parametrize("kind", ["transparent", "turned", "deep"])
def test_a_pil_picture_is_read_as_its_file_is(kind, tmp_path):
    """Against the array, shown by hand."""
    array, file = noise(48, 64), seen_file(tmp_path, kind)
    expected = {
        "transparent": np.where(np.arange(64)[None, :, None] < 32, np.uint8(255), array),
        "turned": np.rot90(array, -1),
        "deep": np.repeat(array[..., :1], 3, axis=2),
    }[kind]
    loaded = Image.open(file)
    loaded.load()
    for picture in (file, Image.open(file), loaded, loaded.copy()):
        (own,), single = pictures_of(picture)
        assert single and own.dtype == np.uint8 and np.array_equal(own, expected)


def test_half_a_file_is_refused_as_a_pil_picture_too(tmp_path):
    Image.fromarray(noise(64, 64)).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:6000])
    with pytest.raises(ValueError, match="the PIL picture cannot be decoded"):
        pictures_of(Image.open(tmp_path / "half.png"))


def test_drawn_images_of_every_type_are_grounded_alike(tiny):
    given = {"prompt": [DOG_AND_CAT] * 2, "entities": [["dog"]] * 2, "seed": 1}
    outs = [tiny(**given, output_type=kind) for kind in ("pil", "np", "pt")]
    first, *others = (tiny.ground(out.images, entities=[["dog"]] * 2) for out in outs)
    assert np.array_equal(pixels(first), pixels(outs[0]))
    for other in others:
        assert np.array_equal(pixels(other), pixels(first))
        for own, expected in zip(other.probabilities, first.probabilities, strict=True):
            assert np.array_equal(own["dog"], expected["dog"])
    alone = tiny.ground(outs[2].images[1], entities=["dog"])
    assert np.array_equal(pixels(alone)[0], pixels(first)[1])


def test_every_level_of_a_float_picture_is_exact():
    levels = np.arange(256 * 3, dtype=np.uint32).reshape(16, 16, 3).astype(np.uint8)
    for floats in (np.float32, np.float64, np.float16):
        assert np.array_equal(pictures_of((levels / 255).astype(floats))[0][0], levels)


@pytest.mark.parametrize("prompt", [[], None, 3, b"a dog", [None], np.array("a dog")])
def test_what_is_no_prompt_is_refused(tiny, prompt):
    match = "prompt: expected a text, or a list of at least one"
    with pytest.raises(ValueError, match=match):
        tiny(prompt, entities=[])
    if prompt is not None:
        with pytest.raises(ValueError, match=match):
            tiny.ground(noise(64, 64), entities=["dog"], prompt=prompt)


def test_words_of_numpy_become_plain_keys(tiny):
    for image, entities in (
        (noise(64, 64), np.array(["dog", "cat"])),
        ([noise(64, 64)], np.array([["dog", "cat"]])),
    ):
        found = tiny.ground(image, entities=entities)
        assert [type(word) for word in found.masks[0]] == [str, str]
    with pytest.raises(ValueError, match="flat list"):
        tiny.ground(noise(64, 64), entities=np.array([["dog"]]))


def test_an_output_prints_as_one_line(tiny):
    out = tiny([DOG_AND_CAT] * 2, entities=[["dog", "cat"], ["dog"]], seed=3)
    assert repr(out) == (
        "GroundedOutput(2 pictures: PIL 64x64 'dog', 'cat' | 64x64 'dog'; seeds: 3, 4)"
    )
    words = [["dog", "cat", "bus", "cow", "car"]] * 9
    found = tiny.ground(np.stack([noise(64, 64)] * 9), entities=words, min_presence=0.0)
    assert repr(found).endswith("| ...; presence)") and len(repr(found)) < 200
    assert "'bus', ..." in repr(found) and "\n" not in repr(found)


def test_both_models_move_together():
    pipe = make_pipeline()
    assert pipe.to("cpu") is pipe and pipe.device == torch.device("cpu")
    assert pipe.dtype == torch.float32
    assert pipe.to(torch.device("meta")).device.type == "meta"
    assert {value.device.type for value in pipe.module.parameters()} == {"meta"}
    assert pipe.pipe.unet.device.type == pipe.pipe.text_encoder.device.type == "meta"
    with pytest.raises(ValueError, match="device 'gpu' is not available"):
        pipe.to("gpu")


def test_a_picture_takes_a_flat_list_and_a_prompt(tiny):
    with pytest.raises(ValueError, match="flat list"):
        tiny.ground(noise(64, 64), entities=[["dog"]])
    with pytest.raises(ValueError, match="1 images, 2 entities"):
        tiny.ground([noise(64, 64)], entities=[["dog"], ["cat"]])
    plain = tiny.ground(noise(64, 64), entities=["dog"])
    said = tiny.ground(noise(64, 64), entities=["dog"], prompt="a dog near an aeroplane")
    assert not np.allclose(plain.probabilities[0]["dog"], said.probabilities[0]["dog"], atol=1e-4)


def test_a_folder_that_names_no_steps_needs_them(tiny):
    from ml import GroundedDiffusionPipeline

    bare = GroundedDiffusionPipeline(tiny.pipe, tiny.module)
    with pytest.raises(ValueError, match="num_inference_steps: the model's folder names no"):
        bare("a dog", entities=["dog"], seed=0)
    with pytest.raises(ValueError, match="guidance_scale: the model's folder names no"):
        bare("a dog", entities=["dog"], seed=0, num_inference_steps=2)


def test_threads_take_turns_at_one_pipeline():
    """Their passes would meet in the hooks of one U-Net; it is slowed down, so that they do."""
    shared = make_pipeline()
    asked = [(noise(64, 64), ["dog", "cat"]), (255 - noise(64, 64), ["bus"])]

    def ground(place: int) -> list[np.ndarray]:
        picture, words = asked[place % 2]
        return list(shared.ground(picture, words).probabilities[0].values())

    alone = [ground(0), ground(1)]
    drawn = shared(DOG_AND_CAT, ["dog"], seed=1)
    slow = shared.pipe.unet.register_forward_pre_hook(lambda *_: time.sleep(0.005))
    with ThreadPoolExecutor(4) as threads:
        drawing = threads.submit(shared, DOG_AND_CAT, ["dog"], seed=1)
        together = list(threads.map(ground, range(6)))
    slow.remove()
    for place, own in enumerate(together):
        assert all(map(np.array_equal, own, alone[place % 2]))
    assert np.array_equal(pixels(drawing.result()), pixels(drawn))
    assert np.array_equal(drawing.result().probabilities[0]["dog"], drawn.probabilities[0]["dog"])
    assert pickle.loads(pickle.dumps(shared.pipe)) is not shared.pipe  # no lock goes along
    again = copy.deepcopy(shared).ground(*asked[1])
    assert np.array_equal(again.probabilities[0]["bus"], alone[1][0])
