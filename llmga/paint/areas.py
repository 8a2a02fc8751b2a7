"""The separate areas of a mask: connected components, from left to right."""

from __future__ import annotations

import torch

from ..windows import greatest_around

GAP = 1
"""Pixels that every area grows by before it is asked which of them touch: a gap of two pixels is a slip of the pen."""


def separate_areas(mask: torch.Tensor, most: int) -> torch.Tensor:
    """Split a mask into one mask for each area that is apart from the others.

    Args:
        mask: (H, W), 0 .. 1; every value above 0 belongs to an area.
        most: the most areas that are allowed.

    Returns:
        (N, H, W) with the mask's own values, ordered by the areas' middles from left to right, then from top to bottom;
        N = 0 for an empty mask.

    Raises:
        ValueError: there are more areas than ``most``.
    """
    if not mask.any():
        return mask.new_zeros((0, *mask.shape))
    rows, columns = (torch.nonzero((mask > 0).any(axis)).flatten().tolist() for axis in (1, 0))
    part = (
        slice(rows[0], rows[-1] + 1),
        slice(columns[0], columns[-1] + 1),
    )  # of a large picture often a small one
    found = torch.zeros_like(mask, dtype=torch.long)
    found[part] = _labels(greatest_around((mask[part] > 0).float(), GAP) > 0)
    found = torch.where(mask > 0, found, 0)
    labels = found.unique()
    labels = labels[labels > 0].tolist()
    if len(labels) > most:
        raise ValueError(
            f"mask has {len(labels)} separate areas, at most {most} are painted one by one; join or remove the smallest "
            "ones in the MaskEditor, grow the mask in Prepare Mask, or set split to masks"
        )
    areas = [torch.where(found == label, mask, 0.0) for label in labels]
    return torch.stack(sorted(areas, key=_middle))


def _middle(area: torch.Tensor) -> tuple[float, float]:
    """The middle of an area, from the left and from the top, as pixels count."""
    rows, columns = torch.nonzero(area, as_tuple=True)
    return columns.float().mean().item(), rows.float().mean().item()


def _labels(where: torch.Tensor) -> torch.Tensor:
    """A number above 0, the same for all pixels of a connected area (4 neighbours), by sweeps along rows and columns."""
    labels = torch.arange(1, where.numel() + 1, device=where.device).view_as(where) * where
    while True:
        before = labels
        labels = _greatest_in_runs(labels, where)
        labels = _greatest_in_runs(labels.mT, where.mT).mT
        if torch.equal(before, labels):
            return labels


def _greatest_in_runs(labels: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """The greatest label of its run, for every pixel of every run of ``where`` in a row; 0 elsewhere."""
    height, width = where.shape
    run = (~where).cumsum(-1) + torch.arange(height, device=where.device)[:, None] * (width + 1)
    greatest = labels.new_zeros(height * (width + 1))
    greatest = greatest.scatter_reduce(0, run[where], labels[where], "amax")
    return torch.where(where, greatest[run], 0)
