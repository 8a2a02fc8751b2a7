"""Where an edited picture was changed on purpose: differences at several scales, each against the noise that is usual there.

Blur, JPEG and a remnant of misalignment make differences everywhere, and more of them at edges. How much is learnt from the
picture itself: for pixels of like detail the lower differences, which are those of unchanged pixels as long as not most of
the picture was changed. A pixel is changed where its difference is far beyond that.

Pictures are (1, 3, H, W), aligned and colour-matched, 0 .. 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..windows import greatest_around, sum_around
from .registration import FINEST, blur

SCALES = (1.5, 2.0, 4.0)
"""Standard deviations in pixels that differences are looked at: the first finds borders, the last faint areas."""
_SURE, _LIKELY = 8.0, 2.0
"""Times the usual noise: a change has a pixel that is surely changed, and reaches as far as it is likely."""
_LEAST = (0.012, 0.02, 0.02)
"""The least difference, of luma and of a colour axis, that counts as the usual noise at the finest scale."""
_BINS = 8
_SAMPLES = 2**15
"""Pixels that the noise is read from, at most twice as many."""
_QUANTILE, _OF_NORMAL = 0.35, 0.4538
"""The quantile of |differences| that noise is read from, and its value for a normal distribution of deviation 1."""
_EDGE = 0.5
"""A bound of the noise at an edge, as a part of the slope: a remnant of half a pixel."""
_HALF, _REACH = 0.4, 2.0
"""A blurred difference is half as great at a change's border as inside it; beyond the border, within so many standard
deviations of the blur, it is less than this part and is not a change of its own."""
_CLOSED = 8
"""Pixels: gaps of twice as many between changed parts are changed, too, as the same colour before and after by chance is."""
_CORE = 2
"""A change holds a square of this reach at least."""
_RIM = 4
"""Pixels along the picture's edge that are not compared, but join a change that reaches them."""


def blur_between(original: torch.Tensor, edited: torch.Tensor, where: torch.Tensor) -> float:
    """The Gaussian blur, in pixels, that brings the original nearest to the edited picture; negative: the other way."""
    levels = (-2.0, -1.5, -1.0, -0.7, 0.0, 0.5, 0.7, 1.0, 1.3, 1.6, 2.0, 2.5, 3.0)
    seen = where.expand_as(original)

    def remnant(sigma: float) -> float:
        difference = blur(original, max(sigma, 0)) - blur(edited, max(-sigma, 0))
        return difference[seen].abs().clamp_max(0.1).mean().item()

    return min(levels, key=remnant) if where.any() else 0.0


def changed(original: torch.Tensor, edited: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """The changed pixels, (1, 1, H, W) bool: whole regions, their holes filled, without specks.

    Args:
        valid: (1, 1, H, W) bool: where ``edited`` shows something; elsewhere nothing counts as changed.
    """
    size = original.shape[-2:]
    scale = min(1.0, FINEST / max(size))
    if scale < 1:
        small = [max(8, round(side * scale)) for side in size]
        original, edited = (
            F.interpolate(x, small, mode="bilinear", antialias=True) for x in (original, edited)
        )
        valid = F.interpolate(valid.float(), small, mode="bilinear") > 0.99
    found = _regions(_strength(original, edited, valid), valid)
    if scale < 1:
        found = F.interpolate(found.float(), size, mode="bilinear") > 0.5
    return found


def _axes(image: torch.Tensor) -> torch.Tensor:
    """Luma and two colour axes, as JPEG has them."""
    red, green, blue = image.split(1, 1)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    return torch.cat([grey, (blue - grey) * 0.564, (red - grey) * 0.713], 1)


def _strength(original: torch.Tensor, edited: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """The greatest difference over axes and scales in units of the usual noise, (1, 1, H, W)."""
    sigma = blur_between(original, edited, valid)
    first, second = _axes(blur(original, max(sigma, 0))), _axes(blur(edited, max(-sigma, 0)))
    strongest = torch.zeros_like(first[:, :1])
    valid = _inner(valid)
    for scale in SCALES:
        detail = blur(_slope(blur(first, scale / 2)).square().sum(1, keepdim=True), scale).sqrt()
        # At the finest scale its energy: a texture that was replaced by another may have the same mean. Noise has the same
        # energy everywhere, so its lower quantile is twice as far up, and a change must be so, too.
        power = 2 if scale == SCALES[0] else 1
        sizes = blur((first - second) ** power, scale).abs() ** (1 / power)
        for axis, size in enumerate(sizes.split(1, 1)):
            noise = _usual(size, detail, valid, _LEAST[axis] / scale**0.5)
            border = _HALF ** (1 / power) * greatest_around(size, round(_REACH * scale))
            strongest = torch.maximum(strongest, torch.where(size >= border, size / noise, 0.0))
    return strongest * valid


def _inner(valid: torch.Tensor) -> torch.Tensor:
    """Without the outermost pixels, which no editor keeps."""
    beyond = F.pad((~valid).float(), (_RIM,) * 4, value=1.0)
    return (greatest_around(beyond, _RIM) < 0.5)[..., _RIM:-_RIM, _RIM:-_RIM]


def _slope(x: torch.Tensor) -> torch.Tensor:
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    along_x = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    along_y = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    return (along_x.square() + along_y.square()).sqrt()


def _usual(difference: torch.Tensor, detail: torch.Tensor, valid: torch.Tensor, least: float) -> torch.Tensor:
    """The standard deviation of the noise at each pixel, as a function of the detail there that never falls."""
    seen, slopes = difference[valid], detail[valid]
    if len(seen) < 8 * _BINS:
        return torch.full_like(difference, least)
    every = 1 + len(seen) // _SAMPLES
    slopes, order = slopes[::every].sort()
    parts = zip(slopes.chunk(_BINS), seen[::every][order].chunk(_BINS), strict=True)
    points = [(bin_slopes.median(), sizes.quantile(_QUANTILE) / _OF_NORMAL) for bin_slopes, sizes in parts]
    at, noise = (torch.stack(values) for values in zip(*points, strict=True))
    noise = torch.minimum(noise.cummax(0).values, noise[0] + _EDGE * at).clamp_min(least)
    right = torch.searchsorted(at, detail.contiguous()).clamp(1, len(at) - 1)
    share = ((detail - at[right - 1]) / (at[right] - at[right - 1]).clamp_min(1e-9)).clamp(0, 1)
    return torch.lerp(noise[right - 1], noise[right], share)


def _regions(strength: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    likely = _majority(strength > _LIKELY, 1)
    sure = (strength > _SURE) & likely
    grown = _reconstructed(sure, likely)
    closed = greatest_around(-greatest_around(grown.float(), _CLOSED), _CLOSED) < -0.5
    whole = _without_specks(_filled_holes(closed))
    rim = (greatest_around(whole.float(), _RIM) > 0) & ~_inner(valid)
    return (whole | rim) & valid


def _majority(mask: torch.Tensor, reach: int) -> torch.Tensor:
    return sum_around(mask.float(), reach) > (2 * reach + 1) ** 2 / 2


def _reconstructed(seeds: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The connected parts of ``mask`` that hold a seed (4 neighbours), by sweeps along whole rows and columns."""
    found, count = seeds & mask, -1
    while (now := int(found.sum())) != count:
        count = now
        found = _along_rows(found, mask)
        found = _along_rows(found.mT, mask.mT).mT
    return found


def _along_rows(found: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Every run of ``mask`` in a row that holds a pixel of ``found``."""
    width = mask.shape[-1]
    rows = torch.arange(mask.shape[-2], device=mask.device)[:, None] * (width + 1)
    run = (~mask).cumsum(-1) + rows
    hit = torch.zeros(mask.shape[-2] * (width + 1), dtype=torch.bool, device=mask.device)
    hit[run[found]] = True
    return hit[run] & mask


def _filled_holes(mask: torch.Tensor) -> torch.Tensor:
    """With what cannot be reached from the picture's edge without crossing the mask."""
    edge = torch.zeros_like(mask)
    edge[..., [0, -1], :] = True
    edge[..., [0, -1]] = True
    return ~_reconstructed(edge, ~mask)


def _without_specks(mask: torch.Tensor) -> torch.Tensor:
    core = -greatest_around(-mask.float(), _CORE) > 0.5
    return _reconstructed(core, mask)
