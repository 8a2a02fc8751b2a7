"""LocalBlend: find in the cross-attention of chosen words where the picture may change, and restore the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch.nn.functional import interpolate, max_pool2d

from ..diffusion.attention import token_attention
from ..diffusion.denoiser import Site
from .control import Blend

GridSize = tuple[int, int]
"""(h, w) of a layer's queries or of a latent."""

QueriesAndKeys = tuple[torch.Tensor, torch.Tensor]


class LocalBlend:
    """Adds up the attention to the words of the source and of the target, over layers and steps.

    Source: prompt-to-prompt's ``LocalBlend`` as in cure-lab/PnPInversion 07f97f4. Deviations: any size of picture (theirs
    reads the 16 × 16 maps of a picture of 512 × 512; here the layers nearest to a quarter of the latent's sides, which are
    the same ones), any number of tokens.

    Args:
        tokens: how many the source's and the target's context have.
        size: (h, w) of the latent.
    """

    def __init__(self, blend: Blend, tokens: tuple[int, int], size: GridSize) -> None:
        self._blend, self._size = blend, size
        self._source = _indicator(tokens[0], blend.source, blend.subtract_source)
        self._target = _indicator(tokens[1], blend.target, blend.subtract_target)
        self._total: torch.Tensor | None = None  # (B, 4, h, w), the channels as in `add`

    def sites(self, sizes: Mapping[Site, GridSize | None]) -> set[Site]:
        """The cross-attention layers whose maps count: those of the wanted size, or all while a size is not known."""
        known = {site: size for site, size in sizes.items() if size is not None}
        if len(known) < len(sizes):
            return set(sizes)
        # The middle block counts only where there is no other: in SDXL it has this size too, in SD1.5 it has not.
        outer = {site: size for site, size in known.items() if site.block != "middle"} or known
        if self._blend.up_only:
            outer = {site: size for site, size in outer.items() if site.block == "output"} or outer
        wanted = math.ceil(self._size[0] / 4) * math.ceil(self._size[1] / 4)
        nearest = min(
            outer.values(), key=lambda size: abs(math.log(size[0] * size[1] / wanted)), default=None
        )
        return {site for site, size in outer.items() if size == nearest}

    def add(
        self,
        source: QueriesAndKeys,
        target: QueriesAndKeys,
        cross: tuple[torch.Tensor, torch.Tensor] | None,
        heads: int,
        size: GridSize,
    ) -> None:
        """Add one layer's maps.

        Args:
            source, target: queries (B, N, heads · dim) and keys (B, T, heads · dim).
            cross: S (T_src, T_tgt) and d (T_tgt,), by which the target's probabilities are edited; None: they are not.
            size: (h, w), N = h · w.
        """
        # Channels: the source's words, the source's subtracted words, then the target's.
        if cross is None:
            source_maps = token_attention(*source, self._source, heads)  # (B, N, 2)
            target_maps = token_attention(*target, self._target, heads)
            maps = torch.cat([source_maps, target_maps], -1)
        else:
            matrix, own = cross
            maps = token_attention(*source, torch.cat([self._source, matrix @ self._target], 1), heads)
            maps[..., 2:] += token_attention(*target, own[:, None] * self._target, heads)
        maps = maps.transpose(1, 2).unflatten(-1, size)  # (B, N, 4) -> (B, 4, h, w)
        self._total = maps if self._total is None else self._total + maps

    def mask(self) -> torch.Tensor:
        """(B, 1, h, w) float32 on the CPU, in the latent's size: 1 where the picture may change, else 0.

        Raises:
            RuntimeError: no layer's maps were added.
        """
        if self._total is None:
            raise RuntimeError("no cross-attention was seen")
        words, subtracted = self._total[:, ::2], self._total[:, 1::2]  # (B, 2, h, w): source, target
        pooled = max_pool2d(words, 3, stride=1, padding=1)
        mask = self._above(pooled, self._blend.threshold)
        if self._blend.subtract_source or self._blend.subtract_target:
            mask = mask & ~self._above(subtracted, self._blend.subtract_threshold)
        return mask.float().cpu()

    def _above(self, maps: torch.Tensor, threshold: float) -> torch.Tensor:
        """Where either prompt's map (B, 2, ...) is above its own threshold: (B, 1, h, w)."""
        grown = interpolate(maps, self._size)
        greatest = grown.amax((-2, -1), keepdim=True)
        # A prompt without words of the blend has a map of zeros.
        return ((grown > threshold * greatest) & (greatest > 0)).any(1, keepdim=True)


def blended(x: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """``x`` where the mask is 1 and ``reference`` where it is 0, both bit for bit."""
    mixed = torch.where(mask > 0, reference + mask * (x - reference), reference)
    return torch.where(mask < 1, mixed, x)


def _indicator(tokens: int, words: Sequence[int], subtracted: Sequence[int]) -> torch.Tensor:
    """(tokens, 2): 1 at the tokens of the words, and at those of the subtracted words."""
    chosen = torch.zeros(tokens, 2)
    chosen[list(words), 0] = 1
    chosen[list(subtracted), 1] = 1
    return chosen
