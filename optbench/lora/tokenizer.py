"""A CLIP tokenizer with a small vocabulary of whole words, made on the spot."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from optbench.imports import quiet

_WORD_END = "</w>"
_START, _END = "<|startoftext|>", "<|endoftext|>"


def make_tokenizer(texts: Sequence[str], *, max_length: int) -> Any:
    """A CLIP tokenizer for which each word of these texts is one token; others are spelled.

    Every byte is a token, and so is every byte at the end of a word. A word's letters are joined from the left by
    merges of its own, after those of the words before it, so that these stay whole.

    Args:
        texts: whose words it knows.
        max_length: tokens of a padded or truncated text, with those that start and end it.
    """
    with quiet(extra="lora"):
        from tokenizers.pre_tokenizers import ByteLevel
        from transformers import CLIPTokenizer
    tokenizer_class: Any = CLIPTokenizer  # which says that it wants merges as text, and refuses them
    alphabet = sorted(ByteLevel.alphabet())
    merges: list[tuple[str, str]] = []
    for word in sorted({word for text in texts for word in re.findall(r"[a-z]+", text.lower())}):
        pieces = [*word[:-1], word[-1] + _WORD_END]
        while known := [pair for pair in pairwise(pieces) if pair in merges]:
            pieces = _joined(pieces, min(known, key=merges.index))
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = _joined(pieces, merges[-1])
    tokens = [*alphabet, *(letter + _WORD_END for letter in alphabet), *map("".join, merges), _START, _END]
    vocabulary = {token: place for place, token in enumerate(dict.fromkeys(tokens))}
    return tokenizer_class(vocab=vocabulary, merges=merges, model_max_length=max_length)


def _joined(pieces: Sequence[str], pair: tuple[str, str]) -> list[str]:
    """The pieces with this pair in one, wherever it is."""
    found: list[str] = []
    rest = list(pieces)
    while rest:
        count = 2 if tuple(rest[:2]) == pair else 1
        found.append("".join(rest[:count]))
        rest = rest[count:]
    return found
