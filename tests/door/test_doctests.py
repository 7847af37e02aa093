"""The examples in the docstrings of the public door, run."""

import doctest
import importlib

import pytest

DOOR = (
    "ml.grounding.pipeline",
    "ml.grounding.output",
    "ml.grounding.teaching",
    "ml.segmenters",
    "ml.segmenters.processor",
    "ml.words.vocabulary",
)


@pytest.fixture(scope="module")
def names(grounding_folder, segmenter_made, door):
    picture = door("a photograph of a dog", entities=["dog"], seed=1).images[0]
    return {
        "folder": grounding_folder,
        "segmenter_folder": segmenter_made,
        "pipe": door,
        "picture": picture.resize((120, 90)),
    }


@pytest.mark.parametrize("module", DOOR)
def test_examples_print_what_they_show(module, names):
    found = doctest.testmod(
        importlib.import_module(module), extraglobs=dict(names), optionflags=doctest.ELLIPSIS
    )
    assert found.attempted and not found.failed


def test_every_public_call_has_an_example_and_says_what_it_takes():
    import ml

    calls = [ml.GroundedDiffusionPipeline.__call__, ml.GroundedDiffusionPipeline.ground]
    calls += [ml.GroundedDiffusionPipeline.from_pretrained, ml.load_segmenter, ml.load_vocabulary]
    for call in calls:
        for part in ("Args:", "Returns:", "Raises:", "Examples:"):
            assert part in call.__doc__, (call, part)
