"""Edit inverted pictures: Direct Inversion with prompt-to-prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..diffusion.denoiser import Denoiser, predict_noise
from ..diffusion.schedule import ddim_step, part_of, predict_x0
from ..images import holes
from .attention_taps import SourceTaps, Step, TargetTaps
from .blend import LocalBlend, blended
from .control import Control, level_cells
from .inversion import OnStep, Trajectory, silent


@dataclass(frozen=True, eq=False)
class Edited:
    """The result of ``edit``."""

    latent: torch.Tensor
    """(B, 4, h, w) float32 on the CPU."""
    mask: torch.Tensor
    """(B, 1, h, w), 0 .. 1: where the picture could change at the last step; ones without a blend and a mask."""
    rows: int
    """How many rows went through the UNet, those of stopped passes included."""


@torch.no_grad()
def edit(
    denoiser: Denoiser,
    trajectory: Trajectory,
    source_context: Any,
    target_context: Any,
    negative_context: Any,
    control: Control,
    on_step: OnStep = silent,
) -> Edited:
    """Denoise inverted pictures again with another prompt, under the attention that their own prompt had.

    The source is not denoised: at every step it is the latent that the inversion passed through. This is Direct
    Inversion in closed form: its offset is whatever brings the source's latent back there. Therefore:

    - Where the mask is 0 the result is the trajectory's first latent, bit for bit.
    - A batch is the loop over its pictures (which share the prompts).
    - With the same prompt, an identity ``matrix``, ``own`` 0 and ``cfg`` 1 the result is DDIM's plain reconstruction; it
      is not the picture itself, for the target's branch has no offset (in the reference neither).

    Takes per step and picture 2 rows (1 if ``cfg`` is 1), and 1 more while something is taken from the source.

    Args:
        source_context: the one that the trajectory was inverted with.
        negative_context: unused, may be None, if ``cfg`` is 1.
        on_step: ``on_step(i, steps, preview)`` after each step; the preview is the predicted x0.

    Raises:
        ValueError: the trajectory belongs to another schedule; the mask has another size; a context has not as many
            tokens as the control's matrix.

    Source: Ju et al., Direct Inversion (ICLR 2024), Hertz et al., Prompt-to-Prompt (ICLR 2023);
    cure-lab/PnPInversion 07f97f4 ``directinversion+p2p``, to which a test compares this. Deviations: see ``Control``,
    ``LocalBlend``; the reference adds offsets found in a pass of their own, this replays.
    """
    schedule, steps = denoiser.schedule, trajectory.steps
    if tuple(schedule.timesteps(steps)) != trajectory.timesteps:
        raise ValueError(
            "inversion: it was made with another noise schedule than this model has; invert again"
        )
    _, batch, _, *size = trajectory.latents.shape
    given = _user_mask(control, batch, (size[0], size[1]))
    local_blend = LocalBlend(control.blend, control.tokens, (size[0], size[1])) if control.blend else None
    limit = control.self_max_pixels
    largest = level_cells(0.25, (size[0], size[1])) if limit is None else limit
    source = SourceTaps(denoiser.sites, largest, local_blend)
    target = TargetTaps(source, control.tokens)
    names = [target_context] if control.cfg == 1 else [negative_context, target_context]
    contexts = [context for context in names for _ in range(batch)]
    x, mask, rows = trajectory.latents[steps], given, 0
    for i, t in enumerate(trajectory.timesteps):
        taken = source.begin(
            Step(control.cross(i, steps), control.replaces_self(i, steps), local_blend is not None)
        )
        if taken:
            denoiser.eps(trajectory.latents[steps - i], t, [source_context] * batch, source)
            rows += batch
        eps = predict_noise(denoiser, x.repeat(len(names), 1, 1, 1), t, contexts, target if taken else None)
        rows += len(contexts)
        if len(names) == 2:
            eps_uncond, eps_cond = eps.chunk(2)
            eps = eps_uncond + control.cfg * (eps_cond - eps_uncond)
        level, next_level = schedule.abar(t), schedule.abar(t - schedule.stride(steps))
        preview = predict_x0(x, eps, level)
        x = ddim_step(x, eps, level, next_level)
        if local_blend is not None and control.blend is not None and i >= part_of(steps, control.blend.start):
            mask = given * local_blend.mask()
        x = blended(x, trajectory.latents[steps - i - 1], mask)
        on_step(i + 1, steps, preview)
    return Edited(x, mask.expand(batch, -1, -1, -1), rows)


def _user_mask(control: Control, batch: int, size: tuple[int, int]) -> torch.Tensor:
    if control.mask is None:
        return torch.ones(batch, 1, *size)
    mask = control.mask.detach().float().cpu()
    if mask.shape not in ((1, 1, *size), (batch, 1, *size)):
        raise ValueError(
            f"mask must be (1 or {batch}, 1, {size[0]}, {size[1]}), the size of the latent; got {tuple(mask.shape)}"
        )
    if not ((mask >= 0) & (mask <= 1)).all():
        raise ValueError(f"mask must be from 0 to 1, got {mask.min():g} to {mask.max():g}")
    return holes(mask)
