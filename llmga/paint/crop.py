"""Crop and stitch: a hole and its surroundings are cut out of a big picture, painted, and put back.

Images are (B, H, W, C), masks (B, H, W), 0 .. 1, 1 = to be generated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from ..images import channels_first, channels_last, fit_mask, holes
from ..windows import greatest_around
from .prepare import inner_ramp

MAX_SPREAD = 16
"""How many times larger than the picture a part may be; beyond, it would be repeated edges."""
SMALL = 2048 * 2048
"""Pixels of a part that are never too many."""


@dataclass(frozen=True)
class Box:
    """A part of a picture in its pixels; it may reach beyond the picture's edges."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Crop:
    """What ``stitch`` needs to put painted parts back."""

    image: torch.Tensor
    """(B, H, W, 3), whole."""
    mask: torch.Tensor
    """(B, H, W)."""
    boxes: tuple[Box, ...]
    empty: tuple[int, ...] = ()
    """The numbers of the pictures whose mask is empty; their part is their middle, with nothing to paint."""

    def __str__(self) -> str:
        """Where the parts were cut out, for a person to read."""
        height, width = self.image.shape[1:3]
        parts = (f"{box.width}×{box.height} at {box.left}, {box.top}" for box in self.boxes)
        return f"cut out of {width}×{height}: {'; '.join(parts)}"


def crop(
    image: torch.Tensor,
    mask: torch.Tensor,
    width: int,
    height: int,
    context: float = 1.5,
    enlarge: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, Crop]:
    """Cut out, for each picture, its hole with what is around it, all at one size.

    Args:
        image: (B, H, W, C) with C = 1, 3 or 4, any float dtype; alpha is dropped.
        mask: (B or 1, any, any), resized to the pictures; a value below 1/64 is 0.
        width, height: of what is cut out, in pixels, as the UNet likes them.
        context: the part's sides, as multiples of the hole's, at least.
        enlarge: let a small hole be painted larger than it is; otherwise the part has at least ``width`` × ``height`` of
            the picture's own pixels.

    Returns:
        (B, height, width, 3) float32, its masks (B, height, width), and how to go back. What lies beyond a picture's
        edge repeats the edge, is not to be painted, and is dropped on the way back. A picture whose mask is empty goes
        along with an empty mask, so that one of a batch does not cost the others.

    Raises:
        ValueError: every mask is empty, there are several masks but not one for each picture, or the part would be many
            times larger than the picture because its shape is too far from the hole's.
    """
    image = channels_last(channels_first(image.float()))
    mask = fit_mask(mask, image)
    empty = tuple(i for i, one in enumerate(mask) if not one.any())
    if len(empty) == len(mask):
        raise ValueError(
            f"mask {empty[0]} is empty: there is nothing to paint; draw one in Load Image (Open in MaskEditor)"
        )
    boxes = tuple(
        middle_box(one, width, height) if i in empty else hole_box(one, width, height, context, enlarge)
        for i, one in enumerate(mask)
    )
    parts = [cut_out(*one, width, height) for one in zip(image, mask, boxes, strict=True)]
    part, part_mask = (torch.stack(tensors) for tensors in zip(*parts, strict=True))
    return part, part_mask, Crop(image, mask, boxes, empty)


def stitch(
    part: Crop, painted: torch.Tensor, blend: int = 8, on_picture: Callable[[], Any] = lambda: None
) -> torch.Tensor:
    """Put painted parts back into their pictures.

    Args:
        painted: (N, h, w, C), resized to the boxes; N pictures, or any number of one picture.
        blend: the hole's edge is softened inwards over twice as many pixels of the whole picture.
        on_picture: called before each picture; may raise.

    Returns:
        (N, H, W, 3); where the mask is 0 the whole picture, bit for bit.

    Raises:
        ValueError: the numbers of pictures do not fit.
    """
    count = len(part.image)
    if count != 1 and len(painted) != count:
        raise ValueError(
            f"painted holds {len(painted)} pictures, crop holds {count}; connect what was painted from it"
        )
    if blend < 0:
        raise ValueError(f"blend must be 0 or more pixels, got {blend}")
    whole, weight = [], part.mask
    for i, picture in enumerate(channels_first(painted).to(part.image)):
        on_picture()
        old, box = part.image[i % count], part.boxes[i % count]
        if i < count:
            weight = inner_ramp(part.mask[i : i + 1], blend)[0, ..., None]
        new, place_of = put_back(picture, box, old.shape[0], old.shape[1])
        share = weight[place_of]
        result = old.clone()
        place = result[place_of]
        place.copy_(torch.where(share > 0, torch.lerp(place, new, share), place))
        whole.append(result)
    return torch.stack(whole)


def cut_out(
    picture: torch.Tensor, hole: torch.Tensor, box: Box, width: int, height: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """A box of one picture (H, W, 3) and of its mask (H, W), scaled: (height, width, 3) and (height, width).

    Beyond the picture's edge the edge is repeated, and the mask is 0. A hole that becomes smaller first grows, by nearly a
    pixel of the part: the mean over a part's pixel would leave of a thin line or a single pixel so little that it is not
    painted. Where it grew, ``stitch`` takes nothing.
    """
    rows, inside_rows = _clamped(box.top, box.height, picture.shape[0], picture.device)
    columns, inside_columns = _clamped(box.left, box.width, picture.shape[1], picture.device)
    inside = inside_rows[:, None] & inside_columns
    part = _resized(picture[rows][:, columns].movedim(-1, 0)[None], height, width, "bicubic")
    part_mask = (hole[rows][:, columns] * inside)[None, None]
    shrunk = round(max(box.height / height, box.width / width))
    if shrunk > 1:
        part_mask = greatest_around(part_mask, shrunk - 1) * inside
    part_mask = _resized(part_mask, height, width, "bilinear")
    return channels_last(part)[0], holes(part_mask[0, 0])


def put_back(
    painted: torch.Tensor, box: Box, height: int, width: int
) -> tuple[torch.Tensor, tuple[slice, slice]]:
    """A painted part (3, h, w) scaled to its box, (rows, columns, 3), without what lies beyond a picture of ``height`` ×
    ``width``; and the rows and columns of the picture that it covers."""
    part = channels_last(_resized(painted[None], box.height, box.width, "bicubic"))[0]
    top, left = max(0, box.top), max(0, box.left)
    bottom, right = min(height, box.top + box.height), min(width, box.left + box.width)
    part = part[top - box.top : bottom - box.top, left - box.left : right - box.left]
    return part, (slice(top, bottom), slice(left, right))


def middle_box(mask: torch.Tensor, width: int, height: int) -> Box:
    """The middle of a picture at its own scale, where there is no hole to show."""
    sides = [height, width]
    starts = [
        _placed((size // 2, size // 2), side, size) for side, size in zip(sides, mask.shape, strict=True)
    ]
    return Box(*starts, *sides)


def hole_box(mask: torch.Tensor, width: int, height: int, context: float, enlarge: bool) -> Box:
    """Where the part around a hole (H, W) lies; see ``crop``, whose ValueError of the part's shape it raises."""
    rows, columns = (torch.nonzero((mask > 0).any(axis)).flatten().tolist() for axis in (1, 0))
    spans = [(ends[0], ends[-1] + 1) for ends in (rows, columns)]
    # More context than there is picture would only repeat its edges.
    tall, wide = (
        max(end - start, min(size, round(context * (end - start))))
        for (start, end), size in zip(spans, mask.shape, strict=True)
    )
    scale = max(tall / height, wide / width, 0.0 if enlarge else 1.0)
    sides = [max(1, round(scale * side)) for side in (height, width)]
    # Rounding must not cut the hole.
    sides = [max(side, end - start) for side, (start, end) in zip(sides, spans, strict=True)]
    # Both sides grow with the larger need, so the part's area grows with the square of the shapes' difference.
    if sides[0] * sides[1] > max(MAX_SPREAD * mask.numel(), width * height, SMALL):
        hole_height, hole_width = (end - start for start, end in spans)
        raise ValueError(
            f"width and height: a part of {width}×{height} around the hole of {hole_width}×{hole_height} pixels would "
            f"be {sides[1]}×{sides[0]} pixels of a picture of {mask.shape[1]}×{mask.shape[0]}, mostly repeated edges; "
            "choose a width and height nearer to the hole's shape"
        )
    starts = [_placed(span, side, size) for span, side, size in zip(spans, sides, mask.shape, strict=True)]
    return Box(*starts, *sides)


def _placed(span: tuple[int, int], side: int, size: int) -> int:
    """Where a stretch of ``side`` pixels begins that has ``span`` in its middle, moved into the picture if it fits."""
    start = (span[0] + span[1] - side) // 2
    return min(max(0, start), size - side) if side <= size else (size - side) // 2


def _clamped(start: int, length: int, size: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    index = torch.arange(start, start + length, device=device)
    return index.clamp(0, size - 1), (index >= 0) & (index < size)


def _resized(x: torch.Tensor, height: int, width: int, mode: str) -> torch.Tensor:
    if x.shape[-2:] == (height, width):
        return x
    return F.interpolate(x, (height, width), mode=mode, antialias=True).clamp(0, 1)
