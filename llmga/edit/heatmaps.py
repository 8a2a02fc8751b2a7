"""Heat maps of words: cross-attention added up over the layers and the steps of an inversion (as DAAM does)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import interpolate

from ..diffusion.attention import token_attention
from ..diffusion.denoiser import Denoiser, Site, StopForward
from .inversion import OnStep, Trajectory, silent

# Colours of the heat from 0 to 1: dark blue, blue, cyan, yellow, red. They differ in grey too.
_COLOURS = torch.tensor(
    [[0.05, 0.03, 0.3], [0.1, 0.3, 0.9], [0.2, 0.85, 0.9], [0.98, 0.9, 0.25], [0.9, 0.1, 0.05]]
)
_OPACITY = 0.65  # of the colour over the picture


class HeatTaps:
    """Taps that add up the probabilities of chosen tokens and change nothing.

    Args:
        words: for each word the positions of its tokens in the context.
        size: (h, w) of the latent, to which every layer's map is enlarged.
        last: the site after which the pass may stop.
        up_only: look at the up blocks alone.
    """

    def __init__(
        self, words: Sequence[Sequence[int]], size: tuple[int, int], last: Site, up_only: bool = False
    ) -> None:
        self._words, self._size, self._last, self._up_only = words, size, last, up_only
        self.total: torch.Tensor | None = None
        """(B, words, h, w), not normalised."""

    def attend(
        self,
        site: Site,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        heads: int,
        size: tuple[int, int],
    ) -> torch.Tensor | None:
        if site.kind == "self" or (self._up_only and site.block != "output"):
            return None
        tokens = max(max(each) for each in self._words) + 1
        if k.shape[1] < tokens:
            raise ValueError(f"words must be positions below {k.shape[1]}, got {tokens - 1}")
        chosen = _indicator(self._words, k.shape[1])
        grid = token_attention(q, k, chosen, heads).mT.unflatten(
            -1, size
        )  # (B, N, words) -> (B, words, h, w)
        grown = interpolate(grid, self._size, mode="bilinear", antialias=True)
        self.total = grown if self.total is None else self.total + grown
        if site == self._last:
            raise StopForward
        return None


def _indicator(words: Sequence[Sequence[int]], tokens: int) -> torch.Tensor:
    """(tokens, words): 1 at the tokens of each word, else 0."""
    chosen = torch.zeros(tokens, len(words))
    for channel, positions in enumerate(words):
        chosen[list(positions), channel] = 1
    return chosen


def word_maps(
    denoiser: Denoiser,
    trajectory: Trajectory,
    context: Any,
    words: Sequence[Sequence[int]],
    steps: int,
    on_step: OnStep = silent,
    up_only: bool = False,
) -> torch.Tensor:
    """Compute heat maps of words over pictures that were inverted.

    Args:
        context: the source prompt's.
        words: token positions of each word in that context, each at least one.
        steps: how many of the trajectory's steps are evaluated, evenly spread; each costs one row a picture.
        on_step: ``on_step(i, n)`` after each; may raise.
        up_only: look at the UNet's up blocks alone, as suits one whose maps were taught there (see
            ``llmga.train.box_loss``).

    Returns:
        (words, B, h, w) in 0 .. 1, each map divided by its largest value.

    Raises:
        ValueError: no word is given, one without a token, or one beyond the context's end.
    """
    if not words or not all(len(tokens) for tokens in words):
        raise ValueError(
            f"words must be token positions of at least one word, none empty; got {list(words)!r}"
        )
    count = len(trajectory.timesteps)
    chosen = torch.linspace(0, count - 1, min(steps, count)).round().int().tolist()
    last = [site for site in denoiser.sites if site.kind == "cross"][-1]
    height, width = trajectory.latents.shape[-2:]
    taps = HeatTaps(words, (height, width), last, up_only)
    for done, i in enumerate(chosen, 1):
        # Step i of the descending timesteps starts at the trajectory's latent count - i.
        latent = trajectory.latents[count - i]
        denoiser.eps(latent, trajectory.timesteps[i], [context] * len(latent), taps)
        on_step(done, len(chosen))
    total = taps.total
    if total is None:
        raise ValueError("the denoiser has no cross-attention, so there is nothing to show")
    maps = total.movedim(1, 0).cpu()
    return maps / maps.amax((-2, -1), keepdim=True).clamp_min(1e-12)


def paint_heatmap(image: torch.Tensor, heat: torch.Tensor) -> torch.Tensor:
    """Paint a heat map over a picture: (B, H, W, C) and (B, h, w), both 0 .. 1 -> (B, H, W, 3)."""
    grown = interpolate(heat[:, None].float(), image.shape[1:3], mode="bilinear")[:, 0].clamp(0, 1)
    place = grown * (len(_COLOURS) - 1)
    lower = place.floor().clamp_max(len(_COLOURS) - 2).long()
    share = (place - lower)[..., None]
    colour = _COLOURS[lower] * (1 - share) + _COLOURS[lower + 1] * share
    rgb = image[..., :3].float().cpu().expand(-1, -1, -1, 3)
    # The picture is grey, so that its own colours are not taken for heat.
    grey = rgb.mean(-1, keepdim=True)
    return grey * (1 - _OPACITY) + colour * _OPACITY
