"""Exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn


class Ema:
    """A float32 average of named parameters, on their device.

    The decay warms up as (1 + n) / (10 + n) after n updates: a short run must not be averaged with its start.

    Source: diffusers ``EMAModel`` with its defaults, which LLMGA's stage 2 used
    (llmga/diffusers/train_text_to_image.py:586, commit 7e32eb6).
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.parameters = dict(parameters)
        self.decay = decay
        self.average = {name: p.detach().float().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Take in the weights; ``updates`` is how often that was done before."""
        decay = min(self.decay, (1 + updates) / (10 + updates)) if updates else 0.0
        values = [p.detach().float() for p in self.parameters.values()]
        torch._foreach_lerp_(list(self.average.values()), values, 1 - decay)

    @torch.no_grad()
    def load(self, average: Mapping[str, torch.Tensor]) -> None:
        for name, value in self.average.items():
            value.copy_(average[name])

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The parameters hold the average while this lasts."""
        own = {name: p.detach().clone() for name, p in self.parameters.items()}
        try:
            self._fill(self.average)
            yield
        finally:
            self._fill(own)

    @torch.no_grad()
    def _fill(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])
