"""DDIM inversion: the latents through which a picture goes on its way to noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..diffusion.denoiser import Denoiser, noise
from ..diffusion.schedule import transfer

OnStep = Callable[..., None]
"""``on_step(i, n, preview)``: i of n steps are done; the preview is a clean latent (B, 4, h, w) or None. May raise."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Every latent between a batch of pictures and the noise that DDIM takes them to."""

    latents: torch.Tensor
    """(steps + 1, B, 4, h, w) float32 on the CPU; the first is the clean latent."""
    timesteps: tuple[int, ...]
    """Descending, ``steps`` of them: ``latents[steps - i]`` is at the noise level of ``timesteps[i]``."""

    @property
    def steps(self) -> int:
        return len(self.timesteps)


def silent(i: int, n: int, preview: torch.Tensor | None = None) -> None:
    """An ``on_step`` that does nothing."""


@torch.no_grad()
def invert(
    denoiser: Denoiser, latent: torch.Tensor, context: Any, steps: int = 50, on_step: OnStep = silent
) -> Trajectory:
    """Follow DDIM from pictures towards noise, without guidance; takes ``steps`` rows per picture.

    Args:
        latent: (B, 4, h, w), clean, of any size.
        context: of the prompt that describes the pictures.

    Raises:
        ValueError: ``latent`` has another shape, or more steps than the schedule has timesteps.

    Source: Ju et al., Direct Inversion (ICLR 2024); cure-lab/PnPInversion 07f97f4 ``models/p2p/inversion.py``. As there,
    the noise is asked for at the noisier timestep of each step, and the clean latent counts as one of timestep 0.
    """
    if latent.ndim != 4 or latent.shape[1] != 4 or 0 in latent.shape:
        raise ValueError(f"latent must be (B, 4, h, w), got {tuple(latent.shape)}")
    schedule = denoiser.schedule
    timesteps = schedule.timesteps(steps)
    x = latent.detach().float().cpu()
    latents = [x]
    stride = schedule.stride(steps)
    for i, t in enumerate(reversed(timesteps), 1):
        eps = noise(denoiser, x, t, [context] * len(x))
        x = transfer(x, eps, schedule.abar(t - stride), schedule.abar(t))
        latents.append(x)
        on_step(i, steps)
    return Trajectory(torch.stack(latents), tuple(timesteps))
