"""Estimates and their errors. Every ± of this project is one standard error, as computed here.

There are three kinds of number, and one way to the error of each: a ``rate`` (a share of what was counted), a ``mean`` (of
a quantity such as decibels), and a ``resampled`` statistic (of all units together, such as a Fréchet distance). The units,
pictures or conversations, are taken for independent; what is counted within one unit need not be.

Two rows of a table are measured on the same units, so their figures err together, and their difference by less than both
would if they were independent. So each estimate also keeps what it is on bootstrap samples of its units, and the error of
a difference is that over the same samples of both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

RESAMPLES = 100
"""Bootstrap samples of a rate or a mean."""


@dataclass(frozen=True)
class Samples:
    """A figure on samples of its units, drawn with replacement as ``draws`` says.

    Args:
        units: how many there are. Figures of equally many units and samples were found on the same samples.
        values: the figure on each sample; NaN where it has none.
        least: the error of a difference that Laplace's two units alone would give; 0 for what is not a rate.
    """

    units: int
    values: tuple[float, ...]
    least: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """A number, its standard error, and how many things it sums up; NaN and 0 where there were none."""

    value: float
    error: float
    count: int
    samples: Samples | None = field(default=None, compare=False, repr=False)

    def minus(self, other: Estimate) -> Estimate:
        """The difference of two estimates.

        Its error is the standard deviation over the samples where both were found on the same ones, to which the error
        that Laplace's units alone give is added; else that of independent figures, where an error that is not known
        counts as 0.
        """
        value, count = self.value - other.value, min(self.count, other.count)
        one, two = self.samples, other.samples
        if one and two and one.units == two.units and len(one.values) == len(two.values):
            both = torch.tensor([one.values, two.values], dtype=torch.float64)
            found = both[0] - both[1]
            spread = float(found[~found.isnan()].std())
            return Estimate(value, math.hypot(spread, max(one.least, two.least)), count)
        known = (0.0 if math.isnan(error) else error for error in (self.error, other.error))
        return Estimate(value, math.hypot(*known), count)

    def text(self, digits: int = 3) -> str:
        return f"{self.value:.{digits}f} ±{self.error:.{digits}f}"

    def __str__(self) -> str:
        return self.text()


NOTHING = Estimate(math.nan, math.nan, 0)


def draws(units: int, samples: int = RESAMPLES) -> torch.Tensor:
    """(samples, units) numbers of units, drawn with replacement; the same ones for the same arguments."""
    return torch.randint(units, (samples, units), generator=torch.Generator().manual_seed(0))


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
    counted = c > 0
    if not counted.any():
        return NOTHING
    hit, of = torch.stack([h, c])[:, draws(len(h))].sum(2)  # on each sample
    samples = Samples(len(h), _listed(hit / of), 2**0.5 / (int(counted.sum()) + 2))
    h, c = h[counted], c[counted]
    share, typical = float(h.sum() / c.sum()), c.mean()[None]
    h, c = torch.cat([h, typical, 0 * typical]), torch.cat([c, typical, typical])
    error = (h - h.sum() / c.sum() * c).square().sum().sqrt() / c.sum()
    return Estimate(share, float(error), round(float(c[:-2].sum())), samples)


def mean(values: torch.Tensor | Sequence[float]) -> Estimate:
    """Mean of a quantity over independent units, and its standard error s / sqrt(N), with N - 1 in s².

    Args:
        values: (N,); NaN are left out. A single value has the error NaN.
    """
    everything = torch.as_tensor(values, dtype=torch.float64)
    x = everything[~everything.isnan()]
    if not len(x):
        return NOTHING
    if len(x) == 1:
        return Estimate(float(x), math.nan, 1)
    samples = Samples(len(everything), _listed(everything[draws(len(everything))].nanmean(1)))
    return Estimate(float(x.mean()), float(x.std()) / len(x) ** 0.5, len(x), samples)


def resampled(value: float, samples: torch.Tensor | Sequence[float], count: int) -> Estimate:
    """A statistic of ``count`` units together; its error is the standard deviation of it over bootstrap samples.

    Args:
        samples: (R,) the statistic of R samples of ``count`` units each: those of ``draws(count, R)``, if its differences
            are to be taken over the same ones.

    Source: Efron, Bootstrap methods: another look at the jackknife, 1979.
    """
    found = torch.as_tensor(samples, dtype=torch.float64)
    return Estimate(float(value), float(found.std()), count, Samples(count, _listed(found)))


def _listed(values: torch.Tensor) -> tuple[float, ...]:
    """To six digits, so that a file of results is short."""
    return tuple(float(f"{value:.6g}") for value in values.tolist())
