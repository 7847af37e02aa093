"""Words and prompts on the text side: where a word's tokens stand, what a text encodes to.

Not here: which words there are (`ml.words.vocabulary`), where a word stands in a text as letters
(`ml.words.spans`) and how prompts are made (the stage `prompts`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ml.diffusion.checkpoint import Pipeline, find_checkpoint
from ml.diffusion.loading import picture_size, text_encoders
from ml.settings.sections import DiffusionParams
from ml.words.phrases import query_text
from ml.words.spans import own_spans
from ml.words.text_limit import TextLimit, limit_of, read_limit

NOTHING = "a photograph of"
"""What a prompt of nothing but the phrase becomes when the phrase is left out."""

JOINERS = (
    "and",
    "or",
    "with",
    "beside",
    "near",
    "next to",
    "close to",
    "behind",
    "in front of",
    "on the left of",
    "on the right of",
    "to the left of",
    "to the right of",
    "left of",
    "right of",
    "on top of",
    "above",
    "below",
    "under",
    ",",
)
"""What stands between two things that are named; one goes with the thing that goes."""

DANGLING = ("on", "in", "at", "over", "by")
"""Kept before a place ("on grass"), dropped where what followed has gone."""

AT_ONCE = 256
"""Prompts that the text encoders are given at once."""


@dataclass(frozen=True)
class EncodedPrompts:
    """What the U-Net is told of each prompt, on the pipeline's device and in its dtype."""

    hidden: torch.Tensor  # (B,L,D): what it attends to; D is the sum of the text encoders' widths
    pooled: torch.Tensor | None = None  # (B,P), SDXL alone: the second encoder's, of the whole text
    time_ids: torch.Tensor | None = None  # (B,6), SDXL alone: sizes and crop, whole pictures

    def __getitem__(self, rows: Sequence[int]) -> "EncodedPrompts":
        parts = (self.hidden, self.pooled, self.time_ids)
        return EncodedPrompts(*(None if part is None else part[rows] for part in parts))

    @property
    def kwargs(self) -> dict:
        """Arguments of a call of the U-Net."""
        if self.pooled is None:
            return {"encoder_hidden_states": self.hidden}
        return {
            "encoder_hidden_states": self.hidden,
            "added_cond_kwargs": {"text_embeds": self.pooled, "time_ids": self.time_ids},
        }

    def sampling(self, prefix: str = "") -> dict:
        """Arguments of a call of the pipeline, which finds the time ids itself."""
        embeds = {"prompt_embeds": self.hidden, "pooled_prompt_embeds": self.pooled}
        return {prefix + name: value for name, value in embeds.items() if value is not None}


def _either(words: Sequence[str]) -> str:
    ordered = sorted(words, key=len, reverse=True)  # "to the left of" before "left of"
    return "|".join(re.escape(w) if w == "," else rf"\b{re.escape(w)}\b" for w in ordered)


_JOINER_BEFORE = re.compile(rf"\s*({_either(JOINERS + DANGLING)})\s*$", re.IGNORECASE)
_JOINER_AFTER = re.compile(rf"^\s*({_either(JOINERS)})\s*", re.IGNORECASE)


def tokenizers(pipe: Pipeline) -> list:
    return [
        cutter
        for cutter in (pipe.tokenizer, getattr(pipe, "tokenizer_2", None))
        if cutter is not None
    ]


def text_limit(pipe: Pipeline) -> TextLimit:
    """How much of a text the pipeline reads, and what refuses a longer one."""
    return limit_of(
        tokenizers(pipe),
        [encoder.config.max_position_embeddings for encoder in text_encoders(pipe)],
    )


def text_length(pipe: Pipeline) -> int:
    """Tokens that the text encoders read, start and end included."""
    return text_limit(pipe).most


def text_width(pipe: Pipeline) -> int:
    """Channels of a word's embedding: 768 in SD-v1, 1024 in SD 2, 768 + 1280 in SDXL."""
    return sum(encoder.config.hidden_size for encoder in text_encoders(pipe))


def word_positions(pipe: Pipeline, prompt: str, word: str, words: Sequence[str] = ()) -> list[int]:
    """Positions (0 is the start token) of the tokens of a word or phrase within a prompt.

    The first of `all_positions` counts, and its errors are raised.
    """
    return all_positions(pipe, prompt, word, words)[0]


def all_positions(
    pipe: Pipeline, prompt: str, word: str, words: Sequence[str] = ()
) -> list[list[int]]:
    """Positions of every place where a word or phrase stands for itself in a prompt; one or more.

    words: all that the prompt is asked for, so that the "bear" of "a teddy bear and a bear" is the
    second (`ml.words.spans.occurrences`). Raises ValueError when the word is not there, stands past
    the last token the text encoder reads, or is cut in two ways by two tokenizers.
    """
    return [_positions(pipe, prompt, span) for span in own_spans(prompt, word, words)]


def _positions(pipe: Pipeline, prompt: str, span: tuple[int, int]) -> list[int]:
    start, end = span
    word, found = prompt[start:end], []
    for cutter in tokenizers(pipe):
        # CLIP's tokenizer never joins what stands on two sides of a word boundary, so the tokens
        # of the part before can be counted on their own.
        before = _count(cutter, prompt[:start])
        found.append(list(range(1 + before, 1 + before + _count(cutter, word))))
    positions = found[0]
    if any(other != positions for other in found):
        raise ValueError(
            f"the model's tokenizers put {word!r} of {prompt!r} at different tokens "
            f"{found}: one position must mean one word for both of its text encoders"
        )
    last = text_length(pipe) - 2  # the end token takes the place after it
    if positions[-1] > last:
        raise ValueError(
            f"{word!r} stands at tokens {positions} of {prompt!r}, but the text "
            f"encoder reads positions 1 to {last} only; shorten the prompt"
        )
    return positions


def refuse_long_prompts(diffusion: DiffusionParams, prompts: Sequence[dict]) -> None:
    """Raises ValueError for rows of the PROMPTS schema longer than the model reads.

    Downloads the model if it is not here: what has to be refused is refused before anything is
    drawn.
    """
    folder = find_checkpoint(diffusion.model, diffusion.revision, diffusion.variant)
    if (limit := read_limit(folder)) is not None:
        limit.refuse_prompts(prompts)


def _count(cutter, text: str) -> int:
    return len(cutter(text, add_special_tokens=False).input_ids) if text.strip() else 0


@torch.no_grad()
def encode_prompts(pipe: Pipeline, prompts: Sequence[str]) -> EncodedPrompts:
    """The prompts as the U-Net is told them; "" is the unconditional text.

    Equal prompts are encoded once. Every text that the model is asked comes by here: raises
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
    # The size that was asked for, nothing cropped, the same size: what the pipeline itself says.
    sizes = torch.tensor([[height, width, 0, 0, height, width]]).to(hidden)
    every = EncodedPrompts(
        hidden, torch.cat([part[1] for part in encoded]), sizes.expand(len(distinct), -1)
    )
    return every[[row[prompt] for prompt in prompts]]


def _encode(pipe: Pipeline, texts: list[str]) -> list[torch.Tensor]:
    """[hidden], or [hidden, pooled] of SDXL, which is given zeros for no text."""
    encoded = pipe.encode_prompt(
        texts, device=pipe.device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    if len(text_encoders(pipe)) == 1:
        return [encoded[0]]
    hidden, _, pooled, _ = encoded
    if pipe.config.force_zeros_for_empty_prompt:
        said = torch.tensor([text != "" for text in texts]).to(hidden)
        hidden, pooled = hidden * said[:, None, None], pooled * said[:, None]
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


def without_phrase(prompt: str, phrase: str, phrases: Sequence[str] = ()) -> str:
    """What remains of a prompt when a phrase ("a red car") is left out, its joiner with it.

    "a dog next to a cat" without "a dog" is "a cat"; "a photograph of a dog" without it is
    "a photograph of"; a prompt that is nothing but the phrase leaves "a photograph of". phrases:
    all that the prompt is asked for, none of which is cut into (`ml.words.spans.occurrences`).
    Raises ValueError when the phrase is not in the prompt.
    """
    start, end = own_spans(prompt, phrase, phrases)[0]
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
    """ "a dog, a cat" -> "a dog and a cat": the list has lost its last thing."""
    head, comma, tail = listed.rpartition(", ")
    return f"{head} and {tail}" if comma else listed
