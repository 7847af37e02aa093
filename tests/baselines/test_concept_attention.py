"""ConceptAttention's maps: the picture stays, and a block's inner products by hand."""

import numpy as np
import pytest
import torch

from ml.baselines import concept_attention
from ml.baselines.concept_attention import (
    BACKGROUND,
    ConceptTokens,
    concept_maps,
    concept_products,
)
from ml.diffusion.backbones.kinds import backbone_of
from ml.diffusion.backbones.protocol import EncodedPrompts
from ml.diffusion.encoding import encode_prompts
from ml.diffusion.features import denoiser_features, feature_channels
from ml.diffusion.sampling import sample
from ml.diffusion.tokens import word_positions
from ml.words.phrases import query_text
from tests.builders.tiny import tiny_pipeline
from tests.builders.tiny_transformers import BLOCKS, HEAD_WIDTH, HEADS, tiny_flux, tiny_sd3

TWO, ONE = "a photograph of a dog and a dining table", "a photograph of a bus"
CALL = {"steps": 2, "guidance_scale": 4.0}
CONCEPTS = [["dog", "dining table", BACKGROUND], ["bus", BACKGROUND]]


@pytest.fixture(scope="module")
def pipe():
    return tiny_sd3()


def one_pass(pipe, latents, prompts, timestep=300):
    text = encode_prompts(pipe, prompts)
    with torch.no_grad():
        return backbone_of(pipe).predict(pipe, latents, timestep, text)


def test_the_picture_and_daams_maps_are_equal_to_the_bit_with_and_without_concepts(pipe):
    words = [["dog"], ["bus"]]
    plain = sample(pipe, [TWO, ONE], [3, 4], words=words, features=True, **CALL)
    tokens = ConceptTokens(pipe, CONCEPTS)
    with tokens.taken_along():
        beside = sample(pipe, [TWO, ONE], [3, 4], words=words, features=True, **CALL)
    assert np.array_equal(plain.images, beside.images)
    assert torch.equal(plain.latents, beside.latents)
    for a, b in zip(plain.daam, beside.daam, strict=True):
        assert torch.equal(a, b)
    assert all(torch.equal(plain.features[r], beside.features[r]) for r in plain.features)
    after = sample(pipe, [TWO, ONE], [3, 4], **CALL)  # and nothing stays behind
    assert np.array_equal(plain.images, after.images)
    assert [own.shape for own in tokens.products()] == [(BLOCKS, 3, 16, 16), (BLOCKS, 2, 16, 16)]


def by_hand(pipe, latents, prompt, words, timestep):
    """(blocks,n,N): every block written out with its weights, the concepts beside the picture."""
    net, text = pipe.transformer, encode_prompts(pipe, [prompt])
    hidden = net.pos_embed(latents)
    temb = net.time_text_embed(torch.full((1,), float(timestep)), text.pooled)
    prompt_tokens = net.context_embedder(text.hidden)
    states = []
    for word in words:
        asked = query_text(word)
        own = encode_prompts(pipe, [asked]).hidden[0]
        states.append(own[word_positions(pipe, asked, word)].mean(0))
    concepts = net.context_embedder(torch.stack(states))[None]

    def heads(x):
        return x.unflatten(-1, (HEADS, HEAD_WIDTH)).transpose(1, 2)

    def projected(a, pixels, tokens):
        """Queries, keys and values of pixels and then of tokens."""
        return (
            torch.cat(
                [a.norm_q(heads(a.to_q(pixels))), a.norm_added_q(heads(a.add_q_proj(tokens)))], 2
            ),
            torch.cat(
                [a.norm_k(heads(a.to_k(pixels))), a.norm_added_k(heads(a.add_k_proj(tokens)))], 2
            ),
            torch.cat([heads(a.to_v(pixels)), heads(a.add_v_proj(tokens))], 2),
        )

    def attended(q, k, v):
        shares = (q @ k.transpose(-2, -1) / HEAD_WIDTH**0.5).softmax(-1)
        return (shares @ v).transpose(1, 2).flatten(2)

    found = []
    for block in net.transformer_blocks:
        pixels = block.norm1(hidden, emb=temb)[0]
        picture = attended(*projected(block.attn, pixels, norm_text(block, prompt_tokens, temb)[0]))
        normed, gates = norm_text(block, concepts, temb)
        q, k, v = projected(block.attn, pixels, normed)
        size = pixels.shape[1]
        own = attended(q[:, :, size:], k, v)  # the concepts' queries, and keys of picture and them
        found.append((own @ picture[:, :size].transpose(1, 2))[0])
        if gates is not None:
            gate, shift, scale, gate_mlp = gates
            concepts = concepts + gate[:, None] * block.attn.to_add_out(own)
            inner = block.norm2_context(concepts) * (1 + scale[:, None]) + shift[:, None]
            concepts = concepts + gate_mlp[:, None] * block.ff_context(inner)
        prompt_tokens, hidden = block(hidden, prompt_tokens, temb)
    return torch.stack(found)


def norm_text(block, tokens, temb):
    if block.context_pre_only:
        return block.norm1_context(tokens, temb), None
    normed, *gates = block.norm1_context(tokens, emb=temb)
    return normed, gates


@torch.no_grad()
def test_a_passs_products_are_those_of_the_blocks_written_out(pipe):
    latents = torch.randn(2, 6, 16, 16, generator=torch.Generator().manual_seed(0))
    tokens = ConceptTokens(pipe, CONCEPTS)
    with tokens.taken_along():
        one_pass(pipe, latents, [TWO, ONE])
    for i, prompt in enumerate((TWO, ONE)):
        expected = by_hand(pipe, latents[i : i + 1], prompt, CONCEPTS[i], 300)
        found = tokens.products()[i]
        torch.testing.assert_close(found.flatten(2), expected, rtol=1e-3, atol=1e-3)
        assert found.std() > 0


@torch.no_grad()
def test_concepts_that_are_fluxs_own_text_leave_its_texts_own_outputs(monkeypatch):
    flux = tiny_flux()
    random = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 2, 16, 16, generator=random)
    text = EncodedPrompts(
        torch.randn(1, 5, 12, generator=random), torch.randn(1, 6, generator=random)
    )
    own = {f"token {i}": state for i, state in enumerate(text.hidden[0])}
    monkeypatch.setattr(concept_attention, "_word_states", lambda pipe, words: own)
    tokens = ConceptTokens(flux, [list(own)])
    outputs = {"to_out": [], "to_add_out": []}
    for block in flux.transformer.transformer_blocks:
        for name, layer in (
            ("to_out", block.attn.to_out[0]),
            ("to_add_out", block.attn.to_add_out),
        ):
            layer.register_forward_pre_hook(
                lambda _, given, name=name: outputs[name].append(given[0])
            )
    predict = backbone_of(flux).predict
    plain = predict(flux, latents, 300, text)
    expected = [
        (of_text @ of_picture.transpose(1, 2))[0]
        for of_text, of_picture in zip(outputs["to_add_out"], outputs["to_out"], strict=True)
    ]
    with tokens.taken_along():
        assert torch.equal(predict(flux, latents, 300, text), plain)
    (found,) = tokens.products()
    assert found.shape == (2, 5, 8, 8)
    torch.testing.assert_close(found.flatten(2), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_products_are_the_mean_over_passes_and_do_not_depend_on_the_batch(pipe):
    both = concept_products(pipe, [TWO, ONE], [3, 4], CONCEPTS, **CALL)
    alone = concept_products(pipe, [ONE], [4], CONCEPTS[1:], **CALL)
    torch.testing.assert_close(both[1], alone[0], rtol=1e-3, atol=1e-3)
    latents = torch.randn(1, 6, 16, 16, generator=torch.Generator().manual_seed(0))
    each = []
    for times in ((100,), (700,), (100, 700)):
        tokens = ConceptTokens(pipe, [["bus"]])
        with tokens.taken_along():
            for timestep in times:
                one_pass(pipe, latents, [ONE], timestep)
        each.append(tokens.products()[0])
    torch.testing.assert_close(each[2], (each[0] + each[1]) / 2)


def test_maps_share_each_place_among_the_concepts(pipe):
    products = torch.randn(BLOCKS, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    maps = concept_maps(products)
    torch.testing.assert_close(maps.sum(0), torch.ones(4, 4))
    own = products[1].exp()
    torch.testing.assert_close(concept_maps(products, [1]), own / own.sum(0))


def test_u_nets_and_empty_asks_are_refused(pipe):
    with pytest.raises(ValueError, match="needs a diffusion transformer.*StableDiffusionPipeline"):
        concept_products(tiny_pipeline(), [ONE], [1], [["bus"]], **CALL)
    with pytest.raises(ValueError, match="one concept a picture at least"):
        ConceptTokens(pipe, [["bus"], []])
    with pytest.raises(ValueError, match="one list of concepts a prompt"):
        concept_products(pipe, [ONE], [1], CONCEPTS, **CALL)
    with pytest.raises(ValueError, match="no pass of the transformer"):
        ConceptTokens(pipe, [["bus"]]).products()


def test_features_of_chosen_blocks_are_a_part_of_all_blocks_features(pipe):
    latents = torch.randn(1, 6, 16, 16, generator=torch.Generator().manual_seed(0))
    every = denoiser_features(pipe, latents, [ONE], 300, blocks=range(BLOCKS))[16]
    own = denoiser_features(pipe, latents, [ONE], 300, blocks=[1])[16]
    width = HEADS * HEAD_WIDTH
    assert own.shape[1] == feature_channels(pipe.transformer, blocks=[1])[16] == 2 * width
    by_half = every.unflatten(1, (2, BLOCKS, width))
    assert torch.equal(own.unflatten(1, (2, width)), by_half[:, :, 1])
    assert torch.equal(denoiser_features(pipe, latents, [ONE], 300)[16], every)  # as many as TAPS
    with pytest.raises(ValueError, match="expected one or more of 0 to 2"):
        feature_channels(pipe.transformer, blocks=[3])
