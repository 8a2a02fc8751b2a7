"""Edits with a flow model: FlowEdit, which needs no inversion, and RF-Inversion, which goes to noise and back.

A flow model predicts the velocity dx / dsigma on the straight path from a picture at sigma 0 to noise at sigma 1,
x(sigma) = (1 - sigma) x0 + sigma noise. Both methods use that velocity alone, so any network can give it, and latents may
have any number of dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch

from .inversion import OnStep, silent

Velocity = Callable[[torch.Tensor, float], torch.Tensor]
"""``velocity(x, sigma)``: dx / dsigma under one prompt, with its guidance, in the shape of ``x``."""
FlowMethod = Literal["FlowEdit", "RF-Inversion"]


@torch.no_grad()
def flow_edit(
    latent: torch.Tensor,
    sigmas: Sequence[float],
    source: Velocity,
    target: Velocity,
    *,
    generator: torch.Generator,
    n_max: int | None = None,
    n_min: int = 0,
    n_avg: int = 1,
    mask: torch.Tensor | None = None,
    on_step: OnStep = silent,
) -> torch.Tensor:
    """FlowEdit: move pictures by the difference of what two prompts want at the same noise level.

    Args:
        latent: (B, C, …) of the pictures.
        sigmas: falling, from at most 1 to 0: the noise level before each step, and the last one's end.
        source, target: the velocities under the prompt of the picture as it is, and under that of the edited picture.
        generator: on the CPU; gives the noise of one picture, which the whole batch gets, so a batch is the loop.
        n_max: how many of the last steps are taken; the others are left out. None: all. Fewer keep more of the picture.
        n_min: how many of these are ordinary sampling under the target prompt at the end. More let finer details change.
        n_avg: how many noises each step averages over.
        mask: broadcast to ``latent``, 0 .. 1: where the picture may change. Where it is 0 the latent stays, bit for bit.
        on_step: ``on_step(i, n, latent)`` after each step that is taken; may raise.

    Returns:
        (B, C, …) float32.

    Raises:
        ValueError: the sigmas do not fall to 0, or a count does not fit them.

    Source: Kulikov et al., FlowEdit: Inversion-Free Text-Based Editing Using Pre-Trained Flow Models (ICCV 2025, arXiv
    2412.08629), algorithm 1; n_min and n_max as its code fallenshock/FlowEdit 457f402. Deviation: one noise for the batch.
    """
    steps = _count_steps(sigmas)
    n_max = steps if n_max is None else n_max
    if not 1 <= n_max <= steps or not 0 <= n_min <= n_max or n_avg < 1:
        raise ValueError(
            f"FlowEdit needs 1 <= n_max <= steps, 0 <= n_min <= n_max and n_avg >= 1; got n_max {n_max}, n_min {n_min} and "
            f"n_avg {n_avg} at {steps} steps"
        )
    x0 = latent.float()
    edited = x0.clone()
    for done, i in enumerate(range(steps - n_max, steps - n_min), 1):
        sigma, after = sigmas[i], sigmas[i + 1]
        difference = torch.zeros_like(x0)
        for _ in range(n_avg):
            offset = sigma * (_noise(x0, generator) - x0)  # from a picture to its noisy version
            difference += (target(edited + offset, sigma) - source(x0 + offset, sigma)) / n_avg
        edited = edited + (after - sigma) * _inside(difference, mask)
        on_step(done, n_max, edited)
    if n_min == 0:
        return edited
    noise = _noise(x0, generator)
    x = edited + sigmas[steps - n_min] * (noise - x0)
    for i in range(steps - n_min, steps):
        sigma, after = sigmas[i], sigmas[i + 1]
        x = x + (after - sigma) * target(x, sigma)
        if mask is not None:  # outside: the picture at this noise level
            outside = x0 + after * (noise - x0)
            x = outside + _inside(x - outside, mask)
        on_step(i + 1 - (steps - n_max), n_max, x)
    return x


@torch.no_grad()
def rf_inversion_edit(
    latent: torch.Tensor,
    sigmas: Sequence[float],
    source: Velocity,
    target: Velocity,
    *,
    generator: torch.Generator,
    n_max: int | None = None,
    gamma: float = 0.5,
    eta: float = 0.9,
    eta_steps: int | None = None,
    mask: torch.Tensor | None = None,
    on_step: OnStep = silent,
) -> torch.Tensor:
    """RF-Inversion: go to noise under the source prompt, and back under the target prompt, pulled to the picture.

    Args:
        latent, sigmas, source, target, mask: as in ``flow_edit``.
        generator: on the CPU; gives the one noise that the way to noise is pulled to.
        n_max: how far to noise the picture goes, in steps from the end. None: all.
        gamma: 0 .. 1, how strongly the way to noise is pulled to that noise. 0 is the model's own way; 1 is that noise.
        eta: 0 .. 1, how strongly the way back is pulled to the picture. 0 is ordinary sampling; 1 gives the picture back.
        eta_steps: how many of the first steps back are pulled. None: all.
        on_step: ``on_step(i, 2 · n, latent)`` after each step of both ways; may raise.

    Returns:
        (B, C, …) float32.

    Raises:
        ValueError: the sigmas do not fall to 0, or a number is out of range.

    Source: Rout et al., Semantic Image Inversion and Editing using Rectified Stochastic Differential Equations (ICLR 2025,
    arXiv 2410.10792), algorithms 1 and 2. Deviation: on the way to noise the network gets the noise level of its
    step, where diffusers' version counts evenly from 0 whatever the sigmas are.
    """
    steps = _count_steps(sigmas)
    n_max = steps if n_max is None else n_max
    eta_steps = n_max if eta_steps is None else eta_steps
    if not 1 <= n_max <= steps or not 0 <= gamma <= 1 or not 0 <= eta <= 1 or not 0 <= eta_steps <= n_max:
        raise ValueError(
            f"RF-Inversion needs 1 <= n_max <= steps, gamma and eta in 0 .. 1, and 0 <= eta_steps <= n_max; got n_max "
            f"{n_max}, gamma {gamma}, eta {eta} and eta_steps {eta_steps} at {steps} steps"
        )
    levels = list(sigmas[steps - n_max :])
    x0 = latent.float()
    noise = _noise(x0, generator)
    x = x0.clone()
    for i, (sigma, after) in enumerate(zip(levels[:0:-1], levels[-2::-1], strict=True), 1):
        own, to_noise = source(x, sigma), (noise - x) / (1 - sigma)
        x = x + (after - sigma) * (own + gamma * (to_noise - own))
        on_step(i, 2 * n_max, x)
    for i, (sigma, after) in enumerate(zip(levels, levels[1:], strict=False)):
        pull = eta if i < eta_steps else 0.0
        own, from_picture = target(x, sigma), (x - x0) / sigma
        straight = x0 + (after / sigma) * (x - x0)  # back to the picture
        x = x + (after - sigma) * (own + pull * (from_picture - own))
        x = straight + _inside(x - straight, mask)
        on_step(n_max + i + 1, 2 * n_max, x)
    return x


def _count_steps(sigmas: Sequence[float]) -> int:
    steps = len(sigmas) - 1
    falling = all(after < before for before, after in zip(sigmas, sigmas[1:], strict=False))
    if steps < 1 or not falling or sigmas[0] > 1 or sigmas[-1] != 0:
        shown = ", ".join(f"{sigma:.4g}" for sigma in [*sigmas[:3], *sigmas[3:][-2:]])
        raise ValueError(
            f"the sigmas of a flow must fall from at most 1 to 0, got {len(sigmas)} of them: {shown}"
        )
    return steps


def _noise(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One picture's noise, drawn on the CPU."""
    return torch.randn(1, *x.shape[1:], generator=generator).to(x)


def _inside(change: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return change if mask is None else change * mask
