"""Seam measure: disparity of texture, brightness and contrast across the border of a hole, as numbers and an image.

Two bands run along the border, each ``band`` pixels wide, one inside the hole and one outside. Compared are

- **brightness**: the mean of the luma (Rec. 709 weights on the values as they are, 0 .. 1);
- **contrast**: its standard deviation, of what is coarser than texture;
- **texture**: the root mean square of what is finer: luma minus its mean over 5×5 pixels of
  the same side.

The disparity of each is the difference across the border, at every pixel near it, between what surrounds it inside and
what surrounds it outside, as the root mean square over the border. Nearby pixels are compared, not whole bands: a picture
of sky above and ground below has no seam because its hole touches both. What each figure would be where nothing was
generated is its **baseline**: the same across a border moved outwards by two bands into the preserved part.

The names are the paper's, which gives no formula (LLMGA §3.4: "texture, brightness and contrast disparities"); these
definitions are this project's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..windows import greatest_around, sum_around

LUMA = (0.2126, 0.7152, 0.0722)
_FINE = 5


@dataclass(frozen=True)
class Disparity:
    """Root mean square differences across a border, in units of the picture's values, 0 .. 1."""

    texture: float
    brightness: float
    contrast: float


@dataclass(frozen=True)
class Seam:
    """Seam measure of one image."""

    disparity: Disparity | None
    """None: there is no border, because the hole is empty or everything."""
    baseline: Disparity | None
    """Of the preserved part alone; None: there is too little of it around the hole."""
    picture: torch.Tensor
    """(3, H, W), 0 .. 1: the picture in grey, on its border red for texture, green for brightness, blue for contrast."""


def seam(
    image: torch.Tensor,
    mask: torch.Tensor,
    band: int = 8,
    gain: float = 10.0,
    on_part: Callable[[], Any] = lambda: None,
) -> list[Seam]:
    """Measure the seam of every image of a batch.

    Args:
        image: (B, 3, H, W), 0 .. 1: with the hole filled; alpha is dropped.
        mask: (B or 1, 1, H, W), 0 .. 1; hole from 0.5 on.
        band: pixels on each side of the border that are compared.
        gain: of the picture's colours: a disparity of 1 ÷ gain is full.
        on_part: called several times for each picture; may raise.

    Raises:
        ValueError: the shapes do not fit each other, or ``band`` is less than 1.
    """
    if image.ndim != 4 or image.shape[1] not in (3, 4) or 0 in image.shape:
        raise ValueError(f"image must be (B, 3 or 4, height, width), with a pixel; got {tuple(image.shape)}")
    if mask.shape not in ((1, 1, *image.shape[2:]), (len(image), 1, *image.shape[2:])):
        raise ValueError(
            f"mask must be (1 or {len(image)}, 1, {image.shape[2]}, {image.shape[3]}), the size of image; "
            f"got {tuple(mask.shape)}"
        )
    if band < 1:
        raise ValueError(f"band must be at least 1 pixel, got {band}")
    holes = (mask >= 0.5).to(image.device).expand(len(image), -1, -1, -1)
    return [
        _seam(x[None, :3].float(), hole[None], band, gain, on_part)
        for x, hole in zip(image, holes, strict=True)
    ]


def luma(image: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W) from (B, 3, H, W)."""
    return (image * image.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def _seam(
    image: torch.Tensor, hole: torch.Tensor, band: int, gain: float, on_part: Callable[[], Any]
) -> Seam:
    grey = luma(image)
    found = _disparities(grey, hole, torch.ones_like(hole), band, on_part)
    picture = grey.expand(-1, 3, -1, -1) * 0.5
    if found is None:
        return Seam(None, None, picture[0].clone())
    maps, border = found
    colours = (torch.cat(maps, 1).abs() * gain).clamp(0, 1)
    picture = torch.where(border, colours, picture)
    grown = greatest_around(hole.float(), 2 * band) > 0
    # Nothing of the hole itself may be looked at: what is compared inside is the preserved band next to the moved border.
    calm = _disparities(grey, grown, ~hole, band, on_part)
    return Seam(_figures(maps, border), None if calm is None else _figures(*calm), picture[0])


def _disparities(
    grey: torch.Tensor, hole: torch.Tensor, seen: torch.Tensor, band: int, on_part: Callable[[], Any]
) -> tuple[list[torch.Tensor], torch.Tensor] | None:
    """The difference, inside minus outside, of texture, brightness and contrast, at the border's pixels; and those."""
    inside, outside = hole & seen, ~hole & seen
    on_part()
    near = (greatest_around(inside.float(), 1) > 0) & (greatest_around(outside.float(), 1) > 0)
    if not near.any():
        return None
    sides = []
    for side in (inside, outside):
        on_part()
        share = side.float()
        # Of this side alone: the step across the border must not count as texture.
        coarse = _mean(grey, share, _FINE // 2, sum_around(share.double(), _FINE // 2), on_part)
        fine = (grey - coarse).square()
        weight = sum_around(share.double(), band)
        bright, square, texture = (
            _mean(x, share, band, weight, on_part) for x in (coarse, coarse.square(), fine)
        )
        sides.append((texture.sqrt(), bright, (square - bright.square()).clamp_min(0).sqrt()))
    return [a - b for a, b in zip(*sides, strict=True)], near


def _mean(
    x: torch.Tensor, share: torch.Tensor, reach: int, weight: torch.Tensor, on_part: Callable[[], Any]
) -> torch.Tensor:
    """The mean of ``x`` within ``reach`` pixels, weighted by ``share``, whose sum there is ``weight``; 0 where it is 0."""
    on_part()
    return (sum_around((x * share).double(), reach) / weight.clamp_min(1e-12)).float()


def _figures(maps: list[torch.Tensor], border: torch.Tensor) -> Disparity:
    texture, brightness, contrast = (difference[border].square().mean().sqrt().item() for difference in maps)
    return Disparity(texture, brightness, contrast)
