"""Direct Inversion with prompt-to-prompt as published: offsets, both branches guided, probabilities as matrices.

The reference implementation that ``llmga.edit.edit`` is held to and timed against; for one picture.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import interpolate, max_pool2d

from llmga.diffusion import Denoiser, Site, ddim_step
from llmga.diffusion.denoiser import predict_noise
from llmga.edit import Control


class Probabilities:
    """Taps that hold every layer's matrix of probabilities."""

    def attend(
        self, site: Site, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, size: tuple[int, int]
    ) -> torch.Tensor:
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
        probabilities = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
        return (self.change(site, probabilities, size) @ v).transpose(1, 2).flatten(2)

    def change(self, site: Site, p: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return p


class Stored(Probabilities):
    """Adds up, over the steps, the prompted rows' probabilities of all layers of up to a quarter of the latent's pixels."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.stored: dict[Site, torch.Tensor] = {}

    def change(self, site: Site, p: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        prompted = p[len(p) // 2 :]
        self.edit(site, prompted)
        if p.shape[2] <= self.size[0] * self.size[1] // 4:
            self.stored[site] = self.stored.get(site, 0) + prompted
        return p

    def edit(self, site: Site, p: torch.Tensor) -> None:
        """Change the source's and the target's probabilities, (2, heads, queries, keys), in place."""


class Edit(Stored):
    def __init__(self, control: Control, size: tuple[int, int], steps: int) -> None:
        super().__init__(size)
        self.control, self.steps, self.step = control, steps, 0

    def edit(self, site: Site, p: torch.Tensor) -> None:
        source, target = p
        limit = self.control.self_max_pixels
        largest = self.size[0] * self.size[1] // 4 if limit is None else limit
        if site.kind == "cross" and (cross := self.control.cross(self.step, self.steps)):
            matrix, own = (part.to(p) for part in cross)
            p[1] = source @ matrix + target * own
        elif (
            site.kind == "self"
            and self.control.replaces_self(self.step, self.steps)
            and p.shape[2] <= largest
        ):
            p[1] = source

    def mask(self) -> torch.Tensor:
        """(1, 1, h, w), by LocalBlend's rule."""
        blend = self.control.blend
        h, w = self.size[0] // 4, self.size[1] // 4
        maps = [
            p.mean(1).unflatten(1, (h, w))
            for site, p in self.stored.items()
            if site.kind == "cross" and site.block != "middle" and p.shape[2] == h * w
        ]
        mean = torch.stack(maps).mean(0)

        def places(words: tuple[tuple[int, ...], ...], pool: bool, threshold: float) -> torch.Tensor:
            found = torch.stack([mean[row][..., list(each)].sum(-1) for row, each in enumerate(words)])[
                :, None
            ]
            if pool:
                found = max_pool2d(found, 3, 1, 1)
            found = interpolate(found, self.size)
            return (found / found.amax((-2, -1), keepdim=True) > threshold).any(0, keepdim=True)

        mask = places((blend.source, blend.target), True, blend.threshold)
        if blend.subtract_source or blend.subtract_target:
            mask &= ~places((blend.subtract_source, blend.subtract_target), False, blend.subtract_threshold)
        return mask.float()


@torch.no_grad()
def published_edit(
    denoiser: Denoiser,
    latent: torch.Tensor,
    source: Any,
    target: Any,
    negative: Any,
    control: Control,
    steps: int,
    reconstruct: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The source's and the edited latent, (2, 4, h, w), and the trajectory of the inversion.

    Args:
        reconstruct: also run the pass that the published procedure draws its reconstruction in; no result depends on it.
    """
    schedule, size = denoiser.schedule, (latent.shape[-2], latent.shape[-1])
    timesteps, stride = schedule.timesteps(steps), schedule.stride(steps)
    trajectory = [latent]
    for t in reversed(timesteps):
        eps = predict_noise(denoiser, trajectory[-1], t, [source], Probabilities())
        trajectory.append(ddim_step(trajectory[-1], eps, schedule.abar(t - stride), schedule.abar(t)))

    def down(z: torch.Tensor, t: int, taps: Probabilities) -> torch.Tensor:
        eps = predict_noise(denoiser, z.repeat(2, 1, 1, 1), t, [negative, negative, source, target], taps)
        eps_uncond, eps_cond = eps.chunk(2)
        guided = eps_uncond + control.cfg * (eps_cond - eps_uncond)
        return ddim_step(z, guided, schedule.abar(t), schedule.abar(t - stride))

    def denoised(taps: Stored) -> torch.Tensor:
        z = trajectory[-1].repeat(2, 1, 1, 1)
        for i, t in enumerate(timesteps):
            z = down(z, t, taps)
            z = torch.cat([z[:1] + offsets[i][:1], z[1:]])
            if isinstance(taps, Edit):
                taps.step = i + 1
                if control.blend is not None and i >= int(control.blend.start * steps):
                    z = z[:1] + taps.mask() * (z - z[:1])
        return z

    offsets = []
    z = trajectory[-1].repeat(2, 1, 1, 1)
    for i, t in enumerate(timesteps):
        before = down(z, t, Probabilities())
        offsets.append(trajectory[steps - i - 1] - before)
        z = before + offsets[-1]
    if reconstruct:
        denoised(Stored(size))
    return denoised(Edit(control, size, steps)), torch.stack(trajectory)
