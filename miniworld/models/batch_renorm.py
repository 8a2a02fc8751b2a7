"""Batch renormalisation: BatchNorm whose output follows from the running statistics alone, in training too."""

from __future__ import annotations

import torch
from torch import nn


class BatchRenorm(nn.BatchNorm2d):
    """Channels of (B, C, H, W) with mean 0 and variance 1 over the whole training set, without weights of its own.

    BatchNorm over a few crops takes the colour of these crops out of the latents, and a decoder cannot learn what it
    never sees. Renormalised, the output is ``(x - running_mean) / running_std``, as in use, while the gradient is
    BatchNorm's own, which holds the mean and the variance where they are.

    It begins as BatchNorm, whose output has no need of running statistics that are still far behind, and is relaxed
    from the batch ``plain`` on within ``plain`` more.

    Args:
        plain: batches that are normalised as BatchNorm does.
        momentum: of the running statistics.

    Source: Ioffe 2017, "Batch Renormalization", with its limits on r (3) and d (5).
    """

    def __init__(self, channels: int, plain: int, momentum: float = 0.01) -> None:
        super().__init__(channels, eps=1e-8, momentum=momentum, affine=False)
        self.plain = plain

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        input = input.float()
        mean, std = self.running_mean.clone(), self.std()  # type: ignore[union-attr]
        if not self.training:
            return (input - _beside(mean)) / _beside(std)
        with torch.no_grad():
            variance, batch_mean = torch.var_mean(input, (0, 2, 3), correction=0)
            relaxed = (self.num_batches_tracked / max(self.plain, 1) - 1).clamp(0, 1)  # type: ignore[union-attr]
            r_max, d_max = 1 + 2 * relaxed, 5 * relaxed
            r = ((variance + self.eps).sqrt() / std).clamp(1 / r_max, r_max)
            d = ((batch_mean - mean) / std).clamp(-d_max, d_max)
        return super().forward(input) * _beside(r) + _beside(d)

    def std(self) -> torch.Tensor:
        """(C,) the running standard deviation."""
        return (self.running_var + self.eps).sqrt()  # type: ignore[operator]


def _beside(channels: torch.Tensor) -> torch.Tensor:
    return channels.view(1, -1, 1, 1)
