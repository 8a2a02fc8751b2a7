"""DiffEdit's mask: the places where two prompts predict different noise."""

from __future__ import annotations

from typing import Any

import torch

from ..diffusion.denoiser import Denoiser, predict_noise
from .inversion import OnStep, silent


@torch.no_grad()
def difference_mask(
    denoiser: Denoiser,
    latent: torch.Tensor,
    source_context: Any,
    target_context: Any,
    *,
    generator: torch.Generator,
    maps: int = 10,
    strength: float = 0.5,
    ratio: float = 3.0,
    steps: int = 50,
    everywhere: float = 0.0,
    on_step: OnStep = silent,
) -> torch.Tensor:
    """Threshold the mean of |eps_target - eps_source| over several noisy versions of a latent.

    All pictures of a batch get the same noise, so a batch is the loop. Takes 2 · ``maps`` rows per picture.

    Args:
        latent: (B, C, h, w), of the picture.
        generator: on the CPU; gives ``maps`` times the noise of one picture.
        strength: how noisy, 0 .. 1: step ``int(steps · strength)`` from the end of a schedule of ``steps``.
        ratio: the threshold is the map's mean times half of this.
        everywhere: a mask that holds less than this part of the whole difference, 0 .. 1, is replaced by ones: a new
            background changes the noise everywhere, and what is above the threshold is chance. 0 turns it off; the
            official code has no such rule.
        on_step: ``on_step(i, maps)`` after each map; may raise.

    Returns:
        (B, 1, h, w) float32, 1 where the prompts differ, else 0.

    Raises:
        ValueError: ``maps``, ``strength`` or ``ratio`` is out of range.

    Source: Couairon et al., DiffEdit (ICLR 2023), as in LLMGA 7e32eb6,
    pipeline_semantic_stable_diffusion_img2img_solver_lpw_mask.py, ``generate_mask``. Deviations: the mean for the
    threshold is a picture's own, not the batch's; the latent is the posterior's mean, not ten samples of it; guidance is
    left out, for with one negative prompt it only scales the difference, and the threshold scales with it.
    """
    if maps < 1 or ratio <= 0 or not 1 <= int(steps * strength) <= steps:
        raise ValueError(
            f"a difference mask needs maps >= 1, ratio > 0 and 1/steps <= strength <= 1; got maps {maps}, ratio {ratio}, "
            f"strength {strength} with {steps} steps"
        )
    total = len(denoiser.schedule.alphas_cumprod)
    timestep = round(int(steps * strength) * (total - 1) / steps)
    abar = float(denoiser.schedule.alphas_cumprod[timestep])
    batch = len(latent)
    contexts = [source_context] * batch + [target_context] * batch
    difference = torch.zeros(batch, *latent.shape[-2:])
    for i in range(maps):
        drawn = torch.randn(1, *latent.shape[1:], generator=generator).to(latent.device)
        noisy = abar**0.5 * latent.float() + (1 - abar) ** 0.5 * drawn
        source, target = predict_noise(denoiser, noisy.repeat(2, 1, 1, 1), timestep, contexts).chunk(2)
        difference += (target - source).abs().mean(1).cpu()
        on_step(i + 1, maps)
    threshold = difference.mean((1, 2), keepdim=True) * ratio / 2
    mask = (difference > threshold).float()
    held = (difference * mask).sum((1, 2)) / difference.sum((1, 2)).clamp(min=1e-20)
    mask[held < everywhere] = 1
    return mask[:, None].to(latent.device)
