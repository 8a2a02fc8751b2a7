"""Deterministic example order, and RNG seeds derived from (seed, step): there is no state to save."""

from __future__ import annotations

import hashlib

import torch


def derive(*words: int | str) -> int:
    """Derive a 63-bit seed from any words; the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*words: int | str) -> torch.Generator:
    """A CPU generator seeded by ``derive``."""
    return torch.Generator().manual_seed(derive(*words))


class ExampleOrder:
    """Endless sequence of example indices: one permutation per epoch, a function of the seed alone."""

    def __init__(self, examples: int, seed: int) -> None:
        if examples < 1:
            raise ValueError("there are no examples to train on")
        self.examples = examples
        self.seed = seed
        self._latest: tuple[int, torch.Tensor] = (-1, torch.empty(0))

    def take(self, start: int, count: int) -> torch.Tensor:
        """The example indices at the positions start, …, start + count − 1, as (count,) int64."""
        pieces = []
        while count:
            epoch, offset = divmod(start, self.examples)
            piece = self._epoch(epoch)[offset : offset + count]
            pieces.append(piece)
            start, count = start + len(piece), count - len(piece)
        return torch.cat(pieces)

    def _epoch(self, epoch: int) -> torch.Tensor:
        number, permutation = self._latest  # one read: loading threads share this object
        if number != epoch:
            permutation = torch.randperm(self.examples, generator=generator(self.seed, "epoch", epoch))
            self._latest = (epoch, permutation)
        return permutation
