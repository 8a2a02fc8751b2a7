"""Cross-attention of chosen words: the taps that record it, and the shapes in which the losses of a scene read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from ..diffusion.denoiser import Site, StopForward
from ..edit.blend import GridSize

SceneLayers = Literal["published", "up"]
"""Whose cross-attention places a scene's objects: RFNet's choice for SD1.5, or all layers on the way up, which is what a
token-in-box loss (``llmga.train.box_loss``) trains."""

PhraseAttention = Literal["tokens", "sum"]
"""How an object's name is read: each of its tokens is guided, and the last is its word, as RFNet does; or as one word, whose
attention is the sum of its tokens', for models that let another token than the last point to the object."""


@dataclass(frozen=True)
class WordAttention:
    """The attention that one layer gives to chosen tokens."""

    maps: torch.Tensor
    """(heads, N, tokens) float32: softmax over all tokens of the context, of which the chosen ones are kept."""
    size: GridSize
    """(h, w), N = h · w."""

    def moved(self, rows: int, columns: int, unit: int, latent: GridSize) -> WordAttention:
        """The maps moved by so many units of ``unit`` cells of a latent of size ``latent``."""
        height, width = self.size
        grid = self.maps.unflatten(1, self.size).movedim(-1, 1)  # (heads, tokens, h, w)
        down, right = round(rows * unit * height / latent[0]), round(columns * unit * width / latent[1])
        return WordAttention(shift(grid, down, right).movedim(1, -1).flatten(1, 2), self.size)


def summed(
    recorded: Mapping[Site, WordAttention], phrases: Sequence[Sequence[int]]
) -> dict[Site, WordAttention]:
    """The attention to whole phrases: (heads, N, tokens) -> (heads, N, phrases), the sum over each one's recorded tokens."""
    return {
        site: WordAttention(
            torch.stack([one.maps[..., list(phrase)].sum(-1) for phrase in phrases], -1), one.size
        )
        for site, one in recorded.items()
    }


class WordTaps:
    """Taps that record the attention to chosen tokens at chosen layers, in the last row of the call.

    The probabilities of other tokens are never held. With ``stop`` the pass ends after the last chosen layer.

    Args:
        sites: of cross-attention.
        tokens: positions in the context.
    """

    def __init__(self, sites: Sequence[Site], tokens: Sequence[int], *, stop: bool) -> None:
        self._sites, self._tokens, self._stop = list(sites), list(tokens), stop
        self.recorded: dict[Site, WordAttention] = {}

    def attend(
        self,
        site: Site,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        heads: int,
        size: GridSize,
    ) -> None:
        if site not in self._sites:
            return
        if max(self._tokens) >= k.shape[1]:
            raise ValueError(f"tokens must be positions below {k.shape[1]}, got {max(self._tokens)}")
        self.recorded[site] = WordAttention(word_attention(q[-1], k[-1], self._tokens, heads), size)
        if self._stop and len(self.recorded) == len(self._sites):
            raise StopForward


def word_attention(q: torch.Tensor, k: torch.Tensor, tokens: Sequence[int], heads: int) -> torch.Tensor:
    """(N, heads · dim), (T, heads · dim) -> (heads, N, tokens) float32: the probabilities of some tokens alone."""
    q, k = (x.float().unflatten(-1, (heads, -1)).transpose(0, 1) for x in (q, k))  # (heads, N or T, dim)
    logits = q @ k.mT * q.shape[-1] ** -0.5
    return (logits[..., list(tokens)] - logits.logsumexp(-1, keepdim=True)).exp()


def guidance_sites(sites: Sequence[Site], layers: SceneLayers = "published") -> list[Site]:
    """The layers whose attention is guided: the middle and the first level upwards that has cross-attention; or all on the
    way up.

    In SD1.5 the published ones are middle 0 and output 3, 4, 5, which RFNet and LMD guide.
    """
    cross = [site for site in sites if site.kind == "cross"]
    if layers == "up":
        return [site for site in cross if site.block == "output"]
    numbers = sorted({site.number for site in cross if site.block == "output"})[:3]
    return [
        site
        for site in cross
        if site.block == "middle" or (site.block == "output" and site.number in numbers)
    ]


def saliency_site(sites: Sequence[Site], layers: SceneLayers = "published") -> Site:
    """The layer whose word map becomes an object's mask: the last one downwards, SD1.5's input 8; or the last one upwards.

    Raises:
        ValueError: there is no cross-attention on that way.
    """
    block = "output" if layers == "up" else "input"
    found = [site for site in sites if site.kind == "cross" and site.block == block]
    if not found:
        way = "up" if layers == "up" else "down"
        raise ValueError(
            f"the denoiser has no cross-attention on its way {way}, where objects are looked for"
        )
    return found[-1]


def shift(x: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Move (…, h, w) down by ``rows`` and right by ``columns``; zeros come in, what leaves is lost."""
    height, width = x.shape[-2:]
    moved = torch.zeros_like(x)
    rows, columns = max(-height, min(rows, height)), max(-width, min(columns, width))
    to_rows, from_rows = (
        slice(max(rows, 0), height + min(rows, 0)),
        slice(max(-rows, 0), height - max(rows, 0)),
    )
    to_columns = slice(max(columns, 0), width + min(columns, 0))
    from_columns = slice(max(-columns, 0), width - max(columns, 0))
    moved[..., to_rows, to_columns] = x[..., from_rows, from_columns]
    return moved
