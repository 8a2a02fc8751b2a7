"""Image metrics: PSNR, perceptual (LPIPS) and Fréchet distance, Inception Score. The networks are the caller's.

Images are (B, C, H, W). torchmetrics provides the Inception Score. The others are written out here, for torchmetrics has no
PSNR of a part of each picture, no LPIPS of another network, and no Fréchet distance of features that can be resampled;
tests hold them to torchmetrics.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

MOST_DECIBELS = 60.0
"""Pictures of 8 bits show no difference beyond it."""


def psnr(
    images: torch.Tensor,
    truth: torch.Tensor,
    where: torch.Tensor | None = None,
    *,
    peak: float = 1.0,
    most: float = MOST_DECIBELS,
) -> torch.Tensor:
    """Peak signal-to-noise ratio of each picture, (B,) in dB, at most ``most``.

    Args:
        images, truth: (B, C, H, W).
        where: (B or 1, 1, H, W) weights of the pixels; NaN is returned where all are 0. None weighs all alike.
        peak: the range of the values, 1 for 0 .. 1 and 2 for -1 .. 1.
    """
    error = (images - truth).double().square()
    weights = torch.ones_like(error) if where is None else where.to(error).expand_as(error)
    squared = (error * weights).sum((1, 2, 3)) / weights.sum((1, 2, 3))  # 0 / 0 is NaN
    return (-10 * torch.log10(squared / peak**2)).clamp(max=most).to(images.dtype)


@torch.no_grad()
def perceptual_distance(
    images: torch.Tensor,
    truth: torch.Tensor,
    layers: Callable[[torch.Tensor], Sequence[torch.Tensor]],
    weights: Sequence[torch.Tensor] | None = None,
) -> torch.Tensor:
    """LPIPS with any network: distance of unit-length channels, averaged over positions, summed over layers; (B,).

    Args:
        layers: from pictures to the features (B, C_l, H_l, W_l) of each layer.
        weights: for each layer (C_l,) learned weights of the squared differences; 1 by default.

    Source: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, equation 1.
    """
    total = torch.zeros(len(images), device=images.device)
    for i, (a, b) in enumerate(zip(layers(images), layers(truth), strict=True)):
        difference = (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square()  # (B, C, H, W)
        if weights is not None:
            difference = difference * weights[i].view(1, -1, 1, 1)
        total += difference.sum(1).mean((1, 2))
    return total


def edges_found(
    edges: torch.Tensor, wanted: torch.Tensor, tolerance: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """How many of the wanted edge pixels have an edge pixel near them, and how many are wanted; (B,) each.

    Their ratio is the recall of an edge map; with the arguments exchanged it is the precision. Both are for
    ``evaluate.rate``.

    Args:
        edges, wanted: (B, 1, H, W) of 0 and 1.
        tolerance: the largest distance in pixels, along either axis, that counts as near.
    """
    near = F.max_pool2d(edges.float(), 2 * tolerance + 1, 1, tolerance) > 0
    return (near & wanted.bool()).sum((1, 2, 3)), wanted.bool().sum((1, 2, 3))


def frechet_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Squared Fréchet distance of two sets of features, each taken for normally distributed; 0 for equal sets.

    With the features of Inception-v3's last pooling this is the FID.

    Args:
        a, b: (N, C) and (M, C); double precision is advised.

    Raises:
        ValueError: a set has less than two rows, or rows that are not finite.

    Source: Heusel et al., GANs Trained by a Two Time-Scale Update Rule, equation 6.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(
            f"a Fréchet distance needs at least two pictures in each set, got {len(a)} and {len(b)}"
        )
    for rows in (a, b):
        if broken := int((~rows.isfinite().all(1)).sum()):
            raise ValueError(
                f"a Fréchet distance needs finite features, and those of {broken} of {len(rows)} pictures are not"
            )
    one, other = torch.cov(a.T), torch.cov(b.T)
    root = (
        torch.linalg.eigvals(one @ other).real.clamp_min(0).sqrt().sum()
    )  # trace of the product's square root
    return float((a.mean(0) - b.mean(0)).square().sum() + one.trace() + other.trace() - 2 * root)


def inception_score(
    images: torch.Tensor, classifier: nn.Module, splits: int = 10, seed: int = 0
) -> tuple[float, float]:
    """Inception Score: exp of the mean divergence of each picture's classes from those of all; mean and sd over splits.

    The sd of a single split is NaN. N pictures that do not divide into the splits make ``inception_parts`` of them.

    Args:
        classifier: from pictures to logits (B, classes).
        seed: of the shuffling before the splits.

    Raises:
        ValueError: ``splits`` is below 1, or there are fewer than two pictures for each: one alone always scores 1.
        ModuleNotFoundError: torchmetrics is missing; the extra ``evaluate`` brings it.

    Source: Salimans et al., Improved Techniques for Training GANs, section 4; torchmetrics.
    """
    if splits < 1 or len(images) < 2 * splits:
        raise ValueError(
            f"an Inception Score needs at least two pictures for each of 'splits', at least 1; got {len(images)} pictures "
            f"and splits {splits}"
        )
    from torchmetrics.image.inception import InceptionScore

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # of the features that it keeps, and of the sd of one split
        torch.manual_seed(seed)
        metric = InceptionScore(classifier, splits=splits, normalize=False, sync_on_compute=False)
        metric.update(images)
        value, spread = metric.compute()
    return float(value), float(spread)


def inception_parts(count: int, splits: int) -> int:
    """Into how many parts the Inception Score divides so many pictures: parts of one size, but for the last, and so
    perhaps fewer than ``splits``."""
    return math.ceil(count / math.ceil(count / splits))
