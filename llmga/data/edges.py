"""Canny edges, equal to ``kornia.filters.canny``, which ComfyUI's core node *Canny* calls."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

LARGEST_THRESHOLD = 10.0
"""Sobel magnitudes of a picture in 0 .. 1 stay below it: 4 · √2 for a step between black and white without the blur."""
_GREY = (0.299, 0.587, 0.114)
_RADIUS, _SIGMA = 2, 1.0
"""Of the blur: 5 × 5 pixels."""
_EPS = 1e-6
"""Added to the squared magnitude."""
_SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))
_NEIGHBOURS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
"""(dy, dx) at 0, 45, … degrees, from right to down."""

Threshold = float | torch.Tensor
"""One for all pictures, or (B,) one for each."""


def check_thresholds(low: float, high: float) -> None:
    """Raise ValueError unless 0 < low <= high <= ``LARGEST_THRESHOLD``."""
    if not 0 < low <= high <= LARGEST_THRESHOLD:
        raise ValueError(
            f"Canny thresholds must be 0 < low <= high <= {LARGEST_THRESHOLD:g}, in units of the Sobel magnitude; "
            f"got low {low} and high {high}"
        )


@torch.no_grad()
def canny(images: torch.Tensor, low: Threshold, high: Threshold) -> torch.Tensor:
    """Edges of pictures by Canny's method: blur, Sobel, thinning to ridges, and tracking between two thresholds.

    Args:
        images: (B, 3, H, W) RGB in 0 .. 1, computed in float32; H and W at least 3.
        low, high: a ridge whose Sobel magnitude exceeds ``high`` is an edge, and so is what exceeds ``low`` and is
            connected to one. The magnitude is not normalised: a step between black and white has about 2.6 after the blur.

    Returns:
        (B, 1, H, W) float32 of 0 and 1.

    Raises:
        ValueError: the pictures' shape or the thresholds do not fit.

    Source: Canny, A Computational Approach to Edge Detection, 1986; kornia 0.9 ``filters/canny.py``, whose treatment of ties
    and borders this keeps, so that training sees the edges that ComfyUI's node makes.
    """
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[-2:]) <= _RADIUS:
        raise ValueError(f"images must be (B, 3, H, W), H and W at least 3; got {[*images.shape]}")
    low, high = (_per_picture(value, images) for value in (low, high))
    for bounds in zip(low.flatten().tolist(), high.flatten().tolist(), strict=True):
        check_thresholds(*bounds)
    ridges = _ridges(images.float())
    return _tracked(ridges > low, ridges > high).float()


def _per_picture(value: Threshold, images: torch.Tensor) -> torch.Tensor:
    """(B, 1, 1, 1)."""
    return (
        torch.as_tensor(value, dtype=torch.float32, device=images.device)
        .expand(len(images))
        .view(-1, 1, 1, 1)
    )


def _ridges(images: torch.Tensor) -> torch.Tensor:
    """The Sobel magnitude (B, 1, H, W) where it is largest along the gradient, 0 elsewhere."""
    red, green, blue = images.unbind(1)
    grey = (_GREY[0] * red + _GREY[1] * green + _GREY[2] * blue)[:, None]
    steps = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float32, device=images.device)
    bell = torch.exp(-steps.square() / (2 * _SIGMA**2))
    bell = bell / bell.sum()
    blurred = F.pad(grey, (_RADIUS,) * 4, "reflect")
    blurred = F.conv2d(F.conv2d(blurred, bell.view(1, 1, 1, -1)), bell.view(1, 1, -1, 1))
    sobel = torch.tensor(_SOBEL, device=images.device)
    gradient = F.conv2d(F.pad(blurred, (1,) * 4, "replicate"), torch.stack([sobel, sobel.T])[:, None])
    x, y = gradient.split(1, 1)
    # Beyond the border there is no gradient, so a flat pixel beats no neighbour there.
    padded = (F.pad(gradient, (1,) * 4).square().sum(1, keepdim=True) + _EPS).sqrt()
    height, width = x.shape[-2:]
    around = torch.cat([padded[..., 1 + dy :, 1 + dx :][..., :height, :width] for dy, dx in _NEIGHBOURS], 1)
    magnitude = padded[..., 1:-1, 1:-1]
    octant = (torch.atan2(y, x) * (4 / math.pi)).round().long() % 8
    largest = magnitude > padded[..., :1, :1]
    for direction in (octant, (octant + 4) % 8):
        neighbour = around.gather(1, direction)
        # Of two equal pixels across a step the left or the upper one is kept, as in OpenCV.
        tie = ((direction == 0) | (direction == 2)) & (magnitude == neighbour)
        largest &= (magnitude > neighbour) | tie
    return magnitude * largest


def _tracked(weak: torch.Tensor, strong: torch.Tensor) -> torch.Tensor:
    """The strong pixels, and the weak ones that a chain of weak ones connects to them (8 neighbours)."""
    from scipy.ndimage import label

    neighbours = np.zeros((3, 3, 3), bool)
    neighbours[1] = True  # within a picture, not from one to the next
    found: Any = label((weak | strong)[:, 0].cpu().numpy(), neighbours)
    lines, count = found
    kept = np.zeros(count + 1, bool)
    kept[lines[strong[:, 0].cpu().numpy()]] = True
    return torch.from_numpy(kept[lines])[:, None].to(weak.device)
