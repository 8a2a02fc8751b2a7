"""Alignment of an edited picture with its original: a zoom and a shift along each axis, estimated with outliers left out.

Instruction editors give the whole picture back a little shifted and zoomed, in other colours, and with something changed on
purpose. So what is compared is luma with its local mean and spread divided out, and the least squares are reweighted: what
was changed on purpose fits no zoom and counts for little.

Pictures are (1, C, H, W) here, 0 .. 1.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..restore.seam import luma

COARSEST = 48
"""Pixels of the shorter side where the search begins."""
FINEST = 1024
"""Pixels of the longer side where it ends. A larger picture is made smaller for it, also where colours and changes are
compared."""
LARGEST_SHIFT = 0.2
"""Of a side."""
ZOOMS = (0.8, 1.25)
"""The least and the greatest zoom that count as an alignment."""
_START_ZOOMS = (0.92, 1.0, 1.08)
_START_SHIFTS = (-0.08, 0.0, 0.08)
"""Of a side; every pair along x and y is tried with every zoom on the coarsest level."""
_CARRIED = 3
"""How many of the starts are followed one level further."""
_ALIKE, _BETTER = 0.4, 0.88
"""An alignment must leave less than this cost, or at most this part of the cost without it: two unrelated pictures fit a
little better somewhere, too (measured 0.45 and 0.91 at the least)."""
_STEPS = 20
_STILL = 1e-3
"""Pixels: a step that moves no corner further is the last of its level."""
_SHOWN = 0.25
"""Of normalised luma, squared: from here on a pixel of the original shows something that can be aligned."""
_NEGLIGIBLE = 0.04
"""Pixels: an alignment that moves no corner further is left out, and the picture is not resampled."""
_SPREAD = 4
"""Standard deviation, in pixels of a level, of the surroundings that luma is normalised by."""


@dataclass(frozen=True)
class Registration:
    """Where each pixel of the original is in the edited picture: ``middle + zoom * (pixel - middle) + shift``."""

    zoom: tuple[float, float] = (1.0, 1.0)
    """Along x and y: above 1 the edited picture shows its contents larger."""
    shift: tuple[float, float] = (0.0, 0.0)
    """Along x and y in pixels of the original: positive where the contents moved right and down."""

    def is_identity(self) -> bool:
        """Whether it moves nothing."""
        return self.zoom == (1.0, 1.0) and self.shift == (0.0, 0.0)


def blur(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of (B, C, H, W) with edges repeated; ``sigma`` in pixels, 0 returns the picture."""
    if sigma <= 0:
        return image
    reach = max(1, math.ceil(3 * sigma))
    at = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(image.shape[1], 1, 1, -1)
    count = image.shape[1]
    rows = F.conv2d(F.pad(image, (reach, reach, 0, 0), mode="replicate"), kernel, groups=count)
    return F.conv2d(F.pad(rows, (0, 0, reach, reach), mode="replicate"), kernel.mT, groups=count)


def estimate_registration(
    original: torch.Tensor, edited: torch.Tensor, ignore: torch.Tensor | None = None
) -> Registration:
    """Estimate the zoom and shift of an edited picture of the same size.

    Args:
        original, edited: (1, 3, H, W), 0 .. 1.
        ignore: (1, 1, H, W), 0 .. 1: how little a pixel counts, such as the mask of what was changed.

    Returns:
        The identity where no zoom within ``ZOOMS`` and shift up to ``LARGEST_SHIFT`` of a side fits better, also of what
        the original shows alone (something new on an empty ground fits any zoom that moves it out of sight), where it
        moves no corner by a twentieth of a pixel, or where less than 8 pixels are there to compare.

    Source: Lucas and Kanade 1981, Gauss-Newton steps from coarse to fine, reweighted as by Geman and McClure.
    """
    height, width = original.shape[-2:]
    if min(height, width) < 8:
        return Registration()
    levels = _levels(original, edited, ignore)
    starts = [
        original.new_tensor([zoom, zoom, 2 * x, 2 * y])
        for zoom, x, y in itertools.product(_START_ZOOMS, _START_SHIFTS, _START_SHIFTS)
    ]
    for i, level in enumerate(levels):
        fits = sorted((_fit(*level, start) for start in starts), key=lambda fit: fit[1])
        starts = [p for p, _ in fits[: _CARRIED if i == 0 else 1]]
    (found, cost), identity = fits[0], original.new_tensor([1.0, 1.0, 0.0, 0.0])
    unmoved = _cost(*levels[-1], identity)
    if not (cost < 0.99 * unmoved - 1e-4 and (cost < _ALIKE or cost < _BETTER * unmoved)):
        return Registration()
    first, second, share = levels[-1]
    shown = share * (first.square() > _SHOWN)
    if not _cost(first, second, shown, found) < 0.99 * _cost(first, second, shown, identity) - 1e-4:
        return Registration()
    moved = _corner(found - identity, height, width)
    if moved < _NEGLIGIBLE:
        return Registration()
    zx, zy, tx, ty = found.tolist()
    return Registration((zx, zy), (tx * width / 2, ty * height / 2))


def apply_registration(edited: torch.Tensor, how: Registration) -> tuple[torch.Tensor, torch.Tensor]:
    """The edited picture brought over the original, and where it has something to show.

    Returns:
        (1, C, H, W), its edges repeated beyond them, and (1, 1, H, W) bool.
    """
    height, width = edited.shape[-2:]
    if how.is_identity():
        return edited, torch.ones_like(edited[:, :1], dtype=torch.bool)
    grid = _grid(
        edited.new_tensor([*how.zoom, how.shift[0] * 2 / width, how.shift[1] * 2 / height]), height, width
    )
    moved = F.grid_sample(edited, grid, mode="bicubic", padding_mode="border", align_corners=False)
    limit = 1 - 1 / edited.new_tensor([width, height])  # the middles of the last pixels
    return moved.clamp(0, 1), (grid.abs() <= limit + 1e-4).all(-1)[:, None]


def _levels(
    original: torch.Tensor, edited: torch.Tensor, ignore: torch.Tensor | None
) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Normalised luma of both and the weights, each (1, 1, h, w), from the coarsest size to the finest."""
    height, width = original.shape[-2:]
    weight = torch.ones_like(original[:, :1]) if ignore is None else 1 - ignore.to(original)
    scale = min(1.0, FINEST / max(height, width))
    scales = [scale]
    while min(height, width) * scales[-1] / 2 >= COARSEST:
        scales.append(scales[-1] / 2)
    levels = []
    for scale in reversed(scales):
        size = [max(8, round(side * scale)) for side in (height, width)]
        first, second, share = (
            x
            if x.shape[-2:] == (size[0], size[1])
            else F.interpolate(x, size, mode="bilinear", antialias=True)
            for x in (luma(original), luma(edited), weight)
        )
        levels.append((_normalised(first), _normalised(second), share))
    return levels


def _normalised(grey: torch.Tensor) -> torch.Tensor:
    mean = blur(grey, _SPREAD)
    centred = grey - mean
    return centred / (blur(centred.square(), _SPREAD) + 4e-4).sqrt()


def _grid(p: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Sampling positions (1, H, W, 2) as grid_sample takes them, -1 .. 1 from edge to edge."""
    return _moved(_middles(p, height, width), p)


def _middles(like: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the middles of the columns (W,) and of the rows (H,) are, -1 .. 1 from edge to edge."""
    y, x = (
        (torch.arange(side, dtype=like.dtype, device=like.device) + 0.5) * (2 / side) - 1
        for side in (height, width)
    )
    return x, y


def _moved(middles: tuple[torch.Tensor, torch.Tensor], p: torch.Tensor) -> torch.Tensor:
    """The sampling positions (1, H, W, 2) of parameters."""
    x, y = middles[0] * p[0] + p[2], middles[1] * p[1] + p[3]
    grid = x.new_empty(1, len(y), len(x), 2)
    grid[..., 0], grid[..., 1] = x, y[:, None]
    return grid


def _sampled(edited: torch.Tensor, grid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    moved = F.grid_sample(edited, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return moved, (grid.abs() < 1).all(-1)[:, None]


def _weights(residual: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Geman-McClure: a residual far beyond the usual one counts for nothing."""
    seen = residual[share > 0.5]
    usual = seen.abs().median() if len(seen) else residual.new_tensor(1.0)
    square = (2 * usual).clamp_min(0.05).square()
    return share * (square / (square + residual.square())).square()


def _fit(
    original: torch.Tensor, edited: torch.Tensor, share: torch.Tensor, p: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """Gauss-Newton from ``p`` on one level: the parameters and the cost there."""
    height, width = original.shape[-2:]
    along_x = F.pad(edited[..., 2:] - edited[..., :-2], (1, 1)) * (width / 4)  # per unit of the grid
    along_y = F.pad(edited[..., 2:, :] - edited[..., :-2, :], (0, 0, 1, 1)) * (height / 4)
    stack = torch.cat([edited, along_x, along_y], 1)
    middles = _middles(p, height, width)
    at = _moved(middles, p.new_tensor([1.0, 1.0, 0.0, 0.0]))[0]
    for _ in range(_STEPS):
        moved, inside = _sampled(stack, _moved(middles, p))
        value, gx, gy = moved[0]
        residual = (value - original[0, 0]) * inside[0, 0]
        weight = _weights(residual, share[0, 0] * inside[0, 0])
        slopes = torch.stack([gx * at[..., 0], gy * at[..., 1], gx, gy]).flatten(1)  # (4, HW)
        weighted = slopes * weight.flatten()
        normal = weighted @ slopes.T + 1e-6 * torch.eye(4, dtype=p.dtype, device=p.device)
        step = torch.linalg.solve(normal, weighted @ residual.flatten())
        if not torch.isfinite(step).all():
            break
        p = p - step
        if not _allowed(p):
            break
        if _corner(step, height, width) < _STILL:
            break
    return p, _cost(original, edited, share, p)


def _cost(original: torch.Tensor, edited: torch.Tensor, share: torch.Tensor, p: torch.Tensor) -> float:
    """Mean robust residual where both pictures are seen, infinite where that is less than half of the picture."""
    if not _allowed(p):
        return math.inf
    moved, inside = _sampled(edited, _grid(p, *edited.shape[-2:]))
    weight = share * inside
    if weight.sum() < 0.5 * share.sum():
        return math.inf
    square = (moved - original).square()
    return ((square / (square + 0.25)) * weight).sum().item() / max(weight.sum().item(), 1e-12)


def _allowed(p: torch.Tensor) -> bool:
    zx, zy, tx, ty = p.tolist()
    zooms = ZOOMS[0] <= zx <= ZOOMS[1] and ZOOMS[0] <= zy <= ZOOMS[1]
    return zooms and abs(tx) <= 2 * LARGEST_SHIFT and abs(ty) <= 2 * LARGEST_SHIFT


def _corner(change: torch.Tensor, height: int, width: int) -> float:
    """By how many pixels a corner moves, at most, where the parameters change by this."""
    zx, zy, tx, ty = change.tolist()
    return max((abs(zx) + abs(tx)) * width / 2, (abs(zy) + abs(ty)) * height / 2)
