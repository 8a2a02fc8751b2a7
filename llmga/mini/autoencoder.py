"""The miniature's autoencoder: TAESD's network, trained on the world's pictures alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..images import to_pil
from ..train import LoopConfig, Metrics, Weights
from .dataset import Painted, as_images

CHANNELS = 4


@dataclass(frozen=True)
class AutoencoderConfig:
    loop: LoopConfig
    pictures: int
    """How many of the painted scenes it learns from."""
    crop: int = 128
    """Pixels; a multiple of 8."""
    edges: float = 1.0
    """Weight of the loss on differences between neighbours, at three scales."""
    noise: float = 0.05
    """Added to the latents, whose variance is 1: a painter's latents are not exact."""

    def __post_init__(self) -> None:
        if self.crop % 8 or not 8 <= self.crop <= 128:
            raise ValueError(f"crop is a multiple of 8 up to 128, got {self.crop}")


class AutoencoderTrainer:
    """The trainer (see ``llmga.train.Trainer``) of an ``AutoencoderTiny``.

    A BatchNorm without weights of its own stands between the two halves, so that the latents have mean 0 and variance
    1; ``export`` folds it into the encoder's last layer.
    """

    def __init__(self, config: AutoencoderConfig, source: Painted) -> None:
        from diffusers import AutoencoderTiny

        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.loop.seed)
            net: Any = AutoencoderTiny()
            self.net = net.to(memory_format=torch.channels_last)
        # 0.01: the decoder works on what is folded in the end, so the average must be a long one.
        self.norm = nn.BatchNorm2d(CHANNELS, eps=1e-8, affine=False, momentum=0.01)
        self._pictures = torch.from_numpy(source.pictures[: config.pictures])

    def __len__(self) -> int:
        return len(self._pictures)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"autoencoder": self.net, "norm": self.norm}

    def prepare(self, device: torch.device, rank: int, world: int, barrier: Callable[[], None]) -> None:
        self._device = device
        if device.type != "cpu":
            self._pictures = self._pictures.to(device)

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        crop = self.config.crop
        top, left = torch.randint(128 - crop + 1, (2,), generator=generator).tolist()
        pixels = self._pictures[indices.to(self._pictures.device), top : top + crop, left : left + crop]
        return as_images(pixels.to(self._device)).contiguous(memory_format=torch.channels_last)

    def loss(self, inputs: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, Metrics]:
        latents = self.norm(self.net.encoder(inputs))
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        made = self.net.decoder(latents + self.config.noise * noise).float()
        squared = F.mse_loss(made, inputs)
        loss = F.l1_loss(made, inputs) + self.config.edges * edge_loss(made, inputs)
        return loss, {"psnr": -10 * torch.log10(squared / 4)}

    def sample(self, step: int, folder: Path) -> None:
        images = self.batch(torch.arange(min(8, len(self))), torch.Generator())
        made = self.net.decoder(self.norm(self.net.encoder(images)))
        grid = torch.cat([torch.cat(list(row.float()), 2) for row in (images, made)], 1)
        to_pil(grid.permute(1, 2, 0)[None] / 2 + 0.5)[0].save(folder / f"step-{step:08d}.png")

    def export(self, folder: Path, weights: Weights) -> None:
        """``autoencoder.safetensors`` under its diffusers names."""
        from safetensors.torch import save_file

        net = dict(weights["autoencoder"])
        mean, variance = weights["norm"]["running_mean"], weights["norm"]["running_var"]
        scale = (variance + self.norm.eps).rsqrt()
        last = max(int(name.split(".")[2]) for name in net if name.startswith("encoder.layers."))
        weight, bias = f"encoder.layers.{last}.weight", f"encoder.layers.{last}.bias"
        net[weight] = net[weight] * scale[:, None, None, None]
        net[bias] = (net[bias] - mean) * scale
        net = {name: value.contiguous() for name, value in net.items()}
        save_file(net, folder / "autoencoder.safetensors")


def edge_loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The mean difference between the gradients of two pictures (B, C, H, W), at full, half and quarter size."""
    total = a.new_zeros(())
    for _ in range(3):
        difference = a - b
        total = total + difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return total / 3


@torch.no_grad()
def reconstruct(net: Any, images: torch.Tensor) -> torch.Tensor:
    """Pictures (B, 3, H, W) in -1 .. 1 through both halves and clamped, on the net's device."""
    images = images.to(net.device)
    return net.decoder(net.encoder(images)).float().clamp(-1, 1)


def psnr(made: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB of pictures (B, 3, H, W) in -1 .. 1, as (B,)."""
    return -10 * torch.log10((made - truth).square().mean((1, 2, 3)) / 4)
