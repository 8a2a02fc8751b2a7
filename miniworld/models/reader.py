"""Reader: a small network that reads a picture of the miniature world back into what stands where."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from llmga.train import LoopConfig, Metrics, Weights

from ..world.dataset import ATTRIBUTES, Painted, as_images
from ..world.scene import BACKGROUNDS, PLACES
from .autoencoder import reconstruct

SIZES = [1, *(len(values) for values in ATTRIBUTES.values())]
"""How many logits a place has for present, shape, colour, size and texture."""
SIDE = 128
"""Pixels of the pictures that it reads; a whole multiple is averaged down to it."""
_STRIDE = 8
_WINDOW = 6  # cells around a place, 48 pixels; neighbours lie 42 pixels apart


@dataclass(frozen=True)
class Reading:
    """What (B) pictures hold: ``present`` (B, 9) bool, the attributes (B, 9) and ``background`` (B) as indices."""

    present: torch.Tensor
    attributes: dict[str, torch.Tensor]
    background: torch.Tensor


class Reader(nn.Module):
    """Takes (B, 3, S, S) in -1 .. 1, S a multiple of 128, at which it reads; gives logits (B, 9, 23) of the places and
    (B, 8) of the background."""

    def __init__(self) -> None:
        super().__init__()

        def layer(channels_in: int, channels: int, stride: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False),
                nn.GroupNorm(8, channels),
                nn.ReLU(),
            )

        self.trunk = nn.Sequential(
            layer(3, 32, 2), layer(32, 32, 1), layer(32, 64, 2), layer(64, 64, 1), layer(64, 96, _STRIDE // 4)
        )  # fmt: skip
        self.narrow = nn.Sequential(nn.Conv2d(96, 32, 1), nn.ReLU())
        self.place = nn.Sequential(nn.Linear(32 * _WINDOW**2, 96), nn.ReLU(), nn.Linear(96, sum(SIZES)))
        self.background = nn.Linear(96, len(BACKGROUNDS))
        cells = SIDE // _STRIDE
        starts = [round(at / _STRIDE - _WINDOW / 2) for at in (22, 64, 106)]
        self.starts = [min(max(start, 0), cells - _WINDOW) for start in starts]

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.trunk(halved(images))
        narrow = self.narrow(features)  # (B, 32, 16, 16)
        windows = [
            narrow[:, :, top : top + _WINDOW, left : left + _WINDOW].flatten(1)
            for top in self.starts
            for left in self.starts
        ]  # PLACES is in reading order
        return self.place(torch.stack(windows, 1)), self.background(features.mean((2, 3)))

    @torch.no_grad()
    def read(self, images: torch.Tensor) -> Reading:
        """Read pictures (B, 3, S, S) in -1 .. 1, in batches, on the reader's device; the result is on the CPU."""
        parts = [self(part.to(next(self.parameters()))) for part in images.split(256)]
        places, background = (torch.cat(logits).float().cpu() for logits in zip(*parts, strict=True))
        present, *attributes = places.split(SIZES, -1)
        named = zip(ATTRIBUTES, (logits.argmax(-1) for logits in attributes), strict=True)
        return Reading(present[..., 0] > 0, dict(named), background.argmax(-1))


def halved(images: torch.Tensor) -> torch.Tensor:
    """Pictures (B, 3, S, S) averaged down to what the reader reads, (B, 3, 128, 128).

    Raises:
        ValueError: S is no multiple of 128.
    """
    times, rest = divmod(images.shape[-1], SIDE)
    if rest or not times:
        raise ValueError(f"the reader reads pictures of a multiple of {SIDE} pixels, got {images.shape[-1]}")
    return F.avg_pool2d(images, times) if times > 1 else images


@dataclass(frozen=True)
class ReaderConfig:
    loop: LoopConfig
    pictures: int
    """How many of the painted scenes it learns from."""
    reconstructed: float = 0.5
    """The part of a batch that goes through the autoencoder first, for that is what a painter's pictures do."""
    noise: float = 0.06
    blur: float = 0.5
    """How often a picture is blurred."""


class ReaderTrainer:
    """The trainer (see ``llmga.train.Trainer``) of a ``Reader``."""

    def __init__(self, config: ReaderConfig, source: Painted, autoencoder: Any) -> None:
        self.config, self._autoencoder = config, autoencoder.requires_grad_(False).eval()
        self._autoencoder.to(memory_format=torch.channels_last)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.loop.seed)
            self.net = Reader()
        self._pictures = torch.from_numpy(source.pictures[: config.pictures])
        self._labels = torch.from_numpy(source.labels[: config.pictures]).long()

    def __len__(self) -> int:
        return len(self._pictures)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"reader": self.net}

    def prepare(self, device: torch.device, rank: int, world: int, barrier: Callable[[], None]) -> None:
        self._device = device
        self._autoencoder.to(device)
        if device.type != "cpu":
            self._pictures = self._pictures.to(device)

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        images = as_images(self._pictures[indices.to(self._pictures.device)].to(self._device))
        share = round(self.config.reconstructed * len(images))
        if share:
            fast = self._device.type == "cuda"
            with torch.autocast(self._device.type, torch.bfloat16, enabled=fast):
                images = torch.cat([reconstruct(self._autoencoder, images[:share]), images[share:]])
        images = halved(images)
        blurred = torch.rand(len(images), generator=generator) < self.config.blur
        strength = torch.rand(len(images), 1, 1, 1, generator=generator) * self.config.noise
        # Millions of numbers: drawn where they are needed.
        local = torch.Generator(self._device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
        noise = torch.randn(images.shape, generator=local, device=self._device)
        soft = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), "reflect"), 3, 1)
        images = torch.where(blurred.to(self._device).view(-1, 1, 1, 1), soft, images)
        return images + strength.to(self._device) * noise, self._labels[indices].to(self._device)

    def loss(
        self, inputs: tuple[torch.Tensor, torch.Tensor], generator: torch.Generator
    ) -> tuple[torch.Tensor, Metrics]:
        images, labels = inputs
        places, background = self.net(images)
        return reading_loss(places, background, labels), {}

    def sample(self, step: int, folder: Path) -> None:
        """A reader makes no pictures."""

    def export(self, folder: Path, weights: Weights) -> None:
        """``reader.safetensors``, float16."""
        from safetensors.torch import save_file

        save_file(
            {name: value.half().contiguous() for name, value in weights["reader"].items()},
            folder / "reader.safetensors",
        )


def reading_loss(places: torch.Tensor, background: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The cross-entropy of a reading, all parts added up.

    Args:
        places: logits (B, 9, ``sum(SIZES)``); ``background``: logits (B, 8).
        labels: (B, 37) as ``labels_of`` gives them.
    """
    present, *attributes = places.float().split(SIZES, -1)
    truth = labels[:, :-1].unflatten(1, (len(PLACES), len(ATTRIBUTES)))  # -1: nothing stands there
    loss = F.binary_cross_entropy_with_logits(present[..., 0], (truth[..., 0] >= 0).float())
    loss = loss + F.cross_entropy(background.float(), labels[:, -1])
    for k, values in enumerate(attributes):
        loss = loss + F.cross_entropy(values.flatten(0, 1), truth[..., k].flatten(), ignore_index=-1)
    return loss


def load_reader(path: Path) -> Reader:
    """The reader of a file, in float32.

    Raises:
        FileNotFoundError: there is no such file.
    """
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; `python -m miniworld build` makes it")
    net = Reader()
    net.load_state_dict(load_file(path))
    return net.eval()
