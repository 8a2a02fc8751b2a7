"""Estimates and their errors. Every ± of this project is one standard error, as computed here.

There are three kinds of number, and one way to the error of each: a ``rate`` (a share of what was counted), a ``mean`` (of
a quantity such as decibels), and a ``resampled`` statistic (of all units together, such as a Fréchet distance). The units,
pictures or conversations, are taken for independent; what is counted within one unit need not be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Estimate:
    """A number, its standard error, and how many things it sums up; NaN and 0 where there were none."""

    value: float
    error: float
    count: int

    def text(self, digits: int = 3) -> str:
        return f"{self.value:.{digits}f} ±{self.error:.{digits}f}"

    def __str__(self) -> str:
        return self.text()


NOTHING = Estimate(math.nan, math.nan, 0)


def rate(
    hits: torch.Tensor | Sequence[float], counts: torch.Tensor | Sequence[float] | None = None
) -> Estimate:
    """Share of what was counted that hits, as a ratio of sums over independent units.

    The error is that of the ratio when Laplace's two units are added to the sample: one that hits fully and one that
    misses fully, each of the mean count. So a share of 0 or 1 still has an error. When each unit counts one thing, this
    is the binomial error sqrt(p (1 - p) / (n + 2)) at p = (sum of hits + 1) / (n + 2).

    Args:
        hits: (N,) of each unit what hits, 0 .. its count.
        counts: (N,) of each unit what was counted; 1 each by default. Units that count nothing are left out.

    Returns:
        The share without Laplace's units, and the number of things counted.

    Raises:
        ValueError: there are not as many counts as hits, or hits lie outside 0 .. count.
    """
    h = torch.as_tensor(hits, dtype=torch.float64)
    c = torch.ones_like(h) if counts is None else torch.as_tensor(counts, dtype=torch.float64)
    if h.shape != c.shape or h.ndim != 1:
        raise ValueError(
            f"hits and counts must be two lists of one length, got {[*h.shape]} and {[*c.shape]}"
        )
    if ((h < 0) | (h > c)).any():
        raise ValueError("hits must lie between 0 and the count of their unit")
    h, c = h[c > 0], c[c > 0]
    if not len(h):
        return NOTHING
    share, typical = float(h.sum() / c.sum()), c.mean()[None]
    h, c = torch.cat([h, typical, 0 * typical]), torch.cat([c, typical, typical])
    error = (h - h.sum() / c.sum() * c).square().sum().sqrt() / c.sum()
    return Estimate(share, float(error), round(float(c[:-2].sum())))


def mean(values: torch.Tensor | Sequence[float]) -> Estimate:
    """Mean of a quantity over independent units, and its standard error s / sqrt(N), with N - 1 in s².

    Args:
        values: (N,); NaN are left out. A single value has the error NaN.
    """
    x = torch.as_tensor(values, dtype=torch.float64)
    x = x[~x.isnan()]
    if not len(x):
        return NOTHING
    error = float(x.std()) / len(x) ** 0.5 if len(x) > 1 else math.nan
    return Estimate(float(x.mean()), error, len(x))


def resampled(value: float, samples: torch.Tensor | Sequence[float], count: int) -> Estimate:
    """A statistic of ``count`` units together; its error is the standard deviation of it over bootstrap samples.

    Args:
        samples: (R,) the statistic of R samples of ``count`` units each, drawn with replacement.

    Source: Efron, Bootstrap methods: another look at the jackknife, 1979.
    """
    return Estimate(float(value), float(torch.as_tensor(samples, dtype=torch.float64).std()), count)
