"""A model's tokens: how many of a text are read, and at which of them a word stands.

Not here: where a word stands in a text as letters (`ml.words.spans`), what a text encodes to
(`ml.diffusion.encoding`).
"""

from collections.abc import Iterable, Sequence

from transformers import CLIPTokenizer, PreTrainedTokenizerBase

from ml.diffusion.backbones.kinds import kind_of_pipe, tokenizer_of
from ml.diffusion.backbones.mmdit import T5_TOKENS
from ml.diffusion.checkpoint import find_checkpoint
from ml.diffusion.pipeline import Pipeline
from ml.diffusion.turns import in_turn
from ml.settings.sections import DiffusionParams
from ml.words.spans import own_spans
from ml.words.text_limit import TextLimit, limit_of, read_limit, reads, reads_beside
from ml.words.wording import Wording


def tokenizers(pipe: Pipeline) -> list[PreTrainedTokenizerBase]:
    """Of the text encoders that words are read from, in their order: SDXL's and SD 3's two, every
    other model's one."""
    return [getattr(pipe, tokenizer_of(part)) for part in kind_of_pipe(pipe).words]


def text_limit(pipe: Pipeline) -> TextLimit:
    """How much of a text the pipeline reads, and what refuses a longer one."""
    asked: int | None = getattr(pipe, T5_TOKENS, None)
    kind = kind_of_pipe(pipe)
    configs = {
        part: getattr(pipe, part).config.to_dict()
        for part in kind.text
        if getattr(pipe, part) is not None
    }
    return limit_of(
        tokenizers(pipe),
        [reads(configs[part], asked) for part in kind.words],
        [
            (getattr(pipe, tokenizer_of(part)), reads_beside(config, asked))
            for part, config in configs.items()
            if part not in kind.words
        ],
    )


@in_turn
def refuse_long(pipe: Pipeline, texts: Iterable[str]) -> None:
    """Raises ValueError for the first text that is longer than the pipeline reads."""
    text_limit(pipe).refuse(texts)


def text_length(pipe: Pipeline) -> int:
    """Tokens that the text encoders read which words are read from, start and end included."""
    return text_limit(pipe).most


def text_width(pipe: Pipeline) -> int:
    """Channels of a word's embedding: 768 in SD-v1, 1024 in SD 2, 768 + 1280 in SDXL and SD 3,
    4096 in FLUX."""
    return sum(getattr(pipe, part).config.hidden_size for part in kind_of_pipe(pipe).words)


def word_positions(pipe: Pipeline, prompt: str, word: str, words: Sequence[str] = ()) -> list[int]:
    """Positions (0 is the start token) of the tokens of a word or phrase within a prompt.

    The first of `all_positions` counts, and its errors are raised.
    """
    return all_positions(pipe, prompt, word, words)[0]


@in_turn
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
    word = prompt[span[0] : span[1]]
    found = [_places(cutter, prompt, span) for cutter in tokenizers(pipe)]
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
    folder = find_checkpoint(diffusion.model, diffusion.revision, diffusion.variant, diffusion)
    if (limit := read_limit(folder, diffusion.t5_tokens)) is not None:
        limit.refuse_prompts(prompts)


def _places(cutter: PreTrainedTokenizerBase, prompt: str, span: tuple[int, int]) -> list[int]:
    """The tokens of a part of a prompt, as one tokenizer cuts it."""
    start, end = span
    if isinstance(cutter, CLIPTokenizer):
        # It never joins what stands on two sides of a word boundary, so the tokens of the part
        # before can be counted on their own.
        before = _count(cutter, prompt[:start])
        return list(range(1 + before, 1 + before + _count(cutter, prompt[start:end])))
    offsets = cutter(prompt, return_offsets_mapping=True)["offset_mapping"]
    return [place for place, (a, b) in enumerate(offsets) if a < end and b > start]


def _count(cutter: CLIPTokenizer, text: str) -> int:
    return len(cutter(text, add_special_tokens=False).input_ids) if text.strip() else 0
