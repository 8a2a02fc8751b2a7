"""The miniature's autoencoder: a narrow TAESD, trained on the world's pictures alone.

It trains on crops, most of them around an object, from weights that do the best a linear net could easily do: three
latents are the colour of 8 × 8 pixels, painted back softly. From random weights most of the minutes went into finding
the colours. The encoder is finished first, so that a UNet can learn on its latents; the decoder goes on alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from llmga.images import to_pil
from llmga.train import LoopConfig, Metrics, Weights

from ..world.dataset import ATTRIBUTES, Painted, as_images
from ..world.scene import PLACES, UNIT
from .batch_renorm import BatchRenorm
from .narrow_taesd import CHANNELS, NarrowTaesd, widened
from .single_file import StateDict


@dataclass(frozen=True)
class AutoencoderConfig:
    loop: LoopConfig
    pictures: int
    """How many of the painted scenes it learns from."""
    crop: int = 64
    """Pixels; a multiple of 8."""
    around_objects: float = 0.85
    """The part of the crops that hold the place of an object: backgrounds fill the pictures, shapes are looked at."""
    edges: float = 1.0
    """Weight of the loss on differences between neighbours, at three scales."""
    noise: float = 0.1
    """Added to the latents, whose variance is 1: a painter's latents are not exact."""
    frozen_encoder: bool = False
    """Train the decoder alone."""

    def __post_init__(self) -> None:
        if self.crop % 8 or self.crop < 8:
            raise ValueError(f"crop is a multiple of 8, at least 8, got {self.crop}")
        if not 0 <= self.around_objects <= 1:
            raise ValueError(f"around_objects is a share, 0 .. 1, got {self.around_objects}")


class AutoencoderTrainer:
    """The trainer (see ``llmga.train.Trainer``) of a ``NarrowTaesd``.

    A batch renormalisation stands between the two halves, so that the latents have mean 0 and variance 1; ``export``
    folds it into the encoder's last layer.

    Args:
        start: weights of an ``AutoencoderTiny`` from where to go on, as ``export`` writes them.

    Raises:
        ValueError: the pictures are smaller than a crop, or the encoder is frozen without a start.
    """

    def __init__(self, config: AutoencoderConfig, source: Painted, start: StateDict | None = None) -> None:
        size = source.pictures.shape[1]
        if config.crop > size:
            raise ValueError(f"crop is at most the pictures' {size} pixels, got {config.crop}")
        if config.frozen_encoder and start is None:
            raise ValueError("frozen_encoder needs an encoder to start from; train one without it first")
        self.config = config
        net: Any = NarrowTaesd()
        self.norm = BatchRenorm(CHANNELS, config.loop.steps // 4)
        self._pictures = torch.from_numpy(source.pictures[: config.pictures])
        if start is None:
            start_with_colours(net, self.norm, as_images(self._pictures[:256]), config.loop.seed)
        else:
            shapes = {name: value.shape for name, value in net.state_dict().items()}
            net.load_state_dict(
                {name: start[name][tuple(map(slice, shape))].float() for name, shape in shapes.items()}
            )
        net.encoder.requires_grad_(not config.frozen_encoder)
        self._centres = torch.tensor(list(PLACES.values())) * size // UNIT
        labels = torch.from_numpy(source.labels[: config.pictures])
        self._standing = labels[:, : -1 : len(ATTRIBUTES)] >= 0  # (N, 9)
        self.net = net.to(memory_format=torch.channels_last)

    def __len__(self) -> int:
        return len(self._pictures)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"autoencoder": self.net, "norm": self.norm}

    def prepare(self, device: torch.device, rank: int, world: int, barrier: Callable[[], None]) -> None:
        self._device = device
        if device.type != "cpu":
            self._pictures = self._pictures.to(device)

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Crops of pictures, (B, 3, crop, crop) in -1 .. 1."""
        crop = self.config.crop
        rows = torch.arange(crop, device=self._pictures.device)
        x, y = self._corners(indices, generator).to(rows.device).unbind(1)
        where = (
            indices.to(rows.device)[:, None, None],
            (y[:, None] + rows)[:, :, None],
            (x[:, None] + rows)[:, None],
        )
        return as_images(self._pictures[where].to(self._device)).contiguous(memory_format=torch.channels_last)

    def _corners(self, indices: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """(B, 2) x and y of the crops' left upper corners."""
        crop, last = self.config.crop, self._pictures.shape[1] - self.config.crop
        anywhere = torch.randint(last + 1, (len(indices), 2), generator=generator)
        objects = torch.multinomial(self._standing[indices].float(), 1, generator=generator)[:, 0]
        aside = torch.randint(-(crop // 3), crop // 3 + 1, (len(indices), 2), generator=generator)
        around = (self._centres[objects] + aside - crop // 2).clamp(0, last)
        chosen = torch.rand(len(indices), 1, generator=generator) < self.config.around_objects
        return torch.where(chosen, around, anywhere)

    def loss(self, inputs: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, Metrics]:
        latents = self.net.encoder(inputs).float()
        if not self.config.frozen_encoder:
            latents = self.norm(latents)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        difference = self.net.decoder(latents + self.config.noise * noise).float() - inputs
        loss = difference.abs().mean() + self.config.edges * edge_loss(difference)
        return loss, {"psnr": -10 * torch.log10(difference.square().mean() / 4)}

    def sample(self, step: int, folder: Path) -> None:
        images = self.batch(torch.arange(min(8, len(self))), torch.Generator())
        latents = self.net.encoder(images)
        made = self.net.decoder(latents if self.config.frozen_encoder else self.norm(latents))
        grid = torch.cat([torch.cat(list(row.float()), 2) for row in (images, made)], 1)
        to_pil(grid.permute(1, 2, 0)[None] / 2 + 0.5)[0].save(folder / f"step-{step:08d}.png")

    def export(self, folder: Path, weights: Weights) -> None:
        """``autoencoder.safetensors`` in ``AutoencoderTiny``'s layout, its latents with mean 0 and variance 1 over whole
        pictures: the crops' statistics are those of objects."""
        from safetensors.torch import save_file

        net = dict(weights["autoencoder"])
        if not self.config.frozen_encoder:
            mean, std = self._statistics(net)
            last = max(int(name.split(".")[2]) for name in net if name.startswith("encoder.layers."))
            weight, bias = f"encoder.layers.{last}.weight", f"encoder.layers.{last}.bias"
            net[weight] = net[weight] / std[:, None, None, None]
            net[bias] = (net[bias] - mean) / std
        wide = {name: value.contiguous() for name, value in widened(net).items()}
        save_file(wide, folder / "autoencoder.safetensors")

    @torch.no_grad()
    def _statistics(self, weights: StateDict, pictures: int = 128) -> tuple[torch.Tensor, torch.Tensor]:
        """(4,) mean and (4,) standard deviation of what an encoder gives for whole pictures."""
        net = NarrowTaesd()
        net.load_state_dict(weights)
        parts = as_images(self._pictures[:pictures].cpu()).split(8)
        latents = torch.cat([net.encoder(part) for part in parts])
        return latents.mean((0, 2, 3)), latents.std((0, 2, 3))


_OPPONENT = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (-0.5, 1.0, -0.5))
"""Brightness and two differences of red, green and blue, which vary independently enough."""


@torch.no_grad()
def start_with_colours(net: Any, norm: nn.BatchNorm2d, images: torch.Tensor, seed: int) -> None:
    """Set a net's weights so that it averages the colours of 8 × 8 pixels into three latents and paints them softly.

    Blocks begin as the identity, and channels that have no part in this as He's random numbers.

    Args:
        images: (B, 3, H, W) in -1 .. 1, from which the latents' mean and variance are taken.
    """
    draw = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.copy_(torch.randn(module.weight.shape, generator=draw) * (2 / fan_in) ** 0.5)
            if module.bias is not None:
                module.bias.zero_()
    for block in (module for module in net.modules() if hasattr(module, "fuse")):
        block.conv[-1].weight.zero_()
    down, up = net.encoder.layers, net.decoder.layers
    down[0].weight[:3] = 0
    for c in range(3):
        down[0].weight[c, c, 1, 1] = 1
    for layer, channels in ((down[2], 3), (down[6], 12)):  # 2 × 2 pixels become channels
        layer.weight[: 4 * channels] = 0
        for k in range(4 * channels):
            layer.weight[k, k // 4, 1 + k // 2 % 2, 1 + k % 2] = 1
    down[10].weight[:3] = 0
    for k in range(48):
        down[10].weight[k // 16, k, 1:, 1:] = 1 / 64
    opponent = torch.tensor(_OPPONENT)
    down[14].weight[:3] = 0
    down[14].weight[:3, :3, 1, 1] = opponent
    colours = torch.einsum("kc,bchw->bkhw", opponent, F.avg_pool2d(images / 2 + 0.5, 8))
    mean, deviation = colours.mean((0, 2, 3)), colours.std((0, 2, 3))
    latents = net.encoder(images[:32])
    norm.running_mean.copy_(latents.mean((0, 2, 3)))  # type: ignore[union-attr]
    norm.running_var.copy_(latents.var((0, 2, 3)))  # type: ignore[union-attr]
    sign = torch.tensor([1.0, -1.0]).repeat(3)  # a latent in two channels, for a ReLU passes one sign
    up[0].weight[:6] = 0
    up[0].weight[range(6), [0, 0, 1, 1, 2, 2], 1, 1] = sign
    soft = torch.tensor([1.0, 2.0, 1.0]) / 4
    for layer in (up[6], up[11], up[16]):
        layer.weight[:6] = 0
        layer.weight[range(6), range(6)] = soft[:, None] * soft
    back = opponent.inverse()
    up[18].weight.mul_(0.1)
    up[18].weight[:, :6] = 0
    up[18].weight[:, :6, 1, 1] = (back * deviation).repeat_interleave(2, 1) * sign
    up[18].bias.copy_(back @ mean)


def edge_loss(difference: torch.Tensor) -> torch.Tensor:
    """How the gradients of two pictures differ at full, half and quarter size, from their difference (B, C, H, W)."""
    total = difference.new_zeros(())
    for _ in range(3):
        for axis in (-1, -2):
            total = total + difference.diff(dim=axis).abs().mean()
        difference = F.avg_pool2d(difference, 2)
    return total / 3


@torch.no_grad()
def reconstruct(net: Any, images: torch.Tensor) -> torch.Tensor:
    """Pictures (B, 3, H, W) in -1 .. 1 through both halves and clamped, on the net's device."""
    images = images.to(net.device)
    return net.decoder(net.encoder(images)).float().clamp(-1, 1)
