"""The colours of an edited picture brought back to the original's, fitted robustly to what did not change.

A gain and a bias for each channel are found first, with what fits them badly counting for nothing; only the pixels that fit
may then ask for a mixing of the channels, as a change of saturation is one. The other way round a picture of few colours
could have its changed part recoloured into its old one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .registration import FINEST, blur

_SMOOTH = 2.0
"""Pixels of Gaussian blur under which colours are compared: the editor's own blur and JPEG must not look like a contrast."""
_ROUNDS = 12
_GAINS = (0.5, 2.0)
_LEAST = 64
"""The fewest pixels that colours are fitted to."""
_TO_ONE = 1e-3
"""How strongly a gain is drawn to 1, as a variance: a picture without contrast says nothing about it."""
_UNMIXED = 5e-3
"""The same for the mixing of channels."""
_EXPLAINED = 0.03
"""A pixel whose colour differs by no more from what the fit makes of the original's is one that it explains."""
_FLOOR = 0.006
"""The least residual that is usual."""


@dataclass(frozen=True)
class ColourFit:
    """``matrix @ rgb + bias`` brings the edited picture's colours to the original's."""

    matrix: torch.Tensor
    """(3, 3)."""
    bias: torch.Tensor
    """(3,)."""

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        """The colours of (1, 3, H, W) as the original has them, 0 .. 1."""
        flat = image[0].flatten(1)
        return (self.matrix.to(flat) @ flat + self.bias.to(flat)[:, None]).view_as(image).clamp(0, 1)

    def as_shown(self, image: torch.Tensor) -> torch.Tensor:
        """The original (1, 3, H, W) as ``apply`` could bring it back: what the editor's colours clip is lost."""
        flat = image[0].flatten(1)
        there = torch.linalg.solve(self.matrix.to(flat), flat - self.bias.to(flat)[:, None])
        return self.apply(there.clamp(0, 1).view_as(image))


def fit_colours(original: torch.Tensor, edited: torch.Tensor, where: torch.Tensor) -> ColourFit:
    """Fit the colours of an aligned edited picture to the original's.

    Args:
        original, edited: (1, 3, H, W), 0 .. 1.
        where: (1, 1, H, W) bool: the pixels that may be compared; the changed ones among them are found and left out
            as long as they are not most of them.

    Returns:
        The identity where fewer than 64 pixels may be compared.
    """
    scale = min(1.0, FINEST / max(original.shape[-2:]))
    if scale < 1:
        small = [max(1, round(side * scale)) for side in original.shape[-2:]]
        original, edited = (
            F.interpolate(x, small, mode="bilinear", antialias=True) for x in (original, edited)
        )
        where = F.interpolate(where.float(), small, mode="bilinear", antialias=True) > 0.99
    precise = torch.float32 if original.device.type == "mps" else torch.float64  # MPS has no float64
    inside = where & ((edited > 2 / 255) & (edited < 253 / 255)).all(
        1, keepdim=True
    )  # clipped values fit no line
    if where.sum() < _LEAST:
        return ColourFit(torch.eye(3), torch.zeros(3))
    x, y = (blur(image, _SMOOTH)[0][:, where[0, 0]].to(precise) for image in (edited, original))
    unclipped = inside[where]
    if unclipped.all() or unclipped.sum() < _LEAST:
        return _fitted(x, y)
    # Of an object on a white ground only the object is not clipped, and it may be all that was changed.
    fits = [_fitted(x[:, unclipped], y[:, unclipped]), _fitted(x, y)]
    return max(fits, key=lambda fit: _explained(fit, x, y))


def _fitted(x: torch.Tensor, y: torch.Tensor) -> ColourFit:
    gain, bias, weight = _lines(x, y)
    matrix, bias = _mixed(x, y, weight, gain, bias)
    return ColourFit(matrix.float(), bias.float())


def _explained(fit: ColourFit, x: torch.Tensor, y: torch.Tensor) -> int:
    """How many of the edited pixels ``x`` have the colour that the fit makes of the original's, what it clips included."""
    made = torch.linalg.solve(fit.matrix.to(y), y - fit.bias.to(y)[:, None]).clamp(0, 1)
    return int(((made - x).abs().amax(0) < _EXPLAINED).sum())


def _lines(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gain and bias (3,) of each channel, and the weight of each pixel, the same in all three."""
    gain = x.new_ones(3)
    bias = (y - x).median(1).values
    weight = x.new_ones(x.shape[1])
    for i in range(_ROUNDS):
        residual = (gain[:, None] * x + bias[:, None] - y).square().mean(0).sqrt()
        usual = residual.median().clamp_min(_FLOOR) * max(1.5, 4 - 0.5 * i)
        weight = (usual**2 / (usual**2 + residual.square())).square()
        share = weight / weight.sum()
        mean_x, mean_y = (x * share).sum(1), (y * share).sum(1)
        centred = x - mean_x[:, None]
        covariance = (centred * (y - mean_y[:, None]) * share).sum(1)
        variance = (centred.square() * share).sum(1)
        gain = ((covariance + _TO_ONE) / (variance + _TO_ONE)).clamp(*_GAINS)
        bias = mean_y - gain * mean_x
    return gain, bias, weight


def _mixed(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The matrix (3, 3) nearest to the gains that fits the weighted pixels, and its bias (3,)."""
    share = weight / weight.sum()
    mean_x = (x * share).sum(1)
    centred = x - mean_x[:, None]
    remnant = y - (gain[:, None] * x + bias[:, None])
    mean_remnant = (remnant * share).sum(1)
    square = (centred * share) @ centred.T + _UNMIXED * torch.eye(3, dtype=x.dtype, device=x.device)
    extra = torch.linalg.solve(square, (centred * share) @ (remnant - mean_remnant[:, None]).T).T
    matrix = torch.diag(gain) + extra
    return matrix, bias + mean_remnant - extra @ mean_x
