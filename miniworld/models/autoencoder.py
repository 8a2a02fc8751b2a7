"""The miniature's autoencoder: TAESD's network, trained on the world's pictures alone.

TAESD spends most of its time on residual blocks at full and half size, which flat shapes do not need: seven of its
blocks are ``IDLE``. Training leaves them out, and the file holds zeros for them, with which a block only repeats what it
gets; so every TAESD loader takes the file. Training starts from weights that do the best a linear net could easily do:
three latents are the colour of 8 × 8 pixels, painted back softly. From random weights most of the minutes went into
finding the colours.
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
from ..world.scene import PLACES, SIZES
from .single_file import StateDict

CHANNELS = 4
IDLE = {"encoder": (1, 3, 4, 5), "decoder": (13, 14, 17)}
"""Residual blocks by their place in ``AutoencoderTiny``; what enters them has passed a ReLU, or passes one there."""


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
    objects: float = 0.0
    """How much more an error counts around an object: backgrounds fill the pictures, shapes are what is looked at."""

    def __post_init__(self) -> None:
        if self.crop % 8 or not 8 <= self.crop <= 128:
            raise ValueError(f"crop is a multiple of 8 up to 128, got {self.crop}")


class AutoencoderTrainer:
    """The trainer (see ``llmga.train.Trainer``) of an ``AutoencoderTiny``.

    A BatchNorm without weights of its own stands between the two halves, so that the latents have mean 0 and variance
    1; ``export`` folds it into the encoder's last layer.
    """

    def __init__(self, config: AutoencoderConfig, source: Painted, start: StateDict | None = None) -> None:
        from diffusers import AutoencoderTiny

        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.loop.seed)
            net: Any = AutoencoderTiny()
        self._idle = {
            f"{half}.layers.{i}.{name}": torch.zeros_like(value)
            for half, places in IDLE.items()
            for i in places
            for name, value in getattr(net, half).layers[i].state_dict().items()
        }
        skip_idle_blocks(net, even_if_not_zero=True)
        # 0.01: the decoder works on what is folded in the end, so the average must be a long one.
        self.norm = nn.BatchNorm2d(CHANNELS, eps=1e-8, affine=False, momentum=0.01)
        self._pictures = torch.from_numpy(source.pictures[: config.pictures])
        if start is None:
            start_with_colours(net, self.norm, as_images(self._pictures[:256]), config.loop.seed)
        else:
            net.load_state_dict({name: start[name].float() for name in net.state_dict()})
        self._windows, self._standing = _windows(), _standing(source.labels[: config.pictures])
        self.net = net.to(memory_format=torch.channels_last)

    def __len__(self) -> int:
        return len(self._pictures)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"autoencoder": self.net, "norm": self.norm}

    def prepare(self, device: torch.device, rank: int, world: int, barrier: Callable[[], None]) -> None:
        self._device = device
        if device.type != "cpu":
            self._pictures = self._pictures.to(device)

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures (B, 3, crop, crop) and what an error at each of their pixels weighs, (B, 1, crop, crop)."""
        crop = self.config.crop
        top, left = torch.randint(128 - crop + 1, (2,), generator=generator).tolist()
        rows, columns = slice(top, top + crop), slice(left, left + crop)
        pixels = self._pictures[indices.to(self._pictures.device), rows, columns].to(self._device)
        near = self._windows[:, rows, columns][self._standing[indices]].any(1, keepdim=True)
        weight = 1 + self.config.objects * near.to(self._device)
        return as_images(pixels).contiguous(memory_format=torch.channels_last), weight

    def loss(
        self, inputs: tuple[torch.Tensor, torch.Tensor], generator: torch.Generator
    ) -> tuple[torch.Tensor, Metrics]:
        images, weight = inputs
        latents = self.norm(self.net.encoder(images))
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        difference = self.net.decoder(latents + self.config.noise * noise).float() - images
        weight = weight / weight.mean()
        loss = (weight * difference.abs()).mean() + self.config.edges * edge_loss(difference, weight)
        return loss, {"psnr": -10 * torch.log10(difference.square().mean() / 4)}

    def sample(self, step: int, folder: Path) -> None:
        images, _ = self.batch(torch.arange(min(8, len(self))), torch.Generator())
        made = self.net.decoder(self.norm(self.net.encoder(images)))
        grid = torch.cat([torch.cat(list(row.float()), 2) for row in (images, made)], 1)
        to_pil(grid.permute(1, 2, 0)[None] / 2 + 0.5)[0].save(folder / f"step-{step:08d}.png")

    def export(self, folder: Path, weights: Weights) -> None:
        """``autoencoder.safetensors`` under its diffusers names."""
        from safetensors.torch import save_file

        net = {**weights["autoencoder"], **self._idle}
        mean, variance = weights["norm"]["running_mean"], weights["norm"]["running_var"]
        scale = (variance + self.norm.eps).rsqrt()
        last = max(int(name.split(".")[2]) for name in net if name.startswith("encoder.layers."))
        weight, bias = f"encoder.layers.{last}.weight", f"encoder.layers.{last}.bias"
        net[weight] = net[weight] * scale[:, None, None, None]
        net[bias] = (net[bias] - mean) * scale
        net = {name: value.contiguous() for name, value in net.items()}
        save_file(net, folder / "autoencoder.safetensors")


def skip_idle_blocks(net: Any, even_if_not_zero: bool = False) -> Any:
    """Put a ReLU in the place of each idle block, which does the same in no time; returns the net."""
    for half, places in IDLE.items():
        layers = getattr(net, half).layers
        for i in places:
            if even_if_not_zero or not any(parameter.any() for parameter in layers[i].parameters()):
                layers[i] = nn.ReLU()
    return net


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
    norm.running_mean[:3], norm.running_var[:3] = mean, deviation**2  # type: ignore[index]
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


def edge_loss(difference: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """How the gradients of two pictures differ, weighted, at full, half and quarter size.

    Args:
        difference: between the pictures, (B, C, H, W).
        weight: (B, 1, H, W).
    """
    total = difference.new_zeros(())
    for _ in range(3):
        for axis in (-1, -2):
            slope = difference.diff(dim=axis).abs()
            total = total + (slope * weight.narrow(axis, 0, slope.shape[axis])).mean()
        difference, weight = F.avg_pool2d(difference, 2), F.avg_pool2d(weight, 2)
    return total / 3


_BORDER = 5  # pixels around an object: its shadow, and the jitter of its place


def _windows() -> torch.Tensor:
    """(1 + 9 · 3, 128, 128) bool: nothing, then for each place and size the pixels around such an object."""
    windows = torch.zeros(1 + len(PLACES) * len(SIZES), 128, 128, dtype=torch.bool)
    for i, (x, y) in enumerate(PLACES.values()):
        for j, width in enumerate(SIZES.values()):
            reach = width // 2 + _BORDER
            rows, columns = (slice(max(at - reach, 0), at + reach) for at in (y, x))
            windows[1 + i * len(SIZES) + j, rows, columns] = True
    return windows


def _standing(labels: Any) -> torch.Tensor:
    """The windows (N, 9) that belong to labels (N, 37)."""
    sizes = torch.from_numpy(labels[:, list(ATTRIBUTES).index("size") : -1 : len(ATTRIBUTES)]).long()
    numbers = 1 + torch.arange(len(PLACES)) * len(SIZES) + sizes
    return numbers.masked_fill(sizes < 0, 0)


@torch.no_grad()
def reconstruct(net: Any, images: torch.Tensor) -> torch.Tensor:
    """Pictures (B, 3, H, W) in -1 .. 1 through both halves and clamped, on the net's device."""
    images = images.to(net.device)
    return net.decoder(net.encoder(images)).float().clamp(-1, 1)
