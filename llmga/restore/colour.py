"""Colour correction without a network: a least-squares gain and bias fitted to the preserved pixels.

A painter's autoencoder shifts contrast and brightness of a picture as a whole (LLMGA §3.4 trains against exactly this:
``gain · x + bias``). Where the image was preserved, the values before and after are both known, so the shift is a straight
line through those pixels and can be undone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ..windows import greatest_around
from .network_input import blend_weights, check_inputs, resize_to

Channels = Literal["each", "together"]

LEAST = 16
"""The fewest pixels that a line is fitted to."""
_GAINS = (0.5, 2.0)


@dataclass(frozen=True)
class ColourMatch:
    """Result of ``match_colour``: the image (B, 3, H, W), gain and bias (B, 3), and the pixels they were fitted to (B,)."""

    image: torch.Tensor
    gain: torch.Tensor
    bias: torch.Tensor
    pixels: torch.Tensor


def match_colour(
    image: torch.Tensor,
    reference: torch.Tensor,
    mask: torch.Tensor,
    ring: int = 32,
    *,
    channels: Channels = "each",
    on_picture: Callable[[], Any] = lambda: None,
) -> ColourMatch:
    """Correct the colours inside the hole by the least-squares line through a ring of preserved pixels.

    Args:
        image: (B, 3, h, w), 0 .. 1: what the painter gave, whole; resized to ``reference`` if it has another size.
        reference: (B, 3, H, W), 0 .. 1: the preserved picture.
        mask: (B, 1, any, any), 0 .. 1, resized to ``reference``; its values mix the result, and one below
            1/64 is 0.
        ring: pixels around the hole to look at, in pixels of ``reference``; 0 looks at all that is preserved.
        channels: "each" finds a line for every channel, which also undoes casts; "together" one for all three, as
            DiffRIR's training shifts them.
        on_picture: called before each picture; may raise.

    Returns:
        The picture, ``reference`` bit for bit where the mask is 0, and the lines. Gain 1 and bias 0 where fewer than 16
        pixels are preserved, or the gain would be beyond 0.5 .. 2: then only the bias is found, because a ring without
        contrast says nothing about gain.

    Raises:
        ValueError: the shapes do not fit each other, or a value is not allowed.

    Source: inverse of LLMGA eq. 8; ordinary least squares. Pixels that are clipped in either picture are left out: they
    no longer lie on the line.
    """
    check_inputs(image, reference, mask, "soft", None)
    if ring < 0:
        raise ValueError(f"ring must be 0 (everything) or more pixels, got {ring}")
    if channels not in ("each", "together"):
        raise ValueError(f"channels must be each or together, got {channels!r}")
    batch, size = max(map(len, (image, reference, mask))), reference.shape[-2:]
    pictures, lines = [], []
    for i in range(batch):
        on_picture()
        kept = reference[i % len(reference), :3]
        made = resize_to(image[i % len(image), :3][None], size, "bicubic")[0].to(kept.device)
        weights = blend_weights(mask[i % len(mask)][None], size, "soft")[0].to(kept.device)
        gain, bias, pixels = _line(made.float(), kept.float(), around(weights[None], ring)[0], channels)
        fixed = (made.float() * gain[:, None, None] + bias[:, None, None]).clamp(0, 1)
        mixed = torch.lerp(kept.float(), fixed, weights.float()).to(kept)
        pictures.append(torch.where(weights > 0, mixed, kept))
        lines.append((gain, bias, pixels))
    return ColourMatch(torch.stack(pictures), *(torch.stack(values) for values in zip(*lines, strict=True)))


def around(mask: torch.Tensor, ring: int) -> torch.Tensor:
    """The preserved pixels (mask exactly 0) within ``ring`` pixels of the hole, (B, 1, H, W) bool; ring 0 takes all."""
    kept = mask == 0
    return kept if ring == 0 else kept & (greatest_around((~kept).float(), ring) > 0)


def _line(
    made: torch.Tensor, kept: torch.Tensor, where: torch.Tensor, channels: Channels
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gain and bias (3,) with ``kept`` ≈ gain · made + bias, and the count of pixels."""
    inside = where & ((made > 0) & (made < 1) & (kept > 0) & (kept < 1)).all(0, keepdim=True)
    precise = torch.float32 if made.device.type == "mps" else torch.float64  # MPS has no float64
    x, y = (values[:, inside[0]].to(precise) for values in (made, kept))
    count = torch.tensor(x.shape[1], device=made.device)
    if count < LEAST:
        return made.new_ones(3), made.new_zeros(3), count
    if channels == "together":
        x, y = x.reshape(1, -1), y.reshape(1, -1)
    mean_x, mean_y = x.mean(1), y.mean(1)
    centred = x - mean_x[:, None]
    variance = centred.square().mean(1)
    gain = (centred * (y - mean_y[:, None])).mean(1) / variance.clamp_min(1e-12)
    gain = torch.where(
        (gain >= _GAINS[0]) & (gain <= _GAINS[1]) & (variance > 1e-8), gain, torch.ones_like(gain)
    )
    bias = mean_y - gain * mean_x
    return gain.expand(3).to(made), bias.expand(3).to(made), count
