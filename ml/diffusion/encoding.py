"""What the denoiser is given of a text: the text encoders' embeddings of prompts and of words.

Not here: at which tokens a word stands (`ml.diffusion.tokens`).
"""

from collections.abc import Sequence

import torch
from transformers import CLIPTokenizer

from ml.diffusion.backbones.kinds import backbone_of
from ml.diffusion.backbones.protocol import EncodedPrompts
from ml.diffusion.loading import picture_size
from ml.diffusion.pipeline import Pipeline
from ml.diffusion.saving import make_room
from ml.diffusion.tokens import text_limit, word_positions
from ml.diffusion.turns import in_turn
from ml.words.phrases import query_text

AT_ONCE = 256
"""Prompts that the text encoders are given at once."""


@in_turn
@torch.no_grad()
def encode_prompts(pipe: Pipeline, prompts: Sequence[str]) -> EncodedPrompts:
    """The prompts as the denoiser is given them; "" is the unconditional text.

    Equal prompts are encoded once. Every text that the model is given passes here: raises
    ValueError for one that is longer than what is read, and for no prompt.
    """
    if not prompts:
        raise ValueError("expected at least one prompt, got none")
    distinct = list(dict.fromkeys(prompts))
    limit = text_limit(pipe)
    limit.refuse(distinct)
    for cutter, most in limit.readers:
        if isinstance(cutter, CLIPTokenizer):  # it pads to its own length, which may be 1e30
            cutter.model_max_length = most
    backbone, size = backbone_of(pipe), picture_size(pipe)
    row = {prompt: index for index, prompt in enumerate(distinct)}
    make_room(pipe)
    encoded = [
        backbone.encode(pipe, distinct[start : start + AT_ONCE], size)
        for start in range(0, len(distinct), AT_ONCE)
    ]
    every = EncodedPrompts(
        torch.cat([part.hidden for part in encoded]),
        _together([part.pooled for part in encoded]),
        _together([part.time_ids for part in encoded]),
    )
    return every[[row[prompt] for prompt in prompts]]


def _together(parts: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else None


@torch.no_grad()
def word_embeddings(pipe: Pipeline, words: Sequence[str]) -> torch.Tensor:
    """The paper's text query of each word: (n, D), in the pipeline's dtype.

    "a photograph of a(n) {word}" is encoded on its own, not as part of the prompt that made the
    picture, and the contextual embeddings of the word's tokens are averaged.
    """
    texts = [query_text(word) for word in words]
    encoded = backbone_of(pipe).word_states(pipe, encode_prompts(pipe, texts).hidden)
    return torch.stack(
        [
            encoded[i, word_positions(pipe, text, word)].mean(dim=0)
            for i, (text, word) in enumerate(zip(texts, words, strict=True))
        ]
    )
