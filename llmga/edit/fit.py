"""Pictures and masks at sizes that latents have: sides are multiples of 8 pixels, and a mask is of cells."""

from __future__ import annotations

import torch
from torch.nn.functional import interpolate

from ..diffusion.denoiser import CELL
from ..images import holes

SMALLEST = 32
"""Pixels of a side: with fewer, attention has no more than one cell to tell apart."""


def fit_image(image: torch.Tensor, name: str = "image", cell: int = CELL) -> tuple[torch.Tensor, str]:
    """Cut pictures evenly at their edges to sides that are multiples of ``cell``, and make them RGB.

    Args:
        image: (B, H, W, 1, 3 or 4) in 0 .. 1, any float dtype.
        name: of the input, for the error.

    Returns:
        (B, H', W', 3) float32, and what was done in words.

    Raises:
        ValueError: a side has fewer than ``SMALLEST`` pixels.
    """
    height, width, channels = image.shape[1:]
    if min(height, width) < SMALLEST:
        raise ValueError(
            f"{name} is {width}×{height} pixels, and an edit needs {SMALLEST} on each side; scale it up (512 on the "
            "shorter side for SD1.5, 1024 for SDXL)"
        )
    notes = [f"{len(image)} picture{'s' * (len(image) > 1)} of {width}×{height} pixels"]
    if channels == 4:
        notes.append("alpha was dropped")
    cut = _cut(image[..., :3].expand(-1, -1, -1, 3), cell).float()
    if cut.shape[1:3] != (height, width):
        notes.append(f"cut at its edges to {cut.shape[2]}×{cut.shape[1]}: sides must be multiples of {cell}")
    return cut, "; ".join(notes)


def fit_edit_mask(mask: torch.Tensor, pixels: tuple[int, int], cell: int = CELL) -> torch.Tensor | None:
    """A mask at the size of the pictures; None for one without anything in it, as LoadImage gives.

    Args:
        mask: (B, H, W). One of a size that ``fit_image`` cuts to ``pixels`` is of the uncut pictures and cut as they are;
            any other is resized.
        pixels: (H', W') of the pictures.
        cell: as in ``fit_image``.

    Returns:
        (B, H', W') float32 in 0 .. 1, with 0 where the mask is below 1/64.
    """
    mask = holes(mask)
    if not mask.any():
        return None
    if tuple(side // cell * cell for side in mask.shape[1:]) == tuple(pixels):
        mask = _cut(mask, cell)
    if mask.shape[1:] != pixels:
        mask = interpolate(mask[:, None], pixels, mode="area")[:, 0]
    return mask


def mask_cells(mask: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The cells of a latent that a mask (B, H, W) touches: (B, 1, h, w), 0 or 1.

    A cell that is masked in part may change, or else the mask's edge would stay.
    """
    return (interpolate(mask[:, None], size, mode="area") > 0).float()


def _cut(pictures: torch.Tensor, cell: int) -> torch.Tensor:
    """The middle of (B, H, W, …), with sides that are multiples of ``cell``."""
    height, width = pictures.shape[1:3]
    top, left = height % cell // 2, width % cell // 2
    return pictures[:, top : top + height // cell * cell, left : left + width // cell * cell]
