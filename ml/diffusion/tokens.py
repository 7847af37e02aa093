"""Words and prompts on the text side: where a word's tokens stand, what a text encodes to.

Not here: which words there are (`ml.vocabulary`) and how prompts are made (the stage `prompts`).
"""

import re
from collections.abc import Sequence

import torch
from diffusers import StableDiffusionPipeline

from ml.microworld.captions import phrase as with_article

NOTHING = "a photograph of"
"""What a prompt of nothing but the phrase becomes when the phrase is left out."""

JOINERS = ("and", "or", "with", "beside", "near", "next to", "close to", "behind", "in front of",
           "on the left of", "on the right of", "to the left of", "to the right of", "left of",
           "right of", "on top of", "above", "below", "under", ",")
"""What stands between two things that are named; one goes with the thing that goes."""

DANGLING = ("on", "in", "at", "over", "by")
"""Kept before a place ("on grass"), dropped where what followed has gone."""


def _either(words: Sequence[str]) -> str:
    ordered = sorted(words, key=len, reverse=True)  # "to the left of" before "left of"
    return "|".join(re.escape(w) if w == "," else rf"\b{re.escape(w)}\b" for w in ordered)


_JOINER_BEFORE = re.compile(rf"\s*({_either(JOINERS + DANGLING)})\s*$", re.IGNORECASE)
_JOINER_AFTER = re.compile(rf"^\s*({_either(JOINERS)})\s*", re.IGNORECASE)


def _find(prompt: str, word: str) -> tuple[int, int]:
    """Start and end of the first occurrence between word boundaries, whatever the case."""
    found = re.search(rf"(?<!\w){re.escape(word.strip())}(?!\w)", prompt, re.IGNORECASE)
    if not word.strip() or found is None:
        raise ValueError(f"{word!r} does not stand in the prompt {prompt!r}; name a word or "
                         "phrase as it is written there")
    return found.span()


def word_positions(pipe: StableDiffusionPipeline, prompt: str, word: str) -> list[int]:
    """Positions (0 is the start token) of the tokens of a word or phrase within a prompt.

    The first occurrence at a word boundary counts, letter case does not. Raises ValueError when
    it is not there, or stands past the last token the text encoder reads.
    """
    start, end = _find(prompt, word)
    # CLIP's tokenizer never joins what stands on two sides of a word boundary, so the tokens of
    # the part before can be counted on their own.
    before = _count(pipe, prompt[:start])
    positions = list(range(1 + before, 1 + before + _count(pipe, prompt[start:end])))
    last = pipe.tokenizer.model_max_length - 2  # the end token takes the place after it
    if positions[-1] > last:
        raise ValueError(f"{word!r} stands at tokens {positions} of {prompt!r}, but the text "
                         f"encoder reads positions 1 to {last} only; shorten the prompt")
    return positions


def _count(pipe: StableDiffusionPipeline, text: str) -> int:
    return len(pipe.tokenizer(text, add_special_tokens=False).input_ids) if text.strip() else 0


@torch.no_grad()
def encode_prompts(pipe: StableDiffusionPipeline, prompts: Sequence[str]) -> torch.Tensor:
    """What the U-Net attends to: (B, L, D) on the pipeline's device, in its dtype.

    Equal prompts are encoded once. "" is the unconditional text.
    """
    if not prompts:
        raise ValueError("expected at least one prompt, got none")
    distinct = list(dict.fromkeys(prompts))
    encoded, _ = pipe.encode_prompt(distinct, pipe.device, 1, False)
    row = {prompt: index for index, prompt in enumerate(distinct)}
    return encoded[[row[prompt] for prompt in prompts]]


@torch.no_grad()
def word_embeddings(pipe: StableDiffusionPipeline, words: Sequence[str]) -> torch.Tensor:
    """The paper's text query of each word: (n, D), in the pipeline's dtype.

    "a photograph of a(n) {word}" is encoded on its own, not as part of the prompt that made the
    picture, and the contextual embeddings of the word's tokens are averaged.
    """
    texts = [f"a photograph of {with_article(word)}" for word in words]
    encoded = encode_prompts(pipe, texts)
    return torch.stack([
        encoded[i, word_positions(pipe, text, word)].mean(dim=0)
        for i, (text, word) in enumerate(zip(texts, words, strict=True))
    ])


def without_phrase(prompt: str, phrase: str) -> str:
    """What remains of a prompt when a phrase ("a red car") is left out, its joiner with it.

    "a dog next to a cat" without "a dog" is "a cat"; "a photograph of a dog" without it is
    "a photograph of"; a prompt that is nothing but the phrase leaves "a photograph of". Raises
    ValueError when the phrase is not in the prompt.
    """
    start, end = _find(prompt, phrase)
    before, after = prompt[:start].rstrip(), prompt[end:].lstrip()
    joined_before = _JOINER_BEFORE.search(before)
    joined_after = _JOINER_AFTER.search(after)
    if joined_before:
        before = before[: joined_before.start()]
    elif joined_after:
        after = after[joined_after.end() :]
    if joined_before and joined_before[1].lower() == "and" and not joined_after:
        before = _join_last(before)
    elif not joined_before and not joined_after and after and before.lower().endswith(" of"):
        before = before[:-3]  # "a photograph of" + "on grass"
    rest = before + after if after.startswith(",") else f"{before} {after}"
    return rest.strip() or NOTHING


def _join_last(listed: str) -> str:
    """"a dog, a cat" -> "a dog and a cat": the list has lost its last thing."""
    head, comma, tail = listed.rpartition(", ")
    return f"{head} and {tail}" if comma else listed
