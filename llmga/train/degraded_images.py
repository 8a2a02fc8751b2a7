"""Training examples of the restorers: clean images, random degradations of them, and random holes.

Source: DiffRIR 9f3931e ``DiffRIR/data/diffrir_y_mask_dataset.py`` and ``DiffRIR/models/DiffRIR_GAN_S2_model.py``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from ..data.blur import bell_kernel, filter_image
from ..data.degradations import Degradation, degrade
from ..images import check_files, read_picture
from ..paint.masks import MIXES


class CleanPictures(Protocol):
    """A dataset of clean images."""

    def __len__(self) -> int: ...

    def image(self, i: int) -> torch.Tensor:
        """(3, H, W) float, 0 .. 1, of any size."""
        ...


_SIZE = re.compile(r" \(\d{1,9}(?:, ?\d{1,9}){1,2}\)$")  # height, width, channels; a name may end in " (1)"


class PictureList:
    """Pictures that a text file names, one path under ``root`` a line; a size in brackets behind it does not count.

    That is the ``meta_info`` of BasicSR's trainers: ``0001_s001.png (480,480,3)``.

    Raises:
        ValueError: the file names no picture.
    """

    def __init__(self, paths: Path, root: Path) -> None:
        lines = map(str.strip, paths.read_text(encoding="utf-8-sig").splitlines())
        self._list, self._paths = paths, [root / _SIZE.sub("", line).strip() for line in lines if line]
        if not self._paths:
            raise ValueError(f"{paths} names no picture")

    def __len__(self) -> int:
        return len(self._paths)

    def check(self) -> None:
        """Raise FileNotFoundError unless every picture is there; see ``check_files``."""
        check_files(self._paths, self._list)

    def image(self, i: int) -> torch.Tensor:
        pixels = np.array(read_picture(self._paths[i]))
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


@dataclass(frozen=True)
class Crops:
    """Cropping, degradation and masking of training examples.

    Raises:
        ValueError: the sizes or the name do not fit.
    """

    canvas: int = 400
    """Pixels: a square of this size is degraded and gets its hole; a smaller picture is mirrored at its far edges."""
    size: int = 256
    """Pixels: what is trained on is a square of this size out of the canvas."""
    flip: bool = True
    """Mirror half of the pictures."""
    masks: str = "diffrir"
    """The name of a mix in ``llmga.paint.masks.MIXES``."""
    degradation: Degradation = Degradation()
    """Its ``scale`` is the network's, whatever is written here."""
    sharpen: bool = False
    """Take sharpened pictures for the truth; a critic sees real ones as they are."""

    def __post_init__(self) -> None:
        if not 0 < self.size <= self.canvas or self.size % 32 or self.canvas % 4:
            raise ValueError(
                f"size must be a multiple of 32 within canvas, a multiple of 4; got {self.size} and {self.canvas}"
            )
        if self.masks not in MIXES:
            raise ValueError(f"masks must be one of {', '.join(MIXES)}; got {self.masks!r}")


@dataclass
class RestorationBatch:
    """A micro-batch of examples on the device, 0 .. 1."""

    image: torch.Tensor
    """(B, 3, h, w), degraded everywhere, hole or not."""
    truth: torch.Tensor
    """(B, 3, scale·h, scale·w)"""
    mask: torch.Tensor
    """(B, 1, scale·h, scale·w), 1 = hole."""
    real: torch.Tensor
    """As ``truth``, never sharpened."""
    made: torch.Tensor | None = None
    """The restorer's output, for the critic."""


class Examples(Protocol):
    """A dataset of restoration examples."""

    def __len__(self) -> int: ...

    def part(
        self, indices: Sequence[int], rng: np.random.Generator, device: torch.device
    ) -> RestorationBatch:
        """These examples, as ``rng`` draws them."""
        ...


class DegradedImages:
    """Images that are cropped, degraded and masked anew every time.

    Args:
        scale: how many times smaller the degraded images are.
    """

    def __init__(self, pictures: CleanPictures, crops: Crops, scale: int) -> None:
        self.pictures, self.crops, self.scale = pictures, crops, scale

    def __len__(self) -> int:
        return len(self.pictures)

    def part(
        self, indices: Sequence[int], rng: np.random.Generator, device: torch.device
    ) -> RestorationBatch:
        images = (self.pictures.image(i).to(device) for i in indices)
        drawn = [_draw(image, self.crops, self.scale, rng) for image in images]
        return RestorationBatch(*(torch.cat(values) for values in zip(*drawn, strict=True)))


def sharpen(image: torch.Tensor) -> torch.Tensor:
    """Unsharp masking of pictures (B, 3, H, W), 0 .. 1, where they differ much from their surroundings.

    Source: Real-ESRGAN's sharpened targets, BasicSR ``USMSharp`` with its defaults: 51 pixels, hence a deviation of 8.
    """
    blur = bell_kernel("gaussian", 51, (8.0, 8.0))
    detail = image - filter_image(image, blur)
    where = filter_image((detail.abs() > 10 / 255).to(image), blur)
    return image + where * ((image + 0.5 * detail).clamp(0, 1) - image)


def _draw(
    image: torch.Tensor, crops: Crops, scale: int, rng: np.random.Generator
) -> tuple[torch.Tensor, ...]:
    canvas, size = crops.canvas, crops.size
    if crops.flip and rng.random() < 0.5:
        image = image.flip(-1)
    rows, columns = (_window(side, canvas, rng, image.device) for side in image.shape[1:])
    real = image[:, rows][:, :, columns][None]
    truth = sharpen(real) if crops.sharpen else real
    mask = torch.from_numpy(MIXES[crops.masks].draw(rng, canvas, canvas)).to(image)[None, None]
    degraded = degrade(truth, rng, replace(crops.degradation, scale=scale))
    top, left = (int(rng.integers((canvas - size) // scale + 1)) for _ in range(2))
    small, large = (
        (..., slice(top * k, top * k + size // by), slice(left * k, left * k + size // by))
        for k, by in ((1, scale), (scale, 1))
    )
    return degraded[small], truth[large], mask[large], real[large]


def _window(side: int, canvas: int, rng: np.random.Generator, device: torch.device) -> torch.Tensor:
    """Indices of a random piece of a side, mirrored at its end where the side is too short."""
    start = int(rng.integers(max(side - canvas, 0) + 1))
    period = max(1, 2 * (side - 1))
    index = torch.arange(start, start + canvas, device=device) % period
    return torch.minimum(index, period - index)
