"""Where objects that were painted alone go in the scene: first noise, masks, moves, and the composed latents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import conv2d, interpolate, pad

from ..edit.blend import GridSize
from .attention import shift
from .losses import box_mask
from .plan import SceneBox

FLOOR = 0.2
"""An object that is painted alone stands this far above the lower edge, in parts of the height."""
FOREGROUND_NOISE = 0.01
"""The share of an object's own noise in its box, by variance; the rest is the scene's noise."""
_SIGMA = 1.5  # cells of the layer's map, as the reference smooths it
_TRUNCATED = 4.0  # standard deviations after which the smoothing is cut off, as scipy's


@dataclass(frozen=True)
class Move:
    """How far an object is moved, in whole units."""

    rows: int
    columns: int
    unit: int
    """Cells of the latent: the side of a cell of the smallest layer that is guided, so that all layers move alike."""

    def latent(self, x: torch.Tensor) -> torch.Tensor:
        """Move latents or masks (…, h, w); zeros come in."""
        return shift(x, self.rows * self.unit, self.columns * self.unit)


def centred_box(box: SceneBox, floor: float = FLOOR) -> SceneBox:
    """Where an object is painted alone: of the same size, in the middle, ``floor`` above the lower edge.

    Source: ``get_centered_box`` with ``floor_padding`` of the reference. Deviation: a box that is too tall for the floor
    stands at the upper edge; theirs leaves the picture.
    """
    width, height = min(box.width, 1.0), min(box.height, 1.0)
    return SceneBox((1 - width) / 2, min(max(1 - floor - height, 0.0), 1 - height), width, height)


def seeded_noise(seed: int, size: GridSize) -> torch.Tensor:
    """(1, 4, h, w) of normal noise, drawn on the CPU."""
    return torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(seed % 2**63))


def object_noise(
    background: torch.Tensor, box: SceneBox, seed: int, share: float = FOREGROUND_NOISE
) -> torch.Tensor:
    """The first latent of an object alone: the scene's noise, with a share of noise of its own in its box.

    Args:
        background: (1, 4, h, w), the scene's.
        seed: of the object's noise.
        share: 0 to 1, by variance.
    """
    size = (background.shape[-2], background.shape[-1])
    mask = box_mask(box, size)
    own = seeded_noise(seed, size)
    mixed = background * (1 - share) ** 0.5 + own * share**0.5
    return background * (1 - mask) + mixed * mask


def saliency_mask(
    word_map: torch.Tensor, box: SceneBox, size: GridSize, threshold: float
) -> tuple[torch.Tensor, bool]:
    """The cells of an object, found in the attention to its word.

    The map is smoothed, enlarged and scaled to 0 .. 1; the object is what lies above the threshold in the box and is
    connected to the strongest cell. No segmentation network is needed.

    Args:
        word_map: (h', w'), the mean over heads and steps.
        box: where the object was painted.
        size: (h, w) of the latent.
        threshold: 0 to 1.

    Returns:
        (h, w) bool, and whether it was found; if not, the mask is the box.

    Source: RFNet's paper ("attention to saliency mask"). Deviation from its code, which asks SAM for the mask at the
    strongest point of the smoothed map.
    """
    smooth = _smoothed(word_map.float())
    grown = interpolate(smooth[None, None], size, mode="bilinear")[0, 0]
    inside = box_mask(box, size) > 0
    span = grown.max() - grown.min()
    if not torch.isfinite(span) or span <= 0:
        return inside, False
    level = (grown - grown.min()) / span
    mask = _connected((level > threshold) & inside, level)
    return (mask, True) if mask.any() else (inside, False)


def mask_centre(mask: torch.Tensor) -> tuple[float, float]:
    """(x, y) of a mask's centre of mass, in parts of its sides; cells count at their upper left corner.

    Source: ``binary_mask_to_center`` of the reference.
    """
    height, width = mask.shape
    weight = mask.float()
    total = weight.sum()
    x = (weight.sum(0) @ torch.arange(width, dtype=torch.float32)) / total
    y = (weight.sum(1) @ torch.arange(height, dtype=torch.float32)) / total
    return float(x) / width, float(y) / height


def move_to(mask: torch.Tensor, box: SceneBox, smallest: GridSize) -> Move:
    """The move that brings a mask's centre to a box's, in whole units.

    Args:
        mask: (h, w) of the latent.
        smallest: (h, w) of the smallest map of the layers that are guided.

    Source: ``align_with_bboxes`` and ``shift_tensor`` of the reference, which moves by eighths of the picture: at its 64
    cells that is a cell of the smallest layer, which is the unit here for latents of any size.
    """
    height, width = mask.shape
    unit = max(math.ceil(height / smallest[0]), math.ceil(width / smallest[1]))
    (x, y), (to_x, to_y) = mask_centre(mask), box.centre
    return Move(round((to_y - y) * height / unit), round((to_x - x) * width / unit), unit)


def placement_order(masks: Sequence[torch.Tensor]) -> list[int]:
    """The numbers of the masks, the largest first, so that a small object is never covered by a large one."""
    sizes = torch.tensor([-int(mask.sum()) for mask in masks])
    return sizes.argsort(stable=True).tolist()


def bounding_mask(mask: torch.Tensor) -> torch.Tensor:
    """(h, w) bool: the rectangle around a mask, a cell wider on each side; nothing for an empty mask.

    Source: ``binary_mask_to_box_mask`` of the reference.
    """
    found = torch.zeros_like(mask)
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    if len(rows):
        top, left = max(int(rows[0]) - 1, 0), max(int(columns[0]) - 1, 0)
        found[top : int(rows[-1]) + 2, left : int(columns[-1]) + 2] = True
    return found


@dataclass(frozen=True, eq=False)
class Composed:
    """The latents of all objects in their places."""

    latents: torch.Tensor
    """(steps + 1, 1, 4, h, w): the objects' where ``owner`` is not 0; at step 0 noise everywhere."""
    owner: torch.Tensor
    """(h, w) int64: 0 for the background, else the number of the object from 1."""

    @property
    def mask(self) -> torch.Tensor:
        """(1, 1, h, w) float32: 1 where an object is."""
        return (self.owner > 0).float()[None, None]


def compose(
    runs: Sequence[torch.Tensor], masks: Sequence[torch.Tensor], background: torch.Tensor
) -> Composed:
    """Put the latents of objects over the background's noise, the largest first.

    The first noise of an object is taken in the whole rectangle around its mask, its later latents in the mask alone.

    Args:
        runs: for each object (steps + 1, 1, 4, h, w), moved to its place.
        masks: for each object (h, w) bool, moved too.
        background: (1, 4, h, w).

    Source: ``compose_latents`` of the reference.
    """
    steps = len(runs[0]) if runs else 1
    latents = torch.zeros(steps, *background.shape)
    latents[0] = background
    owner = torch.zeros(background.shape[-2:], dtype=torch.int64)
    order = placement_order(masks)
    for i in order:
        latents[0] = torch.where(bounding_mask(masks[i]), runs[i][0], latents[0])
    for i in order:
        latents = torch.where(masks[i], runs[i], latents)
        owner[masks[i]] = i + 1
    return Composed(latents, owner)


def _smoothed(grid: torch.Tensor) -> torch.Tensor:
    """A Gaussian of ``_SIGMA`` cells with mirrored edges: (h, w) -> (h, w)."""
    reach = int(_TRUNCATED * _SIGMA + 0.5)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / _SIGMA) ** 2)
    kernel = kernel / kernel.sum()
    for axis in (0, 1):
        # numpy's "symmetric" edges, for any reach: the indices run back and forth.
        length = grid.shape[axis]
        places = torch.arange(-reach, length + reach) % (2 * length)
        places = torch.where(places < length, places, 2 * length - 1 - places)
        wide = grid.index_select(axis, places).movedim(axis, -1)
        grid = conv2d(wide[:, None, None], kernel[None, None, None])[:, 0, 0].movedim(-1, axis)
    return grid


def _connected(mask: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """The part of a mask that is connected, by edges or corners, to its strongest cell."""
    if not mask.any():
        return mask
    at = int(torch.where(mask, level, -1.0).argmax())
    part = torch.zeros_like(mask)
    part.view(-1)[at] = True
    while True:
        around = (
            torch.nn.functional.max_pool2d(pad(part.float()[None, None], (1, 1, 1, 1)), 3, stride=1)[0, 0] > 0
        )
        grown = around & mask
        if torch.equal(grown, part):
            return part
        part = grown
