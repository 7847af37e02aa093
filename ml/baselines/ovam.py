"""Open-vocabulary attention maps, OVAM (arXiv 2403.14291): DAAM whose keys come from another text
than the one that makes the picture.

Same layers, steps and guidance half as DAAM here (`ml.diffusion.attention`); undershoot is clamped
once per map size, not once per head. Not here: queries fitted to a mask
(`ml.baselines.ovam_query`), masks from the maps (`ml.baselines.daam`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ml.baselines.ovam_attention import AttributionAttention
from ml.diffusion.attention import token_weights
from ml.diffusion.backbones.kinds import denoiser
from ml.diffusion.encoding import encode_prompts
from ml.diffusion.loading import latent_shape
from ml.diffusion.pipeline import Pipeline, device_of
from ml.diffusion.sampling import sample
from ml.diffusion.tokens import text_length, text_width
from ml.words.phrases import query_text


def attribution_recorder(
    pipe: Pipeline,
    words: Sequence[Sequence[str]],
    texts: Sequence[Sequence[str]] | None = None,
    padding: bool = False,
) -> AttributionAttention:
    """A recorder of each picture's words in their attribution texts, to be given to `sample`.

    The softmax runs over the text's own tokens, from the start token to the first end token, as in
    OVAM's code; with padding over all that the text encoder gives, as DAAM's does. Raises
    ValueError for unequal lengths, no word at all, or a word that is not in its text.
    """
    if texts is None:
        texts = [[query_text(word) for word in own] for own in words]
    if [len(own) for own in texts] != [len(own) for own in words] or not any(map(len, words)):
        raise ValueError(
            f"expected one attribution text a word and at least one word, got "
            f"{[len(own) for own in texts]} texts for {[len(own) for own in words]} "
            "words of the pictures"
        )
    flat = [
        (text, word)
        for own, named in zip(texts, words, strict=True)
        for text, word in zip(own, named, strict=True)
    ]
    hidden = encode_prompts(pipe, [text for text, _ in flat]).hidden
    weights = token_weights(pipe, [text for text, _ in flat], [[word] for _, word in flat])[..., 0]
    lengths = [len(own) for own in words]
    counted = _by_picture(_own_tokens(pipe, [text for text, _ in flat]) | padding, lengths)
    counted[..., 0] = True  # also where a picture has fewer words: no softmax over nothing
    return AttributionAttention(
        _by_picture(hidden, lengths), _by_picture(weights, lengths), latent_shape(pipe)[1:], counted
    )


def _own_tokens(pipe: Pipeline, texts: Sequence[str]) -> Tensor:
    """bool (n,L), on the pipeline's device: a text's tokens with the start and one end token."""
    longest = text_length(pipe)
    lengths = torch.tensor([len(pipe.tokenizer(text).input_ids) for text in texts])
    return (torch.arange(longest) < lengths[:, None]).to(device_of(pipe))


def query_recorder(pipe: Pipeline, queries: Sequence[Sequence[Tensor]]) -> AttributionAttention:
    """A recorder of each picture's queries, float32 (2, D) of `optimise_query`, for `sample`.

    Raises ValueError for no query at all or one of another shape.
    """
    flat = [query for own in queries for query in own]
    wrong = [tuple(query.shape) for query in flat if query.shape != (2, text_width(pipe))]
    if wrong or not flat:
        raise ValueError(
            f"expected at least one query and all of shape (2, {text_width(pipe)}), "
            f"got {wrong or 'none'}: give those that optimise_query made for this "
            "model"
        )
    stacked = torch.stack(list(flat)).to(device_of(pipe), denoiser(pipe).dtype)
    weights = torch.tensor([0.0, 1.0], device=device_of(pipe)).expand(len(flat), 2)
    lengths = [len(own) for own in queries]
    return AttributionAttention(
        _by_picture(stacked, lengths), _by_picture(weights, lengths), latent_shape(pipe)[1:]
    )


def _by_picture(flat: Tensor, lengths: Sequence[int]) -> Tensor:
    """(sum of lengths, ...) to (B, n, ...), zeros after a picture's own."""
    return torch.nn.utils.rnn.pad_sequence(list(flat.split(list(lengths))), batch_first=True)


def attribution_maps(
    pipe: Pipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    words: Sequence[Sequence[str]],
    texts: Sequence[Sequence[str]] | None = None,
    padding: bool = False,
    *,
    steps: int,
    guidance_scale: float,
) -> list[Tensor]:
    """Maps of words by their attribution texts, of the sampling run of each prompt and seed.

    texts: one a word, in which it stands; "a photograph of a(n) word" by default. Returns for each
    picture float32 (n_i,h,w), CPU, >= 0: the mean over heads and the word's tokens of
    softmax(Q K(text)^T), summed over layers and steps (OVAM, section 3.2). With the prompt itself
    as text, and padding in the softmax, this is DAAM but for the undershoot. Raises ValueError as
    `sample` and `attribution_recorder`.
    """
    recorder = attribution_recorder(pipe, words, texts, padding)
    _record(pipe, prompts, seeds, words, recorder, steps, guidance_scale)
    return own_maps(recorder.maps(), [len(own) for own in words])


def query_maps(
    pipe: Pipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    queries: Sequence[Sequence[Tensor]],
    *,
    steps: int,
    guidance_scale: float,
) -> list[Tensor]:
    """Maps of optimised queries: for each picture float32 (n_i,h,w), CPU, in 0..1.

    A value is the object's share against the background, softmax over the two, mean over layers,
    heads and steps. Raises ValueError as `sample` and `query_recorder`.
    """
    recorder = query_recorder(pipe, queries)
    _record(pipe, prompts, seeds, queries, recorder, steps, guidance_scale)
    return own_maps(recorder.mean_maps(), [len(own) for own in queries])


def own_maps(maps: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """(B,n,h,w) of a recorder to float32 (n_i,h,w) a picture, CPU."""
    return [own[:length].float().cpu().clone() for own, length in zip(maps, lengths, strict=True)]


def _record(
    pipe: Pipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    named: Sequence[Sequence[object]],
    recorder: AttributionAttention,
    steps: int,
    guidance_scale: float,
) -> None:
    if len(named) != len(prompts):
        raise ValueError(
            f"expected one list of words or queries a prompt, got {len(named)} for "
            f"{len(prompts)} prompts"
        )
    sample(pipe, prompts, seeds, steps=steps, guidance_scale=guidance_scale, recorders=[recorder])
