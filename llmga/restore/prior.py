"""The prior, one vector per image that modulates the restorer, with its encoder and its few-step diffusion.

Source: DiffIR (arXiv 2303.09472, §3.2-3.3); DiffRIR 9f3931e ``ldm/ddpm.py``, ``DiffRIR/archs/S2_arch.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

SLOPE = 0.1
"""Negative slope of the leaky ReLUs in the prior's networks."""


class PriorEncoder(nn.Module):
    """Encoder (the papers' CPEN) from an unshuffled image (B, channels, h, w) to the prior (B, 4·n_feats)."""

    def __init__(self, channels: int, n_feats: int, n_encoder_res: int, operations: Any = nn) -> None:
        super().__init__()
        n, act = n_feats, lambda: nn.LeakyReLU(SLOPE)

        def conv(width: int, out: int) -> nn.Module:
            return operations.Conv2d(width, out, 3, padding=1)

        self.E = nn.Sequential(
            *(conv(channels, n), act()),
            *(Residual(nn.Sequential(conv(n, n), act(), conv(n, n))) for _ in range(n_encoder_res)),
            *(conv(n, 2 * n), act(), conv(2 * n, 2 * n), act(), conv(2 * n, 4 * n), act()),
            nn.AdaptiveAvgPool2d(1),
        )
        self.mlp = nn.Sequential(
            *(operations.Linear(4 * n, 4 * n), act(), operations.Linear(4 * n, 4 * n), act())
        )

    def forward(self, folded: torch.Tensor) -> torch.Tensor:
        return self.mlp(self.E(folded).flatten(1))


class PriorDenoiser(nn.Module):
    """MLP that predicts the clean prior x₀ from the noisy prior, the timestep and a condition of the same length."""

    def __init__(self, length: int, n_denoise_res: int, timesteps: int, operations: Any = nn) -> None:
        super().__init__()
        self.period = 10 * timesteps

        def layer(width: int) -> tuple[nn.Module, nn.Module]:
            return operations.Linear(width, length), nn.LeakyReLU(SLOPE)

        # Despite the name there is no sum with the input.
        more = (nn.ModuleDict({"resmlp": nn.Sequential(*layer(length))}) for _ in range(n_denoise_res))
        self.resmlp = nn.Sequential(*layer(2 * length + 1), *more)

    def forward(self, x: torch.Tensor, timestep: int, condition: torch.Tensor) -> torch.Tensor:
        time = x.new_full((len(x), 1), timestep / self.period)
        layers: list[Any] = list(self.resmlp)
        first, act, *more = layers
        out = act(first(torch.cat([condition, time, x], 1)))
        for module in more:
            out = module["resmlp"](out)
        return out


class PriorDiffusion(nn.Module):
    """A DDPM of very few steps that takes the posterior mean in each: only the start is random.

    Args:
        linear_start, linear_end: the first and last β; their roots are linear in the timestep.
    """

    def __init__(self, timesteps: int, linear_start: float, linear_end: float) -> None:
        super().__init__()
        roots = torch.linspace(linear_start**0.5, linear_end**0.5, timesteps, dtype=torch.float64)
        self.betas: torch.Tensor
        self.register_buffer("betas", (roots**2).float())

    def noisy(self, prior: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The prior at the last timestep, where training starts: almost nothing of it is left."""
        alpha = (1 - self.betas).prod()
        return alpha.sqrt() * prior + (1 - alpha).sqrt() * noise

    def forward(self, denoiser: PriorDenoiser, condition: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Run all steps from ``x`` (B, length): noise, or the output of ``noisy`` while training."""
        betas = self.betas
        alphas = (1 - betas).cumprod(0)
        before = torch.cat([alphas.new_ones(1), alphas[:-1]])
        to_guess = betas * before.sqrt() / (1 - alphas)  # the posterior q(x_{t-1} | x_t, x₀)
        to_x = (1 - before) * (1 - betas).sqrt() / (1 - alphas)
        for t in reversed(range(len(betas))):
            x = to_guess[t] * denoiser(x, t, condition) + to_x[t] * x
        return x


class Residual(nn.Module):
    """A body with a skip connection."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)
