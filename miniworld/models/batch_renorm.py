"""Batch renormalisation: BatchNorm whose output follows from the running statistics alone, in training too."""

from __future__ import annotations

import torch
from torch import nn


class BatchRenorm(nn.BatchNorm2d):
    """Channels of (B, C, H, W) with mean 0 and variance 1 over the whole training set, without weights of its own.

    BatchNorm over a few crops takes the colour of these crops out of the latents, and a decoder cannot learn what it
    never sees. Renormalised, the output is ``(x - running_mean) / running_std``, as in use, while the gradient is
    BatchNorm's own, which holds the mean and the variance where they are.

    Source: Ioffe 2017, "Batch Renormalization", without the limits on r and d, which training begins with: here the
    running statistics begin right.
    """

    def __init__(self, channels: int, momentum: float = 0.01) -> None:
        super().__init__(channels, eps=1e-8, momentum=momentum, affine=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        input = input.float()
        running_mean, running_std = self.running_mean.clone(), self.std()  # type: ignore[union-attr]
        if not self.training:
            return (input - _beside(running_mean)) / _beside(running_std)
        with torch.no_grad():
            variance, mean = torch.var_mean(input, (0, 2, 3), correction=0)
            r, d = (variance + self.eps).sqrt() / running_std, (mean - running_mean) / running_std
        return super().forward(input) * _beside(r) + _beside(d)

    def std(self) -> torch.Tensor:
        """(C,) the running standard deviation."""
        return (self.running_var + self.eps).sqrt()  # type: ignore[operator]


def _beside(channels: torch.Tensor) -> torch.Tensor:
    return channels.view(1, -1, 1, 1)
