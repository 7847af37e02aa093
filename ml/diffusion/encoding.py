"""What the U-Net is given of a text: the text encoders' embeddings of prompts and of words.

Not here: at which tokens a word stands (`ml.diffusion.tokens`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ml.diffusion.loading import picture_size, text_encoders
from ml.diffusion.pipeline import Pipeline
from ml.diffusion.tokens import text_limit, word_positions
from ml.words.phrases import query_text

AT_ONCE = 256
"""Prompts that the text encoders are given at once."""


@dataclass(frozen=True)
class EncodedPrompts:
    """What the U-Net is given of each prompt, on the pipeline's device and in its dtype."""

    hidden: torch.Tensor  # (B,L,D): what it attends to; D is the sum of the text encoders' widths
    pooled: torch.Tensor | None = None  # (B,P), SDXL alone: the second encoder's, of the whole text
    time_ids: torch.Tensor | None = None  # (B,6), SDXL alone: sizes and crop, whole pictures

    def __getitem__(self, rows: Sequence[int]) -> "EncodedPrompts":
        pooled, time_ids = self.pooled, self.time_ids
        return EncodedPrompts(
            self.hidden[rows],
            None if pooled is None else pooled[rows],
            None if time_ids is None else time_ids[rows],
        )

    @property
    def kwargs(self) -> dict[str, Any]:
        """Arguments of a call of the U-Net."""
        if self.pooled is None:
            return {"encoder_hidden_states": self.hidden}
        return {
            "encoder_hidden_states": self.hidden,
            "added_cond_kwargs": {"text_embeds": self.pooled, "time_ids": self.time_ids},
        }

    def sampling(self, prefix: str = "") -> dict[str, torch.Tensor]:
        """Arguments of a call of the pipeline, which finds the time ids itself."""
        embeds = {"prompt_embeds": self.hidden, "pooled_prompt_embeds": self.pooled}
        return {prefix + name: value for name, value in embeds.items() if value is not None}


@torch.no_grad()
def encode_prompts(pipe: Pipeline, prompts: Sequence[str]) -> EncodedPrompts:
    """The prompts as the U-Net is given them; "" is the unconditional text.

    Equal prompts are encoded once. Every text that the model is given passes here: raises
    ValueError for one that is longer than what is read, and for no prompt.
    """
    if not prompts:
        raise ValueError("expected at least one prompt, got none")
    distinct = list(dict.fromkeys(prompts))
    limit = text_limit(pipe)
    limit.refuse(distinct)
    for cutter in limit.tokenizers:  # it pads to its own length, which may be 1e30
        cutter.model_max_length = limit.most
    row = {prompt: index for index, prompt in enumerate(distinct)}
    encoded = [
        _encode(pipe, distinct[start : start + AT_ONCE])
        for start in range(0, len(distinct), AT_ONCE)
    ]
    hidden = torch.cat([part[0] for part in encoded])
    if len(encoded[0]) == 1:
        return EncodedPrompts(hidden)[[row[prompt] for prompt in prompts]]
    height, width = picture_size(pipe)
    # The size that was asked for, nothing cropped, the same size: what the pipeline itself passes.
    sizes = torch.tensor([[height, width, 0, 0, height, width]]).to(hidden)
    every = EncodedPrompts(
        hidden, torch.cat([part[1] for part in encoded]), sizes.expand(len(distinct), -1)
    )
    return every[[row[prompt] for prompt in prompts]]


def _encode(pipe: Pipeline, texts: list[str]) -> list[torch.Tensor]:
    """[hidden], or [hidden, pooled] of SDXL, which is given zeros for an empty text."""
    encoded = pipe.encode_prompt(
        texts, device=pipe.device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    if len(text_encoders(pipe)) == 1:
        return [encoded[0]]
    hidden, _, pooled, _ = encoded
    if pipe.config.force_zeros_for_empty_prompt:
        filled = torch.tensor([text != "" for text in texts]).to(hidden)
        hidden, pooled = hidden * filled[:, None, None], pooled * filled[:, None]
    return [hidden, pooled]


@torch.no_grad()
def word_embeddings(pipe: Pipeline, words: Sequence[str]) -> torch.Tensor:
    """The paper's text query of each word: (n, D), in the pipeline's dtype.

    "a photograph of a(n) {word}" is encoded on its own, not as part of the prompt that made the
    picture, and the contextual embeddings of the word's tokens are averaged.
    """
    texts = [query_text(word) for word in words]
    encoded = encode_prompts(pipe, texts).hidden
    return torch.stack(
        [
            encoded[i, word_positions(pipe, text, word)].mean(dim=0)
            for i, (text, word) in enumerate(zip(texts, words, strict=True))
        ]
    )
