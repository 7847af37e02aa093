"""A model's tokens: how many of a text are read, and at which of them a word stands.

Not here: where a word stands in a text as letters (`ml.words.spans`), what a text encodes to
(`ml.diffusion.encoding`).
"""

from collections.abc import Sequence

from transformers import CLIPTokenizer

from ml.diffusion.checkpoint import find_checkpoint
from ml.diffusion.loading import text_encoders
from ml.diffusion.pipeline import Pipeline
from ml.settings.sections import DiffusionParams
from ml.words.spans import own_spans
from ml.words.text_limit import TextLimit, limit_of, read_limit
from ml.words.wording import Wording


def tokenizers(pipe: Pipeline) -> list[CLIPTokenizer]:
    """SDXL's two, every other model's one, in the order of the text encoders."""
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


def refuse_long_prompts(diffusion: DiffusionParams, prompts: Sequence[Wording]) -> None:
    """Raises ValueError for rows of the PROMPTS schema longer than the model reads.

    Downloads the model if it is not here, so that a prompt is refused before anything is drawn.
    """
    folder = find_checkpoint(diffusion.model, diffusion.revision, diffusion.variant)
    if (limit := read_limit(folder)) is not None:
        limit.refuse_prompts(prompts)


def _count(cutter: CLIPTokenizer, text: str) -> int:
    return len(cutter(text, add_special_tokens=False).input_ids) if text.strip() else 0
