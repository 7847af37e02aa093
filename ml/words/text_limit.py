"""The longest text that a model's text encoders read: longer texts are refused, never cut.

Text beyond the last token that is read is not drawn, and there is no evidence for it. Known from a
loaded pipeline, or from its tokenizers' files alone, before anything is loaded. Not here: where a
word's tokens stand (`ml.diffusion.tokens`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml.store.reading import configured, read_object
from ml.words.phrases import query_text

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import PreTrainedTokenizerBase

    from ml.words.wording import Wording

MOST_SHOWN = 3
T5_READS = 512
BESIDE = 256
"""Tokens that T5 is given of a text by diffusers, where it stands beside CLIP (SD 3)."""
WORD_LIST = 1000
"""Tokens below which a tokenizer is a list of words (micro: 679, 512 of them letters): what it cuts
into pieces the model never learned. CLIP's own has 49,408."""


@dataclass(frozen=True)
class TextLimit:
    """The tokenizers of the text encoders that words are read from, and how many tokens these read;
    beside them the others, each with its own number."""

    tokenizers: Sequence["PreTrainedTokenizerBase"]
    most: int  # start and end included: 77 of CLIP, 24 at micro size, 512 of FLUX's T5
    beside: Sequence[tuple["PreTrainedTokenizerBase", int]] = ()  # T5 in SD 3, CLIP in FLUX

    @property
    def readers(self) -> list[tuple["PreTrainedTokenizerBase", int]]:
        """Every tokenizer with the tokens that are read of it."""
        return [*((cutter, self.most) for cutter in self.tokenizers), *self.beside]

    def tokens(self, text: str) -> int:
        """Tokens of a text, start and end included; the most of several tokenizers."""
        return max(_count(cutter, text) for cutter in self.tokenizers)

    def fault(self, text: str) -> str:
        """What is wrong with a text that is too long, "" for any other."""
        counts = [(_count(cutter, text), most) for cutter, most in self.readers]
        count, most = max(counts, key=lambda pair: pair[0] - pair[1])
        if count <= most:
            return ""
        return (
            f"{text!r} takes {count} tokens, and the model's text encoder reads {most} "
            f"at most, its start and end included: leave out {count - most} or more"
        )

    def refuse(self, texts: Iterable[str]) -> None:
        """Raises ValueError, with the first of them, when texts are longer than what is read."""
        long = [fault for text in dict.fromkeys(texts) if (fault := self.fault(text))]
        if long:
            more = f"\n  ... and {len(long) - MOST_SHOWN} more" if len(long) > MOST_SHOWN else ""
            raise ValueError("\n  ".join(long[:MOST_SHOWN]) + more)

    def spelled(self, word: str) -> bool:
        """Whether a part of a word is cut into single letters, or at all by a list of words: the
        model knows nothing about it."""
        return any(
            self._spells(cutter, part)
            for cutter in self.tokenizers
            for part in re.split(r"[^\w]+", word)
            if len(part) > 2 and part.isalpha()
        )

    @staticmethod
    def _spells(cutter: "PreTrainedTokenizerBase", part: str) -> bool:
        # CLIP marks the end of a word, T5 its start
        pieces = [piece.removesuffix("</w>").lstrip("▁") for piece in cutter.tokenize(part)]
        if len(pieces) < 2:
            return False
        return len(cutter) < WORD_LIST or all(len(piece) <= 1 for piece in pieces)

    def refuse_words(self, words: Iterable[str]) -> None:
        """Raises ValueError for words that the model was never taught: it would draw something
        else, and the checks would not notice."""
        if strange := [word for word in dict.fromkeys(words) if self.spelled(word)]:
            more = f" and {len(strange) - MOST_SHOWN} more" if len(strange) > MOST_SHOWN else ""
            raise ValueError(
                f"the diffusion model never learned {', '.join(map(repr, strange[:MOST_SHOWN]))}"
                f"{more}: its tokenizer spells it letter by letter. Give the class a word that the "
                "model knows under `words:`, or take a model that draws it (--profile sd15)"
            )

    def refuse_prompts(self, prompts: Iterable["Wording"]) -> None:
        """`refuse` all that rows of the PROMPTS schema ask the model: prompts and text queries."""
        self.refuse(
            text
            for prompt in prompts
            for text in (prompt["text"], *map(query_text, prompt["words"]))
        )


def limit_of(
    tokenizers: Sequence["PreTrainedTokenizerBase"],
    positions: Sequence[int],
    beside: Sequence[tuple["PreTrainedTokenizerBase", int]] = (),
) -> TextLimit:
    """positions: how many tokens each text encoder reads (`reads`), of those that words are read
    from; beside: the others' tokenizers, with theirs.

    A tokenizer that was saved without `model_max_length` gives 1e30; then the encoder's counts.
    """
    most = min(*positions, *(c.model_max_length for c in tokenizers))
    others = [(cutter, min(count, cutter.model_max_length)) for cutter, count in beside]
    return TextLimit(tokenizers, most, others)


def _count(cutter: "PreTrainedTokenizerBase", text: str) -> int:
    return len(cutter(text, verbose=False).input_ids)


def reads_beside(config: Mapping[str, Any], t5_tokens: int | None = None) -> Any:
    """`reads` of a text encoder that stands beside those that words are read from."""
    if config.get("model_type") == "t5":
        return t5_tokens or BESIDE
    return reads(config)


def reads(config: Mapping[str, Any], t5_tokens: int | None = None) -> Any:
    """How many tokens a text encoder reads, as its configuration says: CLIP's has positions, T5's
    (FLUX) the length that it was trained with, or the fewer that a profile asks for."""
    if config.get("model_type") == "t5":
        known = config.get("n_positions", T5_READS)
        return known if t5_tokens is None else min(known, t5_tokens)
    return config.get("max_position_embeddings")


def read_limit(folder: Path, t5_tokens: int | None = None) -> TextLimit | None:
    """Of a model's files, which are not loaded; None where they are not complete. t5_tokens: of the
    profile (`diffusion.t5_tokens`)."""
    parts = [part for part in ("", "_2", "_3") if _listed(folder, part)]
    configs = {part: folder / f"text_encoder{part}" / "config.json" for part in parts}
    if not parts or not all(
        file.is_file() and (folder / f"tokenizer{part}").is_dir() for part, file in configs.items()
    ):
        return None
    read = {part: read_object(file) for part, file in configs.items()}
    # FLUX reads words from T5, its second; every other model from the one or two of CLIP.
    from_t5 = read.get("_2", {}).get("model_type") == "t5"
    words = [part for part in parts if (part == "_2" if from_t5 else part != "_3")]
    positions = {
        part: reads(own, t5_tokens) if part in words else reads_beside(own, t5_tokens)
        for part, own in read.items()
    }
    if wrong := [part for part, most in positions.items() if type(most) is not int or most < 1]:
        raise ValueError(
            f"{configs[wrong[0]]}: max_position_embeddings: expected how many tokens the text "
            "encoder reads; bring the model again"
        )
    with configured(str(folder / "tokenizer")):
        cutters = {part: _tokenizer(folder / f"tokenizer{part}") for part in parts}
    return limit_of(
        [cutters[part] for part in words],
        [positions[part] for part in words],
        [(cutters[part], positions[part]) for part in parts if part not in words],
    )


def _tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer in a folder: of the class that its configuration names, since transformers'
    AutoTokenizer, which asks a model's where there is none, imports torch."""
    import transformers

    settings = folder / "tokenizer_config.json"
    named = read_object(settings).get("tokenizer_class") if settings.is_file() else None
    kind = getattr(transformers, str(named), None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedTokenizerBase)):
        kind = transformers.AutoTokenizer
    found: PreTrainedTokenizerBase = kind.from_pretrained(str(folder))
    return found


def _listed(folder: Path, part: str) -> bool:
    """Whether the model in a folder has a text encoder: as its index says, which may leave out one
    whose files are there."""
    index = folder / "model_index.json"
    if not index.is_file():
        return (folder / f"tokenizer{part}").is_dir()
    return any(read_object(index).get(f"text_encoder{part}") or ())


def find_limit(
    model: str, revision: str | None = None, t5_tokens: int | None = None
) -> TextLimit | None:
    """`read_limit` of a folder or hub id, None where its files are not on this machine. Downloads
    nothing."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    if Path(model).is_dir():
        return read_limit(Path(model), t5_tokens)
    try:
        folder = Path(snapshot_download(model, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, FileNotFoundError):
        return None
    return read_limit(folder, t5_tokens)
