"""Open-vocabulary attention maps, and text queries optimised on one labelled picture.

OVAM (arXiv 2403.14291): DAAM whose keys come from another text than the one that makes the
picture; and that text's embeddings, fitted to a mask. Same layers, steps and halves as DAAM here
(`ml.diffusion.attention`); undershoot is clamped once a size, not once a head. Not here: masks
from the maps (`ml.baselines.daam`).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ml.diffusion.attention import (
    AttributionAttention,
    attention_shares,
    split_heads,
    to_latent_size,
    token_weights,
)
from ml.diffusion.checkpoint import Pipeline
from ml.diffusion.loading import latent_shape, picture_size
from ml.diffusion.sampling import sample
from ml.diffusion.tokens import encode_prompts, text_length, text_width, word_positions
from ml.words.phrases import query_text

ITERATIONS, LEARNING_RATE = 300, 0.01
"""Of the optimisation of a query; chosen on micro pictures of a seed that is not judged, where
100 steps of 0.05 do about as well."""


class _Queries:
    """Keeps one picture's queries, every step of a layer together. A `Recorder`."""

    def __init__(self):
        self._steps: dict = {}  # attention -> float32 (1, heads, N, d) of each step

    def add(self, attention, pixels: Tensor, text: Tensor) -> None:
        query = split_heads(attention, attention.to_q(pixels[-1:]))
        self._steps.setdefault(attention, []).append(query.float())

    def layers(self) -> dict:
        """attention -> float32 (steps, heads, N, d). Not to be called in inference mode."""
        return {layer: torch.cat(steps).clone() for layer, steps in self._steps.items()}


def attribution_text(word: str) -> str:
    """ "a photograph of a dog", the paper's text of a word."""
    return query_text(word)


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
        texts = [[attribution_text(word) for word in own] for own in words]
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
    return (torch.arange(longest) < lengths[:, None]).to(pipe.device)


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
    stacked = torch.stack(list(flat)).to(pipe.device, pipe.unet.dtype)
    weights = torch.tensor([0.0, 1.0], device=pipe.device).expand(len(flat), 2)
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


def _record(pipe, prompts, seeds, named, recorder, steps, guidance_scale) -> None:
    if len(named) != len(prompts):
        raise ValueError(
            f"expected one list of words or queries a prompt, got {len(named)} for "
            f"{len(prompts)} prompts"
        )
    sample(pipe, prompts, seeds, steps=steps, guidance_scale=guidance_scale, recorders=[recorder])


def start_query(pipe: Pipeline, word: str) -> Tensor:
    """float32 (2,D): the start token's and the word's embedding in its attribution text."""
    text = attribution_text(word)
    hidden = encode_prompts(pipe, [text]).hidden[0].float()
    return torch.stack([hidden[0], hidden[word_positions(pipe, text, word)].mean(dim=0)])


def optimise_query(
    pipe: Pipeline,
    prompt: str,
    seed: int,
    mask: np.ndarray,
    word: str,
    *,
    steps: int,
    guidance_scale: float,
    iterations: int = ITERATIONS,
    learning_rate: float = LEARNING_RATE,
) -> Tensor:
    """Background and object query float32 (2,D), CPU, fitted to one labelled picture.

    The picture of the prompt and seed is sampled once, its U-Net queries are kept, and the two
    embeddings move from `start_query` so that the object's map (`query_maps`), enlarged to the
    picture, meets the mask bool (H,W) under binary cross-entropy (OVAM, section 3.3; Adam here in
    place of its SGD, whose rates are those of another model). The best of all iterations is kept,
    as in OVAM's code. Raises ValueError for a mask of another shape, an empty or a full one, or no
    iteration.
    """
    size = picture_size(pipe)
    mask = np.asarray(mask)
    if mask.dtype != bool or mask.shape != size or mask.all() or not mask.any():
        raise ValueError(
            f"expected a mask bool {size} that is neither empty nor full, got "
            f"{mask.dtype} {mask.shape} with {np.count_nonzero(mask)} pixels"
        )
    if iterations < 1 or learning_rate <= 0:
        raise ValueError(
            f"expected at least 1 iteration and a learning rate above 0, got "
            f"{iterations} and {learning_rate}"
        )
    start = start_query(pipe, word)
    recorder = _Queries()
    sample(pipe, [prompt], [seed], steps=steps, guidance_scale=guidance_scale, recorders=[recorder])
    layers = recorder.layers()
    query = start.clone().requires_grad_()
    target = torch.from_numpy(mask).to(query.device, torch.float32)
    optimiser = torch.optim.Adam([query], lr=learning_rate)
    best, lowest = start, float("inf")
    for _ in range(iterations):
        found = _object_map(layers, query.to(pipe.unet.dtype), latent_shape(pipe)[1:])
        enlarged = F.interpolate(found, size=size, mode="bilinear", align_corners=False)[0, 0]
        loss = F.binary_cross_entropy(enlarged, target)
        if loss.item() < lowest:
            best, lowest = query.detach().clone(), loss.item()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return best.cpu()


def _object_map(layers: dict, query: Tensor, latent_size: tuple[int, int]) -> Tensor:
    """float32 (1,1,h,w) in 0..1 of query (2,D), as `mean_maps` has it, with a gradient."""
    sums: dict[int, Tensor] = {}
    for layer, pixels in layers.items():
        key = split_heads(layer, layer.to_k(query))
        shares = attention_shares(layer, pixels, key)[..., 1].mean(dim=0)  # (N,)
        sums[len(shares)] = sums.get(len(shares), 0) + shares[None, :, None]
    return (to_latent_size(sums, latent_size) / len(layers)).clamp(max=1)
