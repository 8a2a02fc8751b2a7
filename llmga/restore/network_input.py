"""Input of the DIRformer, made strip by strip: padding, concatenation and pixel unshuffle without a whole copy.

Also the checks and the resizing that restoring and colour correction share.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from ..images import holes
from .network import Architecture, join_inputs
from .row_streams import RowStream

_ROUNDED = 64
"""Pixels by which the image may differ in shape from the reference: inpainting rounds sides to multiples of 8 to 64."""


class FoldedInput:
    """One image and its reference, unshuffled to a quarter of the result's size.

    Args:
        image: (3 or more, h, w).
        truth: (3, H, W), the result's size.
        weights: (1, H, W), hole from 0.5 on.
        like: a weight of the network.
    """

    def __init__(
        self,
        image: torch.Tensor,
        truth: torch.Tensor,
        weights: torch.Tensor,
        architecture: Architecture,
        like: torch.Tensor,
    ) -> None:
        self.architecture, self.like, scale = architecture, like, architecture.scale
        self.fold, self.sides = 4 // scale, truth.shape[-2:]
        small = tuple(-(-side // scale) for side in self.sides)
        self.image = resize_to(image[None, :3], small, "bicubic")[0]
        self.truth, self.hole = truth if architecture.reference else None, weights >= 0.5
        # Mirrored below and on the right, in pixels of the small picture, as the official script does.
        padded = [-(-side // architecture.multiple) * architecture.multiple for side in small]
        self.index = [_mirrored(a, b).to(self.image.device) for a, b in zip(small, padded, strict=True)]
        self.height, self.width = (side // self.fold for side in padded)
        self._fine = [
            _mirrored(side, scale * a)[(scale * index.cpu()[:, None] + torch.arange(scale)).flatten()].to(
                truth.device
            )
            for side, a, index in zip(self.sides, small, self.index, strict=True)
        ]

    def rows(self, count: int) -> RowStream:
        """The input in strips of ``count`` rows, (1, n, W, channels)."""
        for top in range(0, self.height, count):
            bottom = min(top + count, self.height)
            image = self._image(top, bottom)[None]
            if self.truth is None:
                joined = image
            else:
                fine = self._fine[0][4 * top : 4 * bottom]
                truth, hole = (
                    x[:, fine][..., self._fine[1]].to(self.like)[None] for x in (self.truth, self.hole)
                )
                joined = join_inputs(image, truth, hole, self.architecture)
            yield F.pixel_unshuffle(joined, self.fold).permute(0, 2, 3, 1)

    def enlarged(self, top: int, bottom: int) -> torch.Tensor:
        """The degraded picture (3, 4·n, 4·width) between two rows of the folded one, at the result's size."""
        scale = self.architecture.scale
        return self._image(top, bottom).repeat_interleave(scale, 1).repeat_interleave(scale, 2)

    def _image(self, top: int, bottom: int) -> torch.Tensor:
        rows = self.index[0][top * self.fold : bottom * self.fold]
        return self.image[:, rows][..., self.index[1]].to(self.like)


def resize_to(x: torch.Tensor, size: Any, mode: str) -> torch.Tensor:
    """Resize (B, C, h, w) in float32, antialiased and clamped to 0 .. 1; an input of that size is returned as it is."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x.float(), tuple(size), mode=mode, antialias=True).clamp_(0, 1)


def blend_weights(mask: torch.Tensor, size: Any, blend: str) -> torch.Tensor:
    """The share of the painted picture at each pixel of a result: (B, 1, H, W) float32, 0 .. 1.

    Args:
        mask: (B, 1, any, any), resized bilinearly; a value below 1/64 is 0.
        size: (H, W) of the result.
        blend: "soft" takes the mask's values; "hard" 1 from 0.5 on and 0 below.
    """
    weights = holes(resize_to(mask, size, "bilinear"))
    return (weights >= 0.5).float() if blend == "hard" else weights


def check_inputs(
    image: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor, blend: str, strip: int | None
) -> None:
    """Raise ValueError where shapes or settings do not fit ``restore``."""
    for name, x, least in (("image", image, 3), ("reference", reference, 3), ("mask", mask, 1)):
        if x.ndim != 4 or 0 in x.shape or (x.shape[1] not in (3, 4) if least == 3 else x.shape[1] != 1):
            wanted = "(B, 3 or 4, height, width)" if least == 3 else "(B, 1, height, width)"
            raise ValueError(f"{name} must be {wanted}, with at least one pixel; got {tuple(x.shape)}")
    sizes = {"image": len(image), "reference": len(reference), "mask": len(mask)}
    batch = max(sizes.values())
    if any(size not in (1, batch) for size in sizes.values()):
        given = ", ".join(f"{size} in {name}" for name, size in sizes.items())
        raise ValueError(f"give one picture or as many as in the largest batch, {batch}; got {given}")
    (h, w), (height, width) = image.shape[-2:], reference.shape[-2:]
    off = min(abs(h - height * w / width), abs(w - width * h / height))
    if off > max(_ROUNDED, 0.05 * min(h, w)):
        raise ValueError(
            f"image ({w}×{h}) and reference ({width}×{height}) have different shapes: "
            "give the reference that the image was painted from, cropped or padded in the same way"
        )
    if blend not in ("soft", "hard"):
        raise ValueError(f"blend must be soft or hard, got {blend!r}")
    if strip is not None and strip < 4:
        raise ValueError(f"strip must be at least 4 rows, got {strip}")


def _mirrored(size: int, total: int) -> torch.Tensor:
    """Indices of reflect padding from ``size`` to ``total`` rows, reflected again where one reflection is too short."""
    period = max(1, 2 * (size - 1))
    index = torch.arange(total) % period
    return torch.minimum(index, period - index)
