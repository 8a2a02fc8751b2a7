"""RFNet's losses on cross-attention: the box constraint, the suppression and the guidance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..diffusion.denoiser import Site
from ..edit.blend import GridSize
from .attention import WordAttention
from .plan import SceneBox

REFERENCE_HEADS = 8
"""SD1.5's. The reference adds up the heads of a layer, so its threshold means something else for a model with more; here
the mean over the heads counts eight times, which is the same for SD1.5."""
_TINY = 1e-5  # the reference's, so that maps that are 0 in a box do not divide by 0


@dataclass(frozen=True)
class LossWeights:
    """The constants of the losses.

    Args:
        foreground: of attention that is missing in the box.
        background: of attention outside of it.
        suppression: of attention outside of it while the scene is put together.
        guidance: of the distance to the attention that the object had alone.
        top: the share of cells that counts, those with the most attention.

    Source: leo81005/Reality-and-Fantasy fa3eb4b: fg_weight, bg_weight, supp, ref_ca_loss_weight 2 times guid 15, fg_top_p.
    """

    foreground: float = 1.0
    background: float = 4.0
    suppression: float = 10.0
    guidance: float = 30.0
    top: float = 0.2


def box_cells(box: SceneBox, size: GridSize) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a box in whole cells of a grid (h, w), one cell at least.

    The place and the sides are rounded apart, so that a box has one size wherever it stands.

    Source: ``scale_proportion`` of the reference; that a box never vanishes is ours.
    """
    height, width = size
    left, top = round(box.x * width), round(box.y * height)
    right = left + max(round(box.width * width), 1)
    bottom = top + max(round(box.height * height), 1)
    left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    return left, top, max(min(right, width), left + 1), max(min(bottom, height), top + 1)


def box_mask(box: SceneBox, size: GridSize) -> torch.Tensor:
    """(h, w) float32: 1 in the cells of a box."""
    left, top, right, bottom = box_cells(box, size)
    mask = torch.zeros(size)
    mask[top:bottom, left:right] = 1
    return mask


def box_constraint(attention: torch.Tensor, mask: torch.Tensor, weights: LossWeights) -> torch.Tensor:
    """How far the attention to a phrase is from being in its box: a scalar.

    Args:
        attention: (heads, N, tokens) of the phrase.
        mask: (N,), 1 in the box.
    """
    inside = 1 - _top_mean(attention * mask[:, None], mask.sum() * weights.top)
    outside = _top_mean(attention * (1 - mask)[:, None], (1 - mask).sum() * weights.top)
    each = weights.foreground * inside + weights.background * outside  # (heads, tokens)
    return REFERENCE_HEADS * each.mean()


def suppression(attention: torch.Tensor, mask: torch.Tensor, weights: LossWeights) -> torch.Tensor:
    """How strong the attention to a phrase is outside of its box: a scalar; arguments as ``box_constraint``."""
    outside = _top_mean(attention * (1 - mask)[:, None], (1 - mask).sum() * weights.top)
    return REFERENCE_HEADS * weights.suppression * outside.mean()


def attention_guidance(attention: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """How far the attention to a word within its box is from what the object had alone: a scalar, 0 to 2.

    Args:
        attention, reference: (heads, N), each normalised within the box.
        mask: (N,), 1 in the box.
    """
    return (_normalised(attention * mask) - _normalised(reference * mask)).abs().sum(-1).mean()


def alone_loss(recorded: Mapping[Site, WordAttention], box: SceneBox, weights: LossWeights) -> torch.Tensor:
    """The loss of an object that is painted alone: the box constraint, averaged over the layers."""
    terms = []
    for attention in recorded.values():
        mask = box_mask(box, attention.size).flatten().to(attention.maps.device)
        terms.append(box_constraint(attention.maps, mask, weights))
    return torch.stack(terms).mean()


@dataclass(frozen=True)
class Placed:
    """One object of the scene as the losses see it."""

    box: SceneBox
    tokens: Sequence[int]
    """Which of the recorded tokens are its phrase's."""
    word: int
    """Which of the recorded tokens is the last of its phrase."""


def scene_loss(
    recorded: Mapping[Site, WordAttention],
    objects: Sequence[Placed],
    references: Sequence[Mapping[Site, WordAttention] | None],
    weights: LossWeights,
) -> torch.Tensor:
    """The loss while the scene is put together: suppression and guidance, averaged over layers and objects.

    Args:
        references: for each object the attention to its word when it was painted alone, moved to its place; None leaves
            its guidance out.
    """
    terms = []
    for site, attention in recorded.items():
        for one, reference in zip(objects, references, strict=True):
            maps = attention.maps
            mask = box_mask(one.box, attention.size).flatten().to(maps.device)
            term = suppression(maps[..., list(one.tokens)], mask, weights)
            if reference is not None and weights.guidance:
                alone = reference[site].maps[..., 0].to(maps.device)
                term = term + weights.guidance * attention_guidance(maps[..., one.word], alone, mask)
            terms.append(term)
    return torch.stack(terms).mean()


def _top_mean(attention: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """The mean over the ``share`` largest of N, one at least: (heads, N, tokens) -> (heads, tokens)."""
    return attention.topk(max(int(share), 1), dim=1).values.mean(1)


def _normalised(attention: torch.Tensor) -> torch.Tensor:
    return attention / (attention.sum(-1, keepdim=True) + _TINY)
