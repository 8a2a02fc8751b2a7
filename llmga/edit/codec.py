"""LatentCodec: pictures to latents and back, for a diffusers autoencoder here and for the host's VAE in its nodes."""

from __future__ import annotations

from typing import Any, Protocol

import torch


class LatentCodec(Protocol):
    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) float32 in 0 .. 1 -> the UNet's latents (B, 4, H / 8, W / 8) float32 on the CPU."""
        ...

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """The UNet's latents (B, 4, h, w) -> (B, 8 h, 8 w, 3) float32 in 0 .. 1 on the CPU."""
        ...


class DiffusersCodec:
    """A diffusers ``AutoencoderKL`` or ``AutoencoderTiny``; the mean of the posterior is taken, as ComfyUI does."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae

    @torch.no_grad()
    def encode(self, image: torch.Tensor) -> torch.Tensor:
        weight = next(self.vae.parameters())
        output = self.vae.encode(image.permute(0, 3, 1, 2).to(weight) * 2 - 1)  # BHWC -> BCHW
        latents = output.latents if hasattr(output, "latents") else output.latent_dist.mean
        return (latents * self.vae.config.scaling_factor).float().cpu()

    @torch.no_grad()
    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        weight = next(self.vae.parameters())
        image = self.vae.decode(latent.to(weight) / self.vae.config.scaling_factor).sample
        return (image.permute(0, 2, 3, 1).float().cpu() / 2 + 0.5).clamp(0, 1)  # BCHW -> BHWC
