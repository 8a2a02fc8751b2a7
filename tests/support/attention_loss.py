"""A loss on the cross-attention maps of a pass, for tests of gradients: how much one token is attended to, and where."""

from __future__ import annotations

from typing import Any

import torch


class AttentionLoss:
    """Taps that record the probabilities of one token in some layers, and end the pass after the last of them.

    Args:
        sites: the layers, in the order in which they run.
        stop: the exception that ends a pass; None: the pass goes on.
    """

    def __init__(self, sites: list[Any], token: int, stop: type[BaseException] | None = None) -> None:
        self.sites, self.token, self.stop = sites, token, stop
        self.maps: list[torch.Tensor] = []

    def attend(
        self, site: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, size: tuple[int, int]
    ) -> None:
        if site not in self.sites:
            return
        split_q, split_k = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k))
        scores = split_q @ split_k.mT * split_q.shape[-1] ** -0.5  # (B, heads, N, T)
        self.maps.append(scores.softmax(-1)[..., self.token].mean(1).unflatten(-1, size))
        if self.stop is not None and site == self.sites[-1]:
            raise self.stop

    def loss(self, eps: torch.Tensor | None = None) -> torch.Tensor:
        """The attention in the left half less that in the right half, over all maps of the pass."""
        assert self.maps, "no layer was seen"
        parts = []
        for each in self.maps:
            half = each.shape[-1] // 2
            parts.append(each[..., :half].mean() - each[..., half:].mean())
        self.maps = []
        return torch.stack(parts).sum()
