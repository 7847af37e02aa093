"""Every reader of what people bring: any bytes, and sound files with parts changed, end in what the
file says or in one clear error. More inputs: `make fuzz`."""

import io
import json
import pickle
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from ml.datasets.class_lists import read_classes, read_palette
from ml.datasets.coco import CATEGORIES
from ml.datasets.coco_annotations import annotation_runs, read_annotations
from ml.datasets.mat import read_struct_matrix
from ml.datasets.split_lists import read_list
from ml.detectors.maskrcnn_config import MaskRCNNConfig, read_config
from ml.detectors.weights import load_weights
from ml.grounding.config import GroundingConfig, make_config
from ml.grounding.opening import _read_reference
from ml.images.label_maps import open_mask
from ml.images.photographs import open_picture, picture_size
from ml.images.png import decode_png, encode_png
from ml.images.run_lengths import decode_rle, encode_rle, run_lengths, runs_to_mask
from ml.pipeline.audit import read_ticks
from ml.pipeline.workspace import Workspace
from ml.segmenters.backbones import normalisation
from ml.settings.params import Params
from ml.settings.profile import ROOT, load_params
from ml.store.files import read_json, sha256_json
from ml.store.manifest import Manifest, read_manifest
from ml.store.reading import read_object, read_text, read_yaml
from ml.words.texts import read_texts
from ml.words.vocabulary import Vocabulary, load_vocabulary
from tests.builders import phototrees
from tests.fuzz.given import TEXTS, VALUES, altered, as_json, clear, damaged

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
LABELS = np.arange(108, dtype=np.uint8).reshape(9, 12) % 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("given")


@pytest.fixture(scope="module", autouse=True)
def hub_folder(tmp_path_factory):
    """Converted weights go below torch's hub folder: not the user's in a test."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path_factory.mktemp("hub")))
    yield
    torch.hub.set_dir(before)


def brought(folder: Path, name: str, data: bytes, read: Callable[[Path], object]) -> object:
    file = folder / name
    file.write_bytes(data)
    return clear(lambda: read(file), folder)


def encoded(kind: str, mode: str, **how) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(buffer, kind, **how)
    return buffer.getvalue()


# Text, YAML, JSON

TEXT_READERS = {
    "text": read_text,
    "YAML": read_yaml,
    "JSON": read_object,
    "note": lambda file: read_json(file, {"a": int}),
    "classes": read_classes,
    "palette": read_palette,
    "list": lambda file: read_list(file, "a yard"),
    "prompts": lambda file: read_texts(str(file), load_vocabulary("voc-1")),
}


@pytest.mark.parametrize("name", TEXT_READERS)
@given(
    data=st.one_of(
        st.binary(max_size=60),
        TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.lists(TEXTS, max_size=5).map(lambda all_: "\n".join(all_).encode("utf-8", "ignore")),
        VALUES.map(
            lambda value: yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "ignore")
        ),
        VALUES.map(as_json),
    )
)
def test_any_bytes_are_read_or_refused(folder, name, data):
    brought(folder, "given.txt", data, TEXT_READERS[name])


def dumped(value: object) -> bytes:
    return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "ignore")


WORDS = {"seen": ["dog", "dining table"], "unseen": ["bus"], "words": {"bus": ["bus", "coach"]}}


@given(data=st.one_of(altered(WORDS), VALUES).map(dumped))
def test_a_vocabulary_is_one_or_is_refused(folder, data):
    found = brought(folder, "words.yaml", data, load_vocabulary)
    assert found is None or isinstance(found, Vocabulary) and 1 <= len(found.classes) <= 254


def flat(values: dict, above: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in values.items():
        found |= (
            flat(value, f"{above}{name}.") if isinstance(value, dict) else {above + name: value}
        )
    return found


MICRO = yaml.safe_load((ROOT / "params.yaml").read_text())


@given(field=st.sampled_from(sorted(flat(MICRO))), value=VALUES)
def test_a_setting_arrives_as_it_was_written_or_is_refused(folder, field, value):
    nested = value
    for name in reversed(field.split(".")):
        nested = {name: nested}
    params = brought(folder, "yard.yaml", dumped(nested), lambda file: load_params(str(file)))
    if isinstance(params, Params) and field != "profile":
        found = params
        for name in field.split("."):
            found = getattr(found, name)
        plain = list(found) if isinstance(found, tuple) else found
        assert plain == value or yaml.safe_load(dumped(value)) == plain


@given(data=altered(MICRO).map(dumped))
def test_a_profile_of_any_shape_is_read_or_refused(folder, data):
    found = brought(folder, "whole.yaml", data, lambda file: load_params(str(file)))
    assert found is None or isinstance(found, Params)


# Pictures

PICTURES = {
    "PNG": encoded("PNG", "RGB"),
    "PNG, palette": encoded("PNG", "P"),
    "PNG, 1 bit": encoded("PNG", "1"),
    "JPEG": encoded("JPEG", "RGB"),
    "JPEG, CMYK": encoded("JPEG", "CMYK"),
    "TIFF": encoded("TIFF", "RGB"),
    "TIFF, packed": encoded("TIFF", "L", compression="tiff_lzw"),
    "WebP": encoded("WEBP", "RGB"),
    "GIF": encoded("GIF", "P"),
    "BMP": encoded("BMP", "RGB"),
}


@pytest.mark.parametrize("kind", PICTURES)
@given(data=st.data())
def test_a_damaged_picture_is_a_picture_or_is_refused(folder, kind, data):
    given_bytes = data.draw(damaged(PICTURES[kind]))
    found = clear(lambda: open_picture(given_bytes))
    assert found is None or found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3
    brought(folder, "p.bin", given_bytes, picture_size)
    stored = clear(lambda: decode_png(given_bytes))
    assert stored is None or stored.dtype == np.uint8 or kind != "PNG"
    mask = brought(folder, "m.bin", given_bytes, open_mask)
    if mask is not None:
        labels = clear(mask.labels)
        assert labels is None or labels.ndim == 2 and labels.dtype.kind in "ui"
        clear(mask.colours)
        clear(mask.greys)


@given(
    text=st.one_of(
        TEXTS, VALUES.map(json.dumps), altered({"size": [9, 12], "counts": "06"}).map(json.dumps)
    )
)
def test_run_lengths_are_a_mask_or_are_refused(text):
    found = clear(lambda: decode_rle(text))
    assert found is None or found.dtype == bool and found.ndim == 2


@given(
    mask=st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
        lambda size: st.lists(
            st.booleans(), min_size=size[0] * size[1], max_size=size[0] * size[1]
        ).map(lambda bits: np.array(bits).reshape(size))
    )
)
def test_a_mask_comes_back_from_its_run_lengths(mask):
    assert np.array_equal(decode_rle(encode_rle(mask)), mask)


@given(text=st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=30))
def test_any_counts_are_numbers_or_are_refused(text):
    runs = clear(lambda: run_lengths(text))
    assert runs is None or all(isinstance(run, int) for run in runs)
    clear(lambda: runs_to_mask(runs or [], 3, 4))


def mat_file() -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"GTcls": {"Segmentation": LABELS, "CategoriesPresent": [1, 2]}})
    return buffer.getvalue()


MAT = mat_file()


@given(data=st.one_of(st.binary(max_size=300), damaged(MAT)))
def test_a_damaged_matlab_file_is_a_matrix_or_is_refused(data):
    try:
        found = read_struct_matrix(data, "GTcls", "Segmentation")
    except ValueError:  # `ml.datasets.voc.read_mat` adds the file's name
        return
    assert found.ndim == 2


# Data sets, folders of stages

ANNOTATIONS = phototrees.coco_annotations()


@given(value=altered({key: ANNOTATIONS[key] for key in ("images", "categories", "annotations")}))
def test_altered_annotations_give_masks_or_are_refused(folder, value):
    found = brought(folder, "coco.json", as_json(value), lambda f: read_annotations(f, CATEGORIES))
    for image_id, own in (found or ({}, {}))[1].items():
        image = found[0][image_id]
        for annotation in own:
            if image["height"] * image["width"] < 10**6:
                runs = annotation_runs(annotation, image["height"], image["width"])
                assert sum(runs) == image["height"] * image["width"]


MANIFEST = asdict(
    Manifest(
        "prompts",
        1,
        {"seed": 1},
        {"masks": "a" * 64},
        {"x.parquet": {"sha256": "b" * 64, "bytes": 1, "rows": 1}},
        {"rows": 1},
    )
)


@given(value=altered({"schema": 1} | MANIFEST))
def test_an_altered_manifest_with_its_own_digest_is_read_or_refused(folder, value):
    if isinstance(value, dict):
        value = value | {"digest": sha256_json(value)}
    place = folder / "prompts"
    place.mkdir(exist_ok=True)
    (place / "manifest.json").write_bytes(as_json(value))
    found = clear(lambda: read_manifest(place, verify=False), place)
    assert found is None or all(isinstance(entry["sha256"], str) for entry in found.files.values())
    clear(lambda: read_manifest(place), place)


TICKS = {
    "synthetic_dataset": "a" * 64,
    "ticks": [{"key": "k", "entity": "dog", "verdict": "right"}],
}


@given(value=altered(TICKS))
def test_altered_ticks_are_refused(folder, value):
    workspace = Workspace(folder / "root", "micro")
    assert brought(folder, "t.json", as_json(value), lambda f: read_ticks(f, workspace)) is None


# Models


def weights(kind: str) -> bytes:
    tensors = {"a.weight": torch.ones(3, 2), "b": torch.zeros(4, dtype=torch.int64)}
    if kind == ".safetensors":
        return save(tensors)
    if kind == ".pkl":
        arrays = {name: value.numpy() for name, value in tensors.items()}
        return pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"})
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


WEIGHTS = {kind: weights(kind) for kind in (".safetensors", ".pkl", ".pth")}


@pytest.mark.parametrize("kind", WEIGHTS)
@given(data=st.data())
def test_damaged_weights_are_tensors_or_are_refused(folder, kind, data):
    given_bytes = data.draw(st.one_of(damaged(WEIGHTS[kind]), st.binary(max_size=80)))
    found = brought(folder, f"w{kind}", given_bytes, load_weights)
    assert found is None or all(isinstance(v, torch.Tensor) for v in found.tensors.values())


GROUNDING = json.loads(
    json.dumps(asdict(make_config(load_params().grounding, {8: 16, 16: 8}, 32, 64, 60, "seeded")))
)
REFERENCE = {
    "diffusion": "diffusion",
    "batch_size": 4,
    "steps": 20,
    "scheduler": None,
    "dtype": None,
    "taught": ["dog"],
}
PROCESSOR = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
             "do_rescale": True, "rescale_factor": 1 / 255}  # fmt: skip
CONFIGURATIONS = {
    "grounding": (GROUNDING, GroundingConfig.load),
    "Mask R-CNN": (asdict(MaskRCNNConfig(classes=("dog",))), read_config),
    "reference": (REFERENCE, _read_reference),
    "preprocessor": (PROCESSOR, lambda file: normalisation(read_object(file), "a backbone")),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
@given(data=st.data())
def test_an_altered_configuration_is_followed_or_refused(folder, name, data):
    sound, read = CONFIGURATIONS[name]
    value = data.draw(altered(json.loads(json.dumps(sound))))
    brought(folder, "config.json", as_json(value), read)


def test_sound_files_are_read(folder):
    """What is altered above is sound before it is altered."""
    for name, (sound, read) in CONFIGURATIONS.items():
        assert brought(folder, "config.json", as_json(sound), read) is not None, name
    for kind, data in WEIGHTS.items():
        assert len(brought(folder, f"w{kind}", data, load_weights).tensors) == 2
    assert read_struct_matrix(MAT, "GTcls", "Segmentation").shape == LABELS.shape
    assert np.array_equal(decode_png(encode_png(PIXELS)), PIXELS)
    assert all(open_picture(data).shape == PIXELS.shape for data in PICTURES.values())
    (folder / "coco.json").write_bytes(as_json(ANNOTATIONS))
    assert len(read_annotations(folder / "coco.json", CATEGORIES)[0]) == 3
