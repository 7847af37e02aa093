"""The micro checkpoint's CLIPTokenizer: CLIP's own way of cutting text, merges learned on captions.

Every word of the world's captions becomes one token; any other word falls into pieces over the
byte alphabet, so that a user's own word is never unknown. Not here: the captions
(`ml.drawn_world.captions`).
"""

import json
from collections.abc import Iterable

from tokenizers import pre_tokenizers, trainers
from transformers import CLIPTokenizer

MAX_LENGTH = 24
"""Longest caption in tokens: at most 19 words, a comma, a start and an end, rounded up to 8."""

SPECIAL = ["<|startoftext|>", "<|endoftext|>"]
END_OF_WORD = "</w>"
MOST_TOKENS = 5_000
"""More than the merges of 100 words can use up: merging ends by itself when all are whole."""


def build_tokenizer(captions: Iterable[str]) -> CLIPTokenizer:
    """Learn merges until every word of the captions is one token.

    Each word counts once, whatever its frequency, so that the ids depend on the set of words only.
    """
    tokenizer = CLIPTokenizer(vocab={name: i for i, name in enumerate(SPECIAL)}, merges=[])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    endings = [letter + END_OF_WORD for letter in alphabet]
    # The trainer numbers word endings in random order and breaks ties between pairs by number:
    # named beforehand, the same words give the same ids. It also knows only those it met, while
    # CLIP's alphabet has every byte in both forms.
    trainer = trainers.BpeTrainer(
        vocab_size=MOST_TOKENS,
        min_frequency=1,
        special_tokens=SPECIAL + endings,
        initial_alphabet=alphabet,
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )
    words = sorted({word.strip(",.") for caption in captions for word in caption.lower().split()})
    tokenizer.backend_tokenizer.train_from_iterator([*words, ","], trainer)
    learned = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in learned["merges"]]
    return CLIPTokenizer(vocab=learned["vocab"], merges=merges, model_max_length=MAX_LENGTH)
