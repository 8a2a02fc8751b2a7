"""Token-in-box loss: a named object's words attend to the box that holds it.

A denoising loss alone lets a UNet read an object from any word, such as the last ones of a sentence, which a causal text
encoder has told everything. Then the map of its noun finds no place, and what works on maps, such as LocalBlend,
works on nothing. Where a data set knows boxes, two terms on the cross-attention of the up blocks teach the maps.

Source: TokenCompose (Wang et al. 2024, arXiv 2312.03626), section 3.2, with boxes for its segmentation masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from ..text.chunks import CONTENT
from ..text.encoder import CLIPPromptEncoder

RelativeBox = tuple[float, float, float, float]
"""Left, top, right and bottom as shares of the picture's sides, 0 .. 1."""


class NamedBox(NamedTuple):
    """A phrase of a caption, characters ``start`` to ``end``, and the box of what it names."""

    start: int
    end: int
    box: RelativeBox


class PhraseTokens(NamedTuple):
    """The phrases of a batch: P of them in all, of T tokens at most."""

    example: torch.Tensor
    """(P,) int64: which row of the batch."""
    tokens: torch.Tensor
    """(P, T) int64: the positions of its tokens in the context, -1 where there are no more."""
    boxes: torch.Tensor
    """(P, 4) float32, see ``RelativeBox``."""


def token_positions(encoder: CLIPPromptEncoder, caption: str, phrases: Sequence[NamedBox]) -> list[list[int]]:
    """The positions of each phrase's tokens in the context that ``encoder`` makes of the caption (layout ``llmga``).

    A phrase that begins and ends between words is found exactly, as CLIP's tokens never cross a space. What lies
    behind the encoder's last chunk has no position.
    """
    rows = [1 + CONTENT * c + k for c, chunk in enumerate(encoder.chunks(caption)) for k in range(len(chunk))]

    def count(end: int) -> int:
        return len(encoder.tokenize("l", caption[:end]))

    return [rows[count(phrase.start) : count(phrase.end)] for phrase in phrases]


def locate_phrases(
    encoder: CLIPPromptEncoder, caption: str, phrases: Sequence[NamedBox]
) -> list[tuple[list[int], RelativeBox]]:
    """The token positions and the box of each phrase of a caption; those without a token left are not among them."""
    found = zip(token_positions(encoder, caption, phrases), phrases, strict=True)
    return [(positions, phrase.box) for positions, phrase in found if positions]


def batch_phrases(rows: Sequence[Sequence[tuple[list[int], RelativeBox]]]) -> PhraseTokens:
    """The phrases of a batch, from what ``locate_phrases`` gives for each of its captions."""
    located = [(row, positions, box) for row, phrases in enumerate(rows) for positions, box in phrases]
    if not located:
        return PhraseTokens(
            torch.zeros(0, dtype=torch.int64), torch.zeros(0, 1, dtype=torch.int64), torch.zeros(0, 4)
        )
    example, tokens, boxes = zip(*located, strict=True)
    padded = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(positions) for positions in tokens], batch_first=True, padding_value=-1
    )
    return PhraseTokens(torch.tensor(example), padded, torch.tensor(boxes))


class AttentionMaps:
    """The cross-attention of a diffusers UNet's up blocks, as the last forward pass left it: (B, N, L) each, the mean
    over the heads. They stand in the graph, so a loss on them has a gradient.

    Raises:
        ValueError: no up block attends to text.
    """

    def __init__(self, unet: Any) -> None:
        self.maps: dict[str, torch.Tensor] = {}
        layers = [
            (name, module)
            for name, module in unet.named_modules()
            if name.startswith("up_blocks") and name.endswith("attn2")
        ]
        if not layers:
            raise ValueError("box_loss needs a UNet whose up blocks attend to the text; this one has none")
        for name, layer in layers:
            layer.set_processor(_Keep(self.maps, name))

    def take(self) -> list[torch.Tensor]:
        """The maps, which are then forgotten."""
        maps = list(self.maps.values())
        self.maps.clear()
        return maps


class _Keep:
    """A diffusers attention processor that holds the probabilities, which a fused kernel never does."""

    def __init__(self, maps: dict[str, torch.Tensor], name: str) -> None:
        self._maps, self._name = maps, name

    def __call__(
        self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, **_: Any
    ) -> torch.Tensor:
        q, k, v = (
            layer(states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # (B, heads, N or L, dim)
            for layer, states in (
                (attn.to_q, hidden_states),
                (attn.to_k, encoder_hidden_states),
                (attn.to_v, encoder_hidden_states),
            )
        )
        probabilities = (q @ k.transpose(-1, -2) * attn.scale).softmax(-1)  # (B, heads, N, L)
        self._maps[self._name] = probabilities.mean(1)
        out = (probabilities.to(v.dtype) @ v).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](out))


def box_loss(maps: Sequence[torch.Tensor], phrases: PhraseTokens) -> tuple[torch.Tensor, torch.Tensor]:
    """The token-in-box loss of maps (B, N, L) of square layers, and the tokens' mean mass inside, 0 .. 1.

    The first term is (1 - the share of a token's map that lies inside its box)², the mean over the tokens. The second is
    the cross-entropy, at every cell, between the attention that goes to a phrase and whether the cell is of its box.
    Both are 0 where a batch names nothing.
    """
    losses, shares = [], []
    for probabilities in maps:
        if not len(phrases.example):
            break
        cells = round(probabilities.shape[1] ** 0.5)
        inside = coverage(phrases.boxes.to(probabilities.device), cells, cells).flatten(1)  # (P, N)
        there = (phrases.tokens >= 0).to(inside.device)  # (P, T)
        example, tokens = (at.to(inside.device) for at in (phrases.example, phrases.tokens.clamp(min=0)))
        of_tokens = probabilities[example[:, None], :, tokens].float() * there[..., None]  # (P, T, N)
        share = (of_tokens * inside[:, None]).sum(2) / of_tokens.sum(2).clamp(min=1e-6)  # (P, T)
        of_phrase = of_tokens.sum(1).clamp(1e-5, 1 - 1e-5)  # (P, N)
        wanted = (inside >= 0.5).float()
        losses.append((1 - share[there]).square().mean() + F.binary_cross_entropy(of_phrase, wanted))
        shares.append(share[there].mean())
    if not losses:
        return torch.zeros(()), torch.zeros(())
    return torch.stack(losses).mean(), torch.stack(shares).mean().detach()


def coverage(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(P, height, width) float32: how much of each cell boxes (P, 4) cover, 0 .. 1, by area."""
    left, top, right, bottom = boxes.float().unbind(1)

    def along(low: torch.Tensor, high: torch.Tensor, cells: int) -> torch.Tensor:
        edges = torch.arange(cells + 1, device=boxes.device) / cells
        overlap = torch.minimum(high[:, None], edges[1:]) - torch.maximum(low[:, None], edges[:-1])
        return overlap.clamp(min=0) * cells

    return along(top, bottom, height)[:, :, None] * along(left, right, width)[:, None]
