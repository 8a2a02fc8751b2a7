"""Several regions of one picture, painted one after the other: each is cropped from the picture with those before it in it.

What was painted is collected beside the original, and the picture is the original with all of it stitched in at once: a
border that two regions share is not softened, and where nothing is stitched the original stays, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from ..images import channels_first, channels_last, fit_mask
from .areas import separate_areas
from .crop import Box, cut_out, hole_box, middle_box, put_back
from .prepare import inner_ramp

Split = Literal["auto", "masks", "areas"]
SPLITS: tuple[Split, ...] = get_args(Split)
MAX_REGIONS = 64


@dataclass(frozen=True)
class Regions:
    """The regions of one picture, and what is painted of them so far."""

    image: torch.Tensor
    """(H, W, 3) float32, the original."""
    masks: torch.Tensor
    """(N, H, W), the region of each."""
    instructions: tuple[str, ...]
    """N of them; "" where nothing was asked for."""
    index: int
    """Of the region to be painted now; N when all are painted."""
    picture: torch.Tensor
    """(H, W, 3): the original with what is painted so far."""
    painted: torch.Tensor
    """(H, W, 3): what is painted so far, with hard borders."""
    stitched: torch.Tensor
    """(H, W), 0 .. 1: where ``painted`` goes into the picture; its border is softened for all regions together."""
    box: Box | None = None
    """Where ``crop_region`` cut out the region to be painted now."""
    remarks: tuple[tuple[int, str], ...] = ()
    """Of regions: what was not stitched as it should be, and why."""

    @property
    def done(self) -> bool:
        return self.index >= len(self.masks)

    @property
    def mask(self) -> torch.Tensor:
        """(H, W), of the region to be painted now; empty when all are painted."""
        return torch.zeros_like(self.stitched) if self.done else self.masks[self.index]

    @property
    def instruction(self) -> str:
        """For the region to be painted now; empty when all are painted."""
        return "" if self.done else self.instructions[self.index]

    def report(self) -> str:
        """A line for each region: its place, and what is asked for."""
        return "\n".join(self._line(i) for i in range(len(self.masks)))

    def _line(self, index: int) -> str:
        mask = self.masks[index]
        if not mask.any():
            return f"region {index}: its mask is empty, so nothing is painted; its instruction is not used"
        rows, columns = (torch.nonzero((mask > 0).any(axis)).flatten() for axis in (1, 0))
        top, bottom, left, right = (int(one) for one in (rows[0], rows[-1], columns[0], columns[-1]))
        line = f"region {index}: {right - left + 1}×{bottom - top + 1} pixels at left {left}, top {top}"
        line += f": {self.instructions[index]}" if self.instructions[index] else ""
        return "; ".join([line, *(text for of, text in self.remarks if of == index)])


def start_regions(
    image: torch.Tensor, mask: torch.Tensor, instructions: str = "", split: Split = "auto"
) -> Regions:
    """The regions of a picture, before the first of them is painted.

    Args:
        image: (1, H, W, C) with C = 1, 3 or 4, any float dtype; alpha is dropped.
        mask: (M, any, any), resized to the picture; a value below 1/64 is 0.
        instructions: a line for each region, which may be blank, or one line for all.
        split: "masks": each mask is a region. "areas": each area of a mask that is apart from the others, from left to
            right. "auto": areas of a single mask, otherwise masks.

    Raises:
        ValueError: there are several pictures, no mask has anything to paint, there are too many regions, or the number of
            instructions is not theirs.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if len(image) != 1:
        raise ValueError(
            f"image holds {len(image)} pictures; regions are painted in one picture at a time, so give a single one (for "
            "one hole in each of several pictures there is Crop for Painting)"
        )
    if len(mask) > MAX_REGIONS:
        raise ValueError(f"mask holds {len(mask)} masks, at most {MAX_REGIONS} are painted one by one")
    whole = channels_last(channels_first(image.float()))
    masks = fit_mask(mask, whole.expand(len(mask), -1, -1, -1))
    if not masks.any():
        raise ValueError(
            "mask is empty: there is nothing to paint; draw one in Load Image (Open in MaskEditor)"
        )
    if split == "areas" or (split == "auto" and len(masks) == 1):
        masks = torch.cat([separate_areas(one, MAX_REGIONS) for one in masks])
        if len(masks) > MAX_REGIONS:
            raise ValueError(
                f"mask has {len(masks)} separate areas, at most {MAX_REGIONS} are painted one by one"
            )
    original = whole[0]
    return Regions(
        original, masks, _one_each(instructions, len(masks)), _next(masks, 0),
        original, original, torch.zeros_like(masks[0]),
    )  # fmt: skip


def crop_region(
    regions: Regions, width: int, height: int, context: float = 1.5, enlarge: bool = False
) -> tuple[torch.Tensor, torch.Tensor, Regions]:
    """Cut out the region that is to be painted now, with what is around it and the regions before it.

    Args:
        width, height, context, enlarge: see ``crop``.

    Returns:
        (1, height, width, 3) float32, its mask (1, height, width), and the regions for ``add_painted``. When all regions
        are painted: the middle of the picture, with nothing to paint.

    Raises:
        ValueError: the part would be many times larger than the picture.
    """
    box = (
        middle_box(regions.mask, width, height)
        if regions.done
        else hole_box(regions.mask, width, height, context, enlarge)
    )
    part, part_mask = cut_out(regions.picture, regions.mask, box, width, height)
    return part[None], part_mask[None], replace(regions, box=box)


def add_painted(
    regions: Regions, painted: torch.Tensor, blend: int = 8, stitch_mask: torch.Tensor | None = None
) -> Regions:
    """The regions after the one that was cropped last is painted.

    Args:
        painted: (1, h, w, C), resized to the box of ``crop_region``.
        blend: the border of all that is stitched is softened inwards over twice as many pixels of the picture.
        stitch_mask: (1 or N, any, any): where painted pixels go into the picture, instead of the regions' own masks;
            wider or narrower. A single one is divided: each pixel belongs to the nearest region. One that is empty
            counts as none.

    Raises:
        ValueError: nothing was cropped, or a number of pictures or masks does not fit.
    """
    if regions.box is None:
        raise ValueError("regions must come from crop_region: it holds no part that was cropped")
    if len(painted) != 1:
        raise ValueError(
            f"painted holds {len(painted)} pictures; one region takes one, so paint with a batch size of 1"
        )
    if blend < 0:
        raise ValueError(f"blend must be 0 or more pixels, got {blend}")
    if regions.done:
        return replace(regions, box=None)
    area = _stitched_area(regions, stitch_mask)
    remarks = ["its stitch mask is empty, so its own mask is taken"] * (
        stitch_mask is not None and area is None
    )
    area = regions.mask if area is None else area
    part, place = put_back(
        channels_first(painted).to(regions.image)[0], regions.box, *regions.image.shape[:2]
    )
    # Over what a region before it painted it comes softly; else it is whole, and softened with all others below.
    share = torch.where(regions.stitched > 0, inner_ramp(area[None], blend)[0], (area > 0).to(area))[place][
        ..., None
    ]
    canvas, stitched = regions.painted.clone(), regions.stitched.clone()
    canvas[place] = torch.where(share > 0, torch.lerp(canvas[place], part, share), canvas[place])
    stitched[place] = torch.maximum(stitched[place], area[place])
    weight = inner_ramp(stitched[None], blend)[0, ..., None]
    picture = torch.where(weight > 0, torch.lerp(regions.image, canvas, weight), regions.image)
    return replace(
        regions,
        index=_next(regions.masks, regions.index + 1),
        picture=picture,
        painted=canvas,
        stitched=stitched,
        box=None,
        remarks=(*regions.remarks, *((regions.index, text) for text in [*remarks, *_left_out(area, place)])),
    )


def _left_out(area: torch.Tensor, place: tuple[slice, slice]) -> list[str]:
    """What of a region's stitched area is missing, where it was painted in ``place``."""
    inside = torch.zeros_like(area)
    inside[place] = area[place]
    if not inside.any():
        return ["nothing of it is stitched, for no pixel of the stitch mask lies there"]
    if (area > inside).any():
        return [
            "a part of its stitch mask lies beyond what was painted, and stays as it was; a larger context reaches further"
        ]
    return []


def _stitched_area(regions: Regions, stitch_mask: torch.Tensor | None) -> torch.Tensor | None:
    """(H, W): where the region to be painted now goes into the picture; None where no stitch mask says it."""
    if stitch_mask is None:
        return None
    count = len(regions.masks)
    if len(stitch_mask) not in (1, count):
        raise ValueError(
            f"stitch_mask holds {len(stitch_mask)} masks for {count} regions; give one, or one for each region"
        )
    given = fit_mask(stitch_mask, regions.image.expand(len(stitch_mask), -1, -1, -1))
    if len(given) == count:
        own = given[regions.index]
        return own if own.any() else None
    if not given.any():
        return None
    distances = torch.stack([_distance(mask > 0) for mask in regions.masks])
    return torch.where(distances[regions.index] <= distances.amin(0), given[0], 0.0)


def _distance(where: torch.Tensor) -> torch.Tensor:
    """Pixels to the nearest one of ``where`` (H, W), along rows and columns; H + W if there is none."""
    distance = torch.where(where, 0.0, float(sum(where.shape)))
    for axis, size in enumerate(where.shape):
        at = torch.arange(size, dtype=distance.dtype, device=distance.device)
        at = at[:, None] if axis == 0 else at
        before = (distance - at).cummin(axis).values + at
        after = (distance + at).flip(axis).cummin(axis).values.flip(axis) - at
        distance = torch.minimum(before, after)
    return distance


def _next(masks: torch.Tensor, start: int) -> int:
    """The first mask from ``start`` on that is not empty, or their number."""
    return next((i for i in range(start, len(masks)) if masks[i].any()), len(masks))


def _one_each(instructions: str, count: int) -> tuple[str, ...]:
    lines = [line.strip() for line in instructions.splitlines()]
    while len(lines) > count and not lines[-1]:
        lines.pop()
    if len(lines) <= 1:
        return tuple(lines or [""]) * count
    if len(lines) != count:
        raise ValueError(
            f"instructions holds {len(lines)} lines for {count} region{'s' if count > 1 else ''}; write one line for each "
            "(a blank one leaves it open), in the order of the masks, or of the areas from left to right; or a single line "
            "for all"
        )
    return tuple(lines)
