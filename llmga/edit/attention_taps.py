"""Prompt-to-prompt in the attention layers, by the source's queries and keys and edited values of the target.

An edit ``P_source @ S + P_target * d`` of probabilities is linear in them, so what comes out of the layer is
``attention(q_source, k_source, S @ v) + attention(q_target, k_target, d * v)``: two fused calls, and no matrix of
probabilities exists at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..diffusion.attention import attention
from ..diffusion.denoiser import Site, StopForward
from .blend import GridSize, LocalBlend


class Step(NamedTuple):
    """What one denoising step takes from the source."""

    cross: tuple[torch.Tensor, torch.Tensor] | None
    """S (T_src, T_tgt) and d (T_tgt,)."""
    replaces_self: bool
    blends: bool
    """Whether the attention to the blend's words is added up."""


class SourceTaps:
    """Taps that record the source's queries and keys, and end its pass after the last layer that the step needs.

    Args:
        sites: all of the denoiser's, in order.
        self_max_pixels: self-attention with more queries is not replaced.
    """

    def __init__(self, sites: Sequence[Site], self_max_pixels: int, blend: LocalBlend | None) -> None:
        self.step = Step(None, False, False)
        self.blend = blend
        self.recorded: dict[Site, tuple[torch.Tensor, torch.Tensor]] = {}
        self._sites = list(sites)
        self._self_max_pixels = self_max_pixels
        self._sizes: dict[Site, GridSize | None] = dict.fromkeys(sites)  # known from the first pass on
        self._last: Site | None = None

    def begin(self, step: Step) -> bool:
        """Prepare for a step; returns whether it takes anything from the source."""
        self.step = step
        self.recorded.clear()
        needed = [site for site in self._sites if self._needs(site)]
        self._last = needed[-1] if needed else None
        return bool(needed)

    def attend(
        self, site: Site, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, size: GridSize
    ) -> None:
        self._sizes[site] = size
        if self._needs(site):
            self.recorded[site] = q, k
        if site == self._last:
            raise StopForward

    def blends_at(self, site: Site) -> bool:
        if not self.step.blends or self.blend is None or site.kind == "self":
            return False
        sizes = {other: size for other, size in self._sizes.items() if other.kind == "cross"}
        return site in self.blend.sites(sizes)

    def _needs(self, site: Site) -> bool:
        """Whether the step takes something from a layer; a layer of a size not known yet counts as needed."""
        if site.kind == "cross":
            return self.step.cross is not None or self.blends_at(site)
        size = self._sizes[site]
        return self.step.replaces_self and (size is None or size[0] * size[1] <= self._self_max_pixels)


class TargetTaps:
    """Taps that edit the attention of the target's pass, whose last rows are those with the target prompt.

    Args:
        source: the taps of the source's pass over the same pictures, which has been run for this step.
        tokens: how many the source's and the target's context have.
    """

    def __init__(self, source: SourceTaps, tokens: tuple[int, int]) -> None:
        self._source, self._tokens = source, tokens

    def attend(
        self, site: Site, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, size: GridSize
    ) -> torch.Tensor | None:
        taken = self._source.recorded.pop(site, None)
        if taken is None:
            return None
        source_q, source_k = taken
        rest = len(q) - len(source_q)  # the rows of the negative prompt
        if site.kind == "self":
            return attention(torch.cat([q[:rest], source_q]), torch.cat([k[:rest], source_k]), v, heads)
        source = source_q, _once(source_k, self._tokens[0], "source")
        target = q[rest:], _once(k[rest:], self._tokens[1], "target")
        cross, blend = self._source.step.cross, self._source.blend
        if blend is not None and self._source.blends_at(site):
            blend.add(source, target, cross, heads, size)
        if cross is None:
            return None
        matrix, own = (part.to(v) for part in cross)
        values = _once(v[rest:], self._tokens[1], "target")
        edited = attention(*source, matrix @ values, heads)
        if cross[1].any():
            edited = edited + attention(*target, own[:, None] * values, heads)
        return torch.cat([attention(q[:rest], k[:rest], v[:rest], heads), edited]) if rest else edited


def _once(x: torch.Tensor, tokens: int, name: str) -> torch.Tensor:
    """(B, r · tokens, dim) -> (B, tokens, dim): drop the repetitions that made all rows of a call equally long."""
    if x.shape[1] % tokens:
        raise ValueError(
            f"the {name} prompt has {x.shape[1]} tokens, the control's matrix was made for {tokens}; encode it with as many "
            "chunks as the alignment has"
        )
    return x[:, :tokens]
