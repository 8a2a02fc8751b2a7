"""Small pictures of soft random blobs for alignment and change, and simple edits of them. Pictures are (1, 3, H, W)."""

from __future__ import annotations

import torch

from llmga.paint.registration import Registration, apply_registration, blur


def soft_scene(height: int = 96, width: int = 112, seed: int = 0) -> torch.Tensor:
    """Soft random blobs, 0.05 .. 0.95: something to align in a moment."""
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    soft = blur(noise, 3)
    return ((soft - soft.mean()) * 6 + 0.5).clamp(0.05, 0.95)


def with_square(image: torch.Tensor, top: int = 30, left: int = 40, side: int = 26) -> torch.Tensor:
    """The picture with a square whose colours are inverted and swapped."""
    image = image.clone()
    image[..., top : top + side, left : left + side] = 1 - image[
        ..., top : top + side, left : left + side
    ].flip(1)
    return image


def shifted(image: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """The contents moved right by ``x`` and down by ``y`` pixels."""
    return apply_registration(image, Registration((1.0, 1.0), (-x, -y)))[0]
