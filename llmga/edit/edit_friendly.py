"""Edit-friendly DDPM inversion, as LLMGA's command line edits: noise maps that reproduce a picture, and their denoising.

Each noise level gets independent noise, and the noise that the solver must add to get from each level to the next is
stored. The stored noise carries the picture's structure into the edit. Attention is not changed; where the prompts agree
(see ``diffedit``) guidance is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..diffusion.denoiser import Denoiser, predict_noise
from ..diffusion.schedule import Schedule
from .diffedit import difference_mask
from .inversion import OnStep, silent


@dataclass(frozen=True)
class NoiseMaps:
    """The start of denoising and the noise that each step adds, by which pictures are reproduced; float32 on the CPU."""

    start: torch.Tensor
    """(B, C, h, w), at the level of the first timestep."""
    maps: torch.Tensor
    """(steps, B, C, h, w), in the order of denoising."""
    timesteps: tuple[int, ...]
    """Descending; after the last one comes 0."""


@dataclass(frozen=True)
class EditFriendly:
    """The settings of LLMGA's command line."""

    steps: int = 50
    skip: float = 0.25
    """The noisiest part of the schedule that is left out, 0 .. 1 (the command line's 25 is a percentage)."""
    source_cfg: float = 3.5
    target_cfg: float = 7.5
    mask_maps: int = 10
    mask_ratio: float = 3.0


@torch.no_grad()
def edit_friendly(
    denoiser: Denoiser,
    latent: torch.Tensor,
    source_context: Any,
    target_context: Any,
    negative_context: Any,
    settings: EditFriendly,
    *,
    seed: int,
    mask: torch.Tensor | None = None,
    on_step: OnStep = silent,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Edit pictures: find the mask, find the noise maps, denoise with the target prompt.

    Args:
        latent: (B, C, h, w), of the pictures.
        seed: of all noise; the same for each picture of the batch, so a batch is the loop.
        mask: (B or 1, 1, h, w), 0 .. 1, instead of the one that ``difference_mask`` finds.
        on_step: ``on_step(i, n, preview)`` over all three parts; the preview is the latent while it is denoised.

    Returns:
        The edited latent (B, C, h, w) float32 on the latent's device, and the mask that was used.

    Raises:
        ValueError: a setting is out of range.

    Source: LLMGA 7e32eb6, llmga/serve/cli-sd15-editing.py.
    """
    generator = torch.Generator().manual_seed(seed)
    first = 0 if mask is not None else settings.mask_maps
    total = first + 2 * settings.steps

    def count(done: int) -> OnStep:
        return lambda i, n, preview=None: on_step(done + i, total, preview)

    if mask is None:
        mask = difference_mask(
            denoiser,
            latent,
            source_context,
            target_context,
            generator=generator,
            maps=settings.mask_maps,
            ratio=settings.mask_ratio,
            on_step=count(0),
        )
    found = find_noise_maps(
        denoiser,
        latent,
        source_context,
        negative_context,
        generator=generator,
        steps=settings.steps,
        skip=settings.skip,
        cfg=settings.source_cfg,
        on_step=count(first),
    )
    after = count(first + settings.steps)
    made = denoise(
        denoiser,
        found,
        target_context,
        negative_context,
        mask=mask,
        cfg=settings.target_cfg,
        device=latent.device,
        on_step=after,
    )
    return made, mask


@torch.no_grad()
def find_noise_maps(
    denoiser: Denoiser,
    latent: torch.Tensor,
    context: Any,
    negative_context: Any,
    *,
    generator: torch.Generator,
    steps: int = 50,
    skip: float = 0.25,
    cfg: float = 3.5,
    on_step: OnStep = silent,
) -> NoiseMaps:
    """Find the noise maps with which ``denoise`` reproduces the latent.

    Args:
        latent: (B, C, h, w), of the pictures; it is taken to be at the noise level of timestep 0.
        generator: on the CPU; gives ``steps`` times the noise of one picture, which the whole batch gets.
        skip: the noisiest part of the schedule that is left out, 0 .. 1.
        cfg: 1 leaves out the negative rows.
        on_step: ``on_step(i, steps)`` after each; may raise.

    Raises:
        ValueError: more steps than the rest of the schedule has timesteps, or ``skip`` is out of range.

    Source: Huberman-Spiegelglas et al., An Edit Friendly DDPM Noise Space (CVPR 2024), algorithm 1, with the second-order
    SDE solver of DPM-Solver++ (Lu et al. 2022) as in LEDITS++; LLMGA 7e32eb6,
    pipeline_semantic_stable_diffusion_img2img_solver_lpw_mask.py, ``invert``. Deviations: the source prompt is read whole
    (theirs ends at 77 tokens); one noise for the batch; below 15 steps the last one stays of second order when denoising
    too, so that the latent is still given back (theirs is not).
    """
    timesteps = _timesteps(denoiser.schedule, steps, skip)
    x0 = latent.float()
    levels = [x0]
    for t in reversed(timesteps):
        abar = float(denoiser.schedule.alphas_cumprod[t])
        drawn = torch.randn(1, *latent.shape[1:], generator=generator).to(x0)
        levels.append(abar**0.5 * x0 + (1 - abar) ** 0.5 * drawn)
    levels.reverse()  # noisiest first; the last is x0
    solver = _Solver(denoiser.schedule, timesteps)
    x, maps = levels[0], []
    for i, t in enumerate(timesteps):
        eps = _guided_noise(denoiser, x, t, context, negative_context, cfg)
        mean, deviation = solver.step(i, x, eps)
        maps.append((levels[i + 1] - mean) / deviation)
        x = mean + deviation * maps[-1]  # the next level up to rounding, which must not add up
        on_step(i + 1, steps)
    return NoiseMaps(levels[0].cpu(), torch.stack(maps).cpu(), tuple(timesteps))


@torch.no_grad()
def denoise(
    denoiser: Denoiser,
    maps: NoiseMaps,
    context: Any,
    negative_context: Any,
    *,
    mask: torch.Tensor | None = None,
    cfg: float = 7.5,
    device: torch.device | str = "cpu",
    on_step: OnStep = silent,
) -> torch.Tensor:
    """Denoise from ``maps.start`` with the stored noise and another prompt.

    Args:
        mask: (B or 1, 1, h, w), 0 .. 1: where guidance counts; None: everywhere. Outside, the noise is the negative
            prompt's, so the picture changes there too.
        on_step: ``on_step(i, steps, latent)`` after each; may raise.

    Returns:
        (B, C, h, w) float32.

    Source: as ``find_noise_maps``, ``__call__``.
    """
    solver = _Solver(denoiser.schedule, maps.timesteps)
    where = None if mask is None else mask.to(device).float()
    x = maps.start.to(device)
    for i, t in enumerate(maps.timesteps):
        eps = _guided_noise(denoiser, x, t, context, negative_context, cfg, where)
        mean, deviation = solver.step(i, x, eps)
        x = mean + deviation * maps.maps[i].to(device)
        on_step(i + 1, len(maps.timesteps), x)
    return x


class _Solver:
    """sde-dpmsolver++ of second order (midpoint), the first step of first order; coefficients in float64."""

    def __init__(self, schedule: Schedule, timesteps: Sequence[int]) -> None:
        abar = schedule.alphas_cumprod.double().cpu()[[*timesteps, 0]]
        self._alpha, self._sigma = abar.sqrt(), (1 - abar).sqrt()
        self._half_logsnr = self._alpha.log() - self._sigma.log()
        self._before: torch.Tensor | None = None

    def step(self, i: int, x: torch.Tensor, eps: torch.Tensor) -> tuple[torch.Tensor, float]:
        """The mean of level i + 1 given level i, and the standard deviation around it."""
        alpha, sigma, half_logsnr = self._alpha, self._sigma, self._half_logsnr
        x0 = (x - float(sigma[i]) * eps) / float(alpha[i])
        h = half_logsnr[i + 1] - half_logsnr[i]
        drift = -torch.expm1(-2 * h)
        slope = torch.zeros_like(x0)
        if self._before is not None:
            slope = float(h / (half_logsnr[i] - half_logsnr[i - 1])) * (x0 - self._before)
        self._before = x0
        kept = float(sigma[i + 1] / sigma[i] * torch.exp(-h))
        mean = kept * x + float(alpha[i + 1] * drift) * (x0 + 0.5 * slope)
        return mean, float(sigma[i + 1] * drift.sqrt())


def _timesteps(schedule: Schedule, steps: int, skip: float) -> list[int]:
    """Evenly spaced from the last timestep that is not skipped down to 1, rounded down as the command line does."""
    highest = (
        len(schedule.alphas_cumprod) * (1 - skip) - 1 + 1e-9
    )  # 1000 times the float 1 - 0.9 is less than 100
    if not 0 <= skip < 1 or not 1 <= steps <= highest:
        raise ValueError(
            f"edit-friendly inversion needs 0 <= skip < 1 and at most as many steps as timesteps are left; got steps "
            f"{steps} and skip {skip}, which leaves {max(int(highest), 0)}"
        )
    schedule.check_start(int(highest))
    if steps == 1:
        return [int(highest)]
    return [int(highest + i * (1 - highest) / (steps - 1) + 1e-9) for i in range(steps)]


def _guided_noise(
    denoiser: Denoiser,
    x: torch.Tensor,
    timestep: int,
    context: Any,
    negative_context: Any,
    cfg: float,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    batch = len(x)
    if cfg == 1 and mask is None:
        return predict_noise(denoiser, x, timestep, [context] * batch)
    contexts = [negative_context] * batch + [context] * batch
    eps_uncond, eps_cond = predict_noise(denoiser, x.repeat(2, 1, 1, 1), timestep, contexts).chunk(2)
    guidance = cfg * (eps_cond - eps_uncond)
    return eps_uncond + (guidance if mask is None else guidance * mask)
