"""How likely each of some words was as the first of a reply, noted while a local model writes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .base import spells


class FirstWord:
    """Logits processor that notes the first token's probabilities and leaves the logits to another one.

    A word counts in every spelling that is one token: with a capital, and with a space before it.

    Args:
        processor: is called with the same arguments, and gives the result.
        tokenizer: the model's.
        words: in lower case.
    """

    def __init__(self, processor: Callable[..., torch.Tensor], tokenizer: Any, words: Sequence[str]) -> None:
        self._processor = processor
        vocabulary = tokenizer.get_vocab()
        self._ids = [[row for token, row in vocabulary.items() if spells(token, word)] for word in words]
        self.probabilities: tuple[float, ...] = ()
        """Of each word, 0 .. 1; empty before the first token."""

    def __call__(self, input_ids: torch.Tensor | None, scores: torch.Tensor) -> torch.Tensor:
        scores = self._processor(input_ids, scores)
        if not self.probabilities:
            likely = scores.float().softmax(-1).flatten()
            self.probabilities = tuple(float(likely[rows].sum()) for rows in self._ids)
        return scores
