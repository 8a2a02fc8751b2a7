"""The DIRformer and the prior's encoder in strips of rows: exactly what the networks give, in a fraction of the memory.

Tiles would change the picture, because every block attends over all its pixels. All that reaches so far, though, is one
matrix of channels by channels in each block, a sum over the pixels. So each block is two sweeps over strips: one that sums
up its statistics, one that applies them; and each second sweep is one with the next block's first. What stays in
memory is one picture per level.

Besides,

- the norm's weight is folded into the prior's scale;
- the projection of an attention's output is folded into its map;
- the tail is one convolution, see ``diffrir_tail.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F

from .diffrir_tail import Tail
from .dirformer import _EPS as EPS
from .dirformer import Block, DIRformer
from .prior import SLOPE, PriorEncoder, Residual
from .row_streams import Rows, convolve, convolved, residual, shuffled, stored, strips, unshuffled, windows


def encode(encoder: PriorEncoder, stream: Rows, height: int) -> torch.Tensor:
    """(1, 4·n_feats): what the encoder makes of a folded picture that comes in strips."""
    layers: list[Any] = list(encoder.E)
    *chain, _ = (layer for layer in layers if not isinstance(layer, torch.nn.LeakyReLU))
    for layer in chain:
        if isinstance(layer, Residual):
            stream = _residual(stream, height, layer.body)
        else:
            stream = convolved(stream, height, layer, SLOPE)
    total: Any = 0
    pixels, dtype = 0, None
    for strip in stream:
        dtype, pixels = strip.dtype, pixels + strip.shape[1] * strip.shape[2]
        total = total + strip.float().sum((1, 2))
    return encoder.mlp((total / pixels).to(dtype))


def _residual(stream: Rows, height: int, body: Any) -> Rows:
    return residual(stream, lambda rows: convolved(convolved(rows, height, body[0], SLOPE), height, body[2]))


class StripFormer:
    """A DIRformer for pictures of one prior.

    Args:
        prior: (1, prior).
        rows: of a strip, at a quarter of the result's size.
        on_block: called after each block.
    """

    def __init__(
        self,
        former: DIRformer,
        tail: Tail,
        prior: torch.Tensor,
        rows: int,
        on_block: Callable[[], None] = lambda: None,
    ) -> None:
        self.former, self.tail, self.prior, self.rows, self.on_block = former, tail, prior, rows, on_block

    def __call__(self, stream: Rows, height: int, width: int) -> Rows:
        """Strips (1, n, W, channels) of the folded input to strips (1, 4·n, 4·W, 3); to be added to the degraded
        picture."""
        net: Any = self.former
        dim = len(net.patch_embed["proj"].weight)
        last, second, third, deepest = (
            self.prior.new_empty(1, height >> level, width >> level, dim << max(1, level))
            for level in range(4)
        )
        first = last[..., dim:]  # where the decoder will look for it
        rows = self._through(net.encoder_level1, convolved(stream, height, net.patch_embed["proj"]), first)
        rows = self._through(net.encoder_level2, _down(net.down1_2, rows, height), second)
        rows = self._through(net.encoder_level3, _down(net.down2_3, rows, height // 2), third)
        rows = self._through(net.latent, _down(net.down3_4, rows, height // 4), deepest)
        rows = _reduced(net.reduce_chan_level3, _up(net.up4_3, rows, height // 8), third)
        rows = self._through(net.decoder_level3, rows, third)
        rows = _reduced(net.reduce_chan_level2, _up(net.up3_2, rows, height // 4), second)
        rows = self._through(net.decoder_level2, rows, second)
        for _ in stored(_up(net.up2_1, rows, height // 2), last[..., :dim]):
            pass
        del rows, second, third, deepest
        rows = self._through([*net.decoder_level1, *net.refinement], strips(last, self.rows), last)
        return self.tail(rows, height)

    def _through(self, blocks: Any, stream: Rows, x: torch.Tensor) -> Rows:
        """Through blocks, into the picture ``x``, which ``stream`` may be views of."""
        stream = stored(stream, x)
        for block in blocks:
            folded = StripBlock(block, self.prior)
            mixing = folded.mixing(stream, x.shape[1])
            self.on_block()
            stream = folded.fed(folded.attended(strips(x, self.rows), x, mixing), x)
        return stream


class StripBlock:
    """A block with its prior folded in."""

    def __init__(self, block: Block, prior: torch.Tensor) -> None:
        attention, feed = block.attn, block.ffn
        self.heads = len(attention.temperature)
        self.temperature = attention.temperature.to(prior.device, torch.float32)
        layers = _halves(attention.qkv, attention.qkv_dwconv, 3, prior)
        self.modulations = [
            _modulation(*pair, prior) for pair in ((block.norm1, attention), (block.norm2, feed))
        ]
        self.qk, self.v = layers[:2], layers[2:]
        self.out = attention.project_out.weight.to(prior.device, torch.float32)[..., 0, 0]
        self.ffn = _halves(feed.project_in, feed.dwconv, 2, prior)
        self.ffn_out = feed.project_out.weight.to(prior)[..., 0, 0]

    def mixing(self, stream: Rows, height: int) -> torch.Tensor:
        """(C, C): the attention's map over the whole picture, its projection included."""
        gram: Any = 0
        squares: Any = 0
        for pair in _surroundings(stream, height, self.modulations[0], self.qk):
            # (1, n, W, heads·c) -> (heads, n·W, c)
            q, k = (x.float().view(-1, self.heads, x.shape[3] // self.heads).transpose(0, 1) for x in pair)
            pair.clear()
            gram = gram + q.transpose(1, 2) @ k
            squares = squares + torch.stack([q.square().sum(1), k.square().sum(1)])
            del q, k
        q, k = squares.sqrt().clamp_min(1e-12)
        weights = (gram / (q[:, :, None] * k[:, None]) * self.temperature).softmax(-1)
        out = self.out.unflatten(1, (self.heads, -1)).transpose(0, 1)  # (heads, C, c)
        return (out @ weights).transpose(0, 1).flatten(1)

    def attended(self, stream: Rows, x: torch.Tensor, mixing: torch.Tensor) -> Rows:
        values = _surroundings(stream, x.shape[1], self.modulations[0], self.v)
        return _added((pair.pop() for pair in values), x, mixing.to(x))

    def fed(self, stream: Rows, x: torch.Tensor) -> Rows:
        pairs = _surroundings(stream, x.shape[1], self.modulations[1], self.ffn)
        return _added((F.gelu(pair.pop(0)).mul_(pair.pop()) for pair in pairs), x, self.ffn_out)


Pair = tuple[torch.Tensor, torch.Tensor]


def _halves(inner: Any, around: Any, parts: int, like: torch.Tensor) -> list[Pair]:
    """Of a 1×1 convolution the weight (N, C) and of the depthwise one behind it, in parts."""
    weights = (layer.weight.to(like).chunk(parts) for layer in (inner, around))
    return [(weight[..., 0, 0], kernel) for weight, kernel in zip(*weights, strict=True)]


def _modulation(norm: Any, part: Any, prior: torch.Tensor) -> Pair:
    """Scale and shift (C,) of the prior, the norm's weight included."""
    scale, shift = part.kernel(prior)[0].chunk(2)
    return norm.body["weight"].to(scale) * scale, shift


def _surroundings(
    stream: Rows, height: int, modulation: Pair, layers: list[Pair]
) -> Iterator[list[torch.Tensor]]:
    """Norm, modulation, then through each of the layers of equal widths: (1, n, W, N) of each."""
    width, (scale, shift) = len(layers[0][0]), modulation

    def project(strip: torch.Tensor, out: torch.Tensor) -> None:
        _, _, inverse = torch.native_layer_norm(strip, strip.shape[-1:], None, None, EPS)
        given = torch.addcmul(shift, strip * inverse.to(strip.dtype), scale).flatten(0, 2)
        for (weight, _), part in zip(layers, out, strict=True):
            torch.mm(given, weight.T, out=part.flatten(0, 1))

    for block in windows(stream, height, 1, (len(layers), width), project):
        made = [
            convolve(part[None], around, None, 1, width)
            for (_, around), part in zip(layers, block, strict=True)
        ]
        del block  # see ``windows``; whoever empties the list frees what was in it
        yield made


def _added(stream: Rows, x: torch.Tensor, weight: torch.Tensor) -> Rows:
    """Through a 1×1 convolution and added to the picture, in place; goes on with views of it."""
    row = 0
    for strip in stream:
        view = x[:, row : row + strip.shape[1]]
        row += strip.shape[1]
        view.flatten(0, 2).addmm_(strip.flatten(0, 2), weight.T)
        del strip
        yield view


def _down(layer: Any, stream: Rows, height: int) -> Rows:
    return unshuffled(convolved(stream, height, layer["body"][0]), 2)


def _up(layer: Any, stream: Rows, height: int) -> Rows:
    return shuffled(convolved(stream, height, layer["body"][0]), 2)


def _reduced(layer: Any, stream: Rows, x: torch.Tensor) -> Rows:
    """A stream and ``x`` one upon the other, through a 1×1 convolution."""
    row, weight = 0, layer.weight.to(x)[..., 0, 0].T
    for strip in stream:
        both = torch.cat([strip, x[:, row : row + strip.shape[1]]], 3)
        row += strip.shape[1]
        yield both @ weight
