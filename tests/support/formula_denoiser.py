"""A denoiser of one small formula, whose weights follow from a hash: fast, smooth, and sensitive to all its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from support.tiny_clip import fill

WIDTH = 6


class FormulaNet(nn.Module):
    """(B, 4, h, w), timesteps (B) or (), contexts (B, T, 6) -> (B, 4, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 8, 3, padding=1)
        self.told = nn.Linear(WIDTH, 8)
        self.last = nn.Conv2d(8, 4, 3, padding=1)
        fill(
            (
                (name, value.flatten(1) if value.ndim > 1 else value)
                for name, value in self.named_parameters()
            ),
            "formula",
        )

    def forward(self, x: torch.Tensor, t: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        time = torch.as_tensor(t).reshape(-1, 1, 1, 1) / 1000
        # What the words say matters more on the left, so that a difference of prompts has a place.
        where = torch.linspace(1, 0, x.shape[-1]) ** 2
        told = self.told(context.mean(1))[..., None, None] * where
        return 0.8 * x + 0.4 * self.last(torch.tanh(self.first(x) * (0.5 + time) + told))


class FormulaDenoiser:
    """The net behind the Denoiser protocol; counts its rows. Contexts are (1, T, 6) tensors."""

    def __init__(self, schedule: Any) -> None:
        self.schedule, self.sites, self.net, self.rows = schedule, [], FormulaNet().eval(), 0

    @torch.no_grad()
    def eps(self, x: torch.Tensor, timestep: int, contexts: Sequence[Any], taps: Any = None) -> torch.Tensor:
        self.rows += len(x)
        return self.net(x, torch.tensor(timestep), torch.cat(list(contexts)))


def inputs(seed: int = 0) -> dict[str, torch.Tensor]:
    """A latent (2, 4, 8, 8) of variance 1 and three contexts (1, 5, 6)."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "latent": (2, 4, 8, 8),
        "source": (1, 5, WIDTH),
        "target": (1, 5, WIDTH),
        "negative": (1, 5, WIDTH),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
