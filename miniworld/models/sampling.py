"""Painting captions: DDIM sampling with classifier-free guidance, from noise that a picture's number decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from llmga.text import encode_sd15
from llmga.train import generator

CHUNK = 75  # tokens of a caption that a plain SD1.5 reads


@dataclass(frozen=True)
class PaintConfig:
    steps: int = 25
    guidance: float = 4.0
    batch: int = 128
    seed: int = 7


@dataclass(frozen=True)
class Control:
    """A diffusers ControlNet and what it is given: edges (B, 3, H, W) in 0 .. 1, one for each caption."""

    net: Any
    edges: torch.Tensor
    strength: float = 1.0

    def residuals(
        self, pictures: range, x: torch.Tensor, t: torch.Tensor, context: torch.Tensor
    ) -> dict[str, Any]:
        """What the UNet is to add at one step, for the pictures with their captions and once more without."""
        edges = self.edges[pictures.start : pictures.stop].to(x.device).repeat(2, 1, 1, 1)
        down, middle = self.net(x, t, context, edges, conditioning_scale=self.strength, return_dict=False)
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}


@torch.no_grad()
def paint(
    pipeline: Any,
    captions: Sequence[str],
    config: PaintConfig,
    unet: Any = None,
    max_chunks: int = 4,
    beside: torch.Tensor | None = None,
    begin: tuple[torch.Tensor, int] | None = None,
    control: Control | None = None,
    contexts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Paint captions with DDIM and classifier-free guidance.

    The noise of a picture is decided by its number alone, so two UNets, or two ways to read a caption, start alike.

    Args:
        unet: instead of the pipeline's.
        max_chunks: how many times 75 tokens of a caption are read.
        beside: (B, 5, h, w), what an inpainting UNet sees beside the noise: mask and latents of the masked picture.
        begin: scaled latents (B, 4, h, w) of pictures to begin from, and how many of the steps to leave out; all leave
            nothing but the autoencoder. (SDEdit, Meng et al. 2022.)
        control: a ControlNet that steers the UNet.
        contexts: (B, 77, dim) text states in place of those of the captions.

    Returns:
        (B, 3, 8 h, 8 w) in -1 .. 1, on the CPU.
    """
    unet = unet or pipeline.unet
    device, scheduler, painted = unet.device, pipeline.scheduler, []
    for first in range(0, len(captions), config.batch):
        part = list(captions[first : first + config.batch])
        if contexts is None:
            context = encode_sd15(pipeline.tokenizer, pipeline.text_encoder, part, max_chunks=max_chunks)
        else:
            context = contexts[first : first + len(part)].to(device)
        empty = encode_sd15(
            pipeline.tokenizer, pipeline.text_encoder, "", min_chunks=(context.shape[1] - 2) // CHUNK
        )
        both = torch.cat([context, empty.expand_as(context)])
        numbers = range(first, first + len(part))
        side = unet.config.sample_size
        shape = (4, *((side, side) if beside is None else beside.shape[-2:]))
        x = torch.stack([torch.randn(shape, generator=generator(config.seed, i)) for i in numbers]).to(device)
        more = x[:, :0] if beside is None else beside[first : first + len(part)].to(device)
        scheduler.set_timesteps(config.steps)
        timesteps = scheduler.timesteps
        if begin:
            latents, timesteps = begin[0][first : first + len(part)].to(device), timesteps[begin[1] :]
            x = scheduler.add_noise(latents, x, timesteps[:1]) if len(timesteps) else latents
        for t in timesteps:
            seen = torch.cat([x, more], 1).repeat(2, 1, 1, 1)
            added = {} if control is None else control.residuals(numbers, seen, t.to(device), both)
            eps_cond, eps_uncond = unet(seen, t.to(device), both, **added).sample.chunk(2)
            x = scheduler.step(eps_uncond + config.guidance * (eps_cond - eps_uncond), int(t), x).prev_sample
        painted.append(pipeline.vae.decode(x / pipeline.vae.config.scaling_factor).sample.clamp(-1, 1).cpu())
    return torch.cat(painted)
