"""DDIM inversion: from a picture's latent to the noise that DDIM would denoise to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..diffusion.denoiser import Denoiser, predict_noise
from ..diffusion.schedule import ddim_step

OnStep = Callable[..., None]
"""``on_step(i, n, preview=None)``: i of n steps are done; the preview is a predicted x0 (B, 4, h, w). It may raise."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """All latents between a batch of pictures and the noise that DDIM inversion takes them to."""

    latents: torch.Tensor
    """(steps + 1, B, 4, h, w) float32 on the CPU; the first is that of the pictures."""
    timesteps: tuple[int, ...]
    """Descending, ``steps`` of them: ``latents[steps - i]`` is at the noise level of ``timesteps[i]``."""

    @property
    def steps(self) -> int:
        return len(self.timesteps)


def silent(i: int, n: int, preview: torch.Tensor | None = None) -> None:
    """The default ``on_step``: do nothing."""


@torch.no_grad()
def invert(
    denoiser: Denoiser, latent: torch.Tensor, context: Any, steps: int = 50, on_step: OnStep = silent
) -> Trajectory:
    """Follow DDIM from pictures towards noise, without guidance; takes ``steps`` rows per picture.

    Args:
        latent: (B, 4, h, w), of any size.
        context: the encoded prompt that describes the pictures.
        on_step: ``on_step(i, steps)`` after each step; may raise.

    Raises:
        ValueError: ``latent`` has another shape, or more steps than the schedule has timesteps.

    Source: Ju et al., Direct Inversion (ICLR 2024); cure-lab/PnPInversion 07f97f4 ``models/p2p/inversion.py``. As there,
    the noise is predicted at the noisier timestep of each step, and the picture's latent counts as one of timestep 0.
    """
    if latent.ndim != 4 or latent.shape[1] != 4 or 0 in latent.shape:
        raise ValueError(f"latent must be (B, 4, h, w), got {tuple(latent.shape)}")
    schedule = denoiser.schedule
    timesteps = schedule.timesteps(steps)
    x = latent.detach().float().cpu()
    latents = [x]
    stride = schedule.stride(steps)
    for i, t in enumerate(reversed(timesteps), 1):
        eps = predict_noise(denoiser, x, t, [context] * len(x))
        x = ddim_step(x, eps, schedule.abar(t - stride), schedule.abar(t))
        latents.append(x)
        on_step(i, steps)
    return Trajectory(torch.stack(latents), tuple(timesteps))
