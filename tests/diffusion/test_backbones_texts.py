"""Words and lengths of texts where T5 reads: FLUX, and Stable Diffusion 3's third encoder."""

import json

import pytest
import torch

from ml.diffusion.encoding import encode_prompts, word_embeddings
from ml.diffusion.tokens import (
    all_positions,
    refuse_long_prompts,
    text_length,
    text_limit,
    text_width,
    word_positions,
)
from ml.words.text_limit import find_limit
from tests.builders.tiny import settings
from tests.builders.tiny_flow import T5_WIDTH, WIDTHS, save_tiny_flow, t5_tokenizer, tiny_flow

PROMPT = "a photograph of a dog and a potted plant on grass"


@pytest.fixture(scope="module")
def flux():
    return tiny_flow("flux-schnell")


@pytest.fixture(scope="module")
def sd3():
    return tiny_flow("sd3-t5")


def test_a_word_stands_at_its_tokens_of_t5(flux):
    pieces = t5_tokenizer().tokenize(PROMPT)
    for word in ("dog", "potted plant", "grass"):
        places = word_positions(flux, PROMPT, word)
        assert "".join(pieces[i] for i in places).replace("▁", " ").strip() == word
        assert places == list(range(places[0], places[-1] + 1))
    assert word_positions(flux, PROMPT, "dog") == [4]  # T5 has no start token
    assert pieces[:5] == ["▁a", "▁photograph", "▁of", "▁a", "▁dog"]
    assert [len(p) for p in all_positions(flux, "a dog on a dog", "dog")] == [1, 1]
    with pytest.raises(ValueError, match="bus"):
        word_positions(flux, PROMPT, "bus")


def test_a_word_stands_at_its_tokens_of_clip_in_stable_diffusion_3(sd3):
    assert word_positions(sd3, PROMPT, "dog") == [5]  # after the start token
    assert text_width(sd3) == sum(WIDTHS)
    found = word_embeddings(sd3, ["dog", "potted plant"])
    hidden = encode_prompts(sd3, ["a photograph of a dog"]).hidden
    clip, pooled = sd3._get_clip_prompt_embeds(["a photograph of a dog"], clip_model_index=0)
    second, _ = sd3._get_clip_prompt_embeds(["a photograph of a dog"], clip_model_index=1)
    assert found.shape == (2, sum(WIDTHS)) and pooled.shape == (1, WIDTHS[0])
    assert torch.allclose(found[0], torch.cat([clip[0, 5], second[0, 5]]), atol=1e-5)
    assert torch.equal(hidden[0, 5, sum(WIDTHS) :], torch.zeros(T5_WIDTH - sum(WIDTHS)))


def test_a_words_embedding_in_flux_is_t5s(flux):
    assert text_width(flux) == T5_WIDTH
    found = word_embeddings(flux, ["potted plant"])
    text = "a photograph of a potted plant"
    ids = flux.tokenizer_2(
        text, padding="max_length", max_length=512, return_tensors="pt"
    ).input_ids
    states = flux.text_encoder_2(ids)[0][0]
    places = word_positions(flux, text, "potted plant")
    assert len(places) > 2
    assert torch.allclose(found[0], states[places].mean(0), atol=1e-5)


def test_texts_that_are_too_long_are_refused_never_cut(flux, sd3):
    """Of SD 3 words are read from CLIP, of FLUX from T5; CLIP reads 24 tokens of both."""
    assert text_length(sd3) == 24 and text_length(flux) == 512
    for pipe in (flux, sd3):
        with pytest.raises(ValueError, match="takes 26 tokens, .* reads 24 at most"):
            encode_prompts(pipe, ["a dog " * 12])


def test_each_encoder_has_its_own_limit(flux, sd3):
    long = "red grass and blue grass on red grass and blue grass on red grass"  # T5 spells more
    clip, t5 = (len(cut(long).input_ids) for cut in (flux.tokenizer, flux.tokenizer_2))
    assert clip < 24 < t5
    for pipe in (flux, sd3):
        assert encode_prompts(pipe, [long]).hidden.shape[1] > 24
    assert flux.tokenizer_2.model_max_length >= 512  # not CLIP's, nor one that would stick
    flux.t5_tokens = 24
    try:
        with pytest.raises(ValueError, match=f"takes {t5} tokens, .* reads 24 at most"):
            encode_prompts(flux, [long])
    finally:
        flux.t5_tokens = None


def test_a_t5_that_the_index_leaves_out_is_not_asked(tmp_path):
    folder = save_tiny_flow(tmp_path / "model", "sd3-t5")
    assert find_limit(str(folder), t5_tokens=1).fault("a dog")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(
        json.dumps(index | {"text_encoder_3": [None, None], "tokenizer_3": [None, None]})
    )
    assert not find_limit(str(folder), t5_tokens=1).fault("a dog")


def test_what_t5_is_told_to_read_counts(sd3, flux):
    spelled = "a dog and a cat on red grass and blue grass"  # for T5's tokenizer more than for CLIP
    clip, t5 = (len(cut(spelled).input_ids) for cut in (sd3.tokenizer, t5_tokenizer()))
    assert clip == 13 and t5 == 19
    encode_prompts(sd3, [spelled])
    sd3.t5_tokens = flux.t5_tokens = 17
    try:
        for pipe in (sd3, flux):
            with pytest.raises(ValueError, match="takes 19 tokens, .* reads 17 at most"):
                encode_prompts(pipe, [spelled])
            encode_prompts(pipe, ["a dog and a cat"])
        assert text_length(flux) == 17 and text_length(sd3) == 24
    finally:
        sd3.t5_tokens = flux.t5_tokens = None


@pytest.mark.parametrize("name", ["flux-schnell", "sd3-t5", "sd3"])
def test_the_same_limit_from_the_files_alone(name, tmp_path):
    folder, text = save_tiny_flow(tmp_path / "model", name), "a dog on red grass and blue grass"
    pipe = tiny_flow(name)
    for asked in (None, 12):
        pipe.t5_tokens = asked
        limit = find_limit(str(folder), t5_tokens=asked)
        assert limit.most == text_limit(pipe).most
        assert limit.fault(text) == text_limit(pipe).fault(text)
        assert bool(limit.fault(text)) is (asked == 12 and name != "sd3")
        drawn_by = "FlowMatchEulerDiscreteScheduler"
        diffusion = settings(folder, scheduler=drawn_by, t5_tokens=asked)
        row = {"text": text, "words": ["grass"]}
        if limit.fault(text):
            with pytest.raises(ValueError, match="reads 12 at most"):
                refuse_long_prompts(diffusion, [row])
        else:
            refuse_long_prompts(diffusion, [row])


def test_t5_spells_what_it_never_learned(flux):
    limit = text_limit(flux)
    assert limit.spelled("zebra") and not limit.spelled("dog")
