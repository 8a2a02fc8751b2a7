"""DIRformer and the prior's encoder computed in row strips: the same result up to rounding, in a fraction of the memory.

Tiles would change the result, because every block attends over all pixels. That global part is only a matrix of channels by
channels per block, a sum over the pixels. Each block is therefore two sweeps over the strips: one sums up the matrix, one
applies it, and the second sweep is merged with the first one of the next block. One image per level stays in memory.

In addition,

- the norm's weight is folded into the prior's scale;
- the projection of an attention's output is folded into its map;
- the tail is one convolution, see ``diffrir_tail.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F

from .diffrir_tail import FoldedTail
from .dirformer import _EPS as EPS
from .dirformer import Block, DIRformer
from .prior import SLOPE, PriorEncoder, Residual
from .row_streams import (
    RowStream,
    add_residual,
    conv3x3,
    convolve_rows,
    nothing,
    pixel_shuffle,
    pixel_unshuffle,
    split_rows,
    store,
    with_halo,
)


def encode_prior(encoder: PriorEncoder, stream: RowStream, height: int) -> torch.Tensor:
    """Run the prior's encoder on a stream of strips; returns (1, 4·n_feats)."""
    layers: list[Any] = list(encoder.E)
    *chain, _ = (layer for layer in layers if not isinstance(layer, torch.nn.LeakyReLU))
    for layer in chain:
        if isinstance(layer, Residual):
            stream = _residual(stream, height, layer.body)
        else:
            stream = conv3x3(stream, height, layer, SLOPE)
    total: Any = 0
    pixels, dtype = 0, None
    for strip in stream:
        dtype, pixels = strip.dtype, pixels + strip.shape[1] * strip.shape[2]
        total = total + strip.float().sum((1, 2))
    return encoder.mlp((total / pixels).to(dtype))


def _residual(stream: RowStream, height: int, body: Any) -> RowStream:
    return add_residual(stream, lambda rows: conv3x3(conv3x3(rows, height, body[0], SLOPE), height, body[2]))


class DIRformerInStrips:
    """A DIRformer that runs in strips on an image with a given prior.

    Args:
        prior: (1, prior).
        rows: of a strip, at a quarter of the result's size.
        on_block: called after each block.
        on_strip: called before each strip of a sweep over an image that is stored.
    """

    def __init__(
        self,
        former: DIRformer,
        tail: FoldedTail,
        prior: torch.Tensor,
        rows: int,
        on_block: Callable[[], Any] = nothing,
        on_strip: Callable[[], Any] = nothing,
    ) -> None:
        self.former, self.tail, self.prior, self.rows = former, tail, prior, rows
        self.on_block, self.on_strip = on_block, on_strip

    def __call__(self, stream: RowStream, height: int, width: int) -> RowStream:
        """Turn strips (1, n, W, channels) of the input into strips (1, 4·n, 4·W, 3), to be added to the degraded image."""
        net: Any = self.former
        dim = len(net.patch_embed["proj"].weight)
        last, second, third, deepest = (
            self.prior.new_empty(1, height >> level, width >> level, dim << max(1, level))
            for level in range(4)
        )
        first = last[..., dim:]  # where the decoder will look for it
        rows = self._through(net.encoder_level1, conv3x3(stream, height, net.patch_embed["proj"]), first)
        rows = self._through(net.encoder_level2, _down(net.down1_2, rows, height), second)
        rows = self._through(net.encoder_level3, _down(net.down2_3, rows, height // 2), third)
        rows = self._through(net.latent, _down(net.down3_4, rows, height // 4), deepest)
        rows = _reduced(net.reduce_chan_level3, _up(net.up4_3, rows, height // 8), third)
        rows = self._through(net.decoder_level3, rows, third)
        rows = _reduced(net.reduce_chan_level2, _up(net.up3_2, rows, height // 4), second)
        rows = self._through(net.decoder_level2, rows, second)
        for _ in store(_up(net.up2_1, rows, height // 2), last[..., :dim]):
            pass
        del rows, second, third, deepest
        rows = self._through([*net.decoder_level1, *net.refinement], self._strips(last), last)
        return self.tail(rows, height)

    def _through(self, blocks: Any, stream: RowStream, x: torch.Tensor) -> RowStream:
        """Apply blocks and store the result in the image ``x``; ``stream`` may be views of it."""
        stream = store(stream, x)
        for block in blocks:
            folded = BlockInStrips(block, self.prior)
            mixing = folded.mixing(stream, x.shape[1])
            self.on_block()
            stream = folded.fed(folded.attended(self._strips(x), x, mixing), x)
        return stream

    def _strips(self, x: torch.Tensor) -> RowStream:
        return split_rows(x, self.rows, self.on_strip)


class BlockInStrips:
    """A transformer block with the prior folded into its weights."""

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

    def mixing(self, stream: RowStream, height: int) -> torch.Tensor:
        """First sweep: the attention map over the whole image times the output projection, (C, C)."""
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

    def attended(self, stream: RowStream, x: torch.Tensor, mixing: torch.Tensor) -> RowStream:
        values = _surroundings(stream, x.shape[1], self.modulations[0], self.v)
        return _added((pair.pop() for pair in values), x, mixing.to(x))

    def fed(self, stream: RowStream, x: torch.Tensor) -> RowStream:
        pairs = _surroundings(stream, x.shape[1], self.modulations[1], self.ffn)
        return _added((F.gelu(pair.pop(0)).mul_(pair.pop()) for pair in pairs), x, self.ffn_out)


_Modulation = tuple[torch.Tensor, torch.Tensor]


def _halves(inner: Any, around: Any, parts: int, like: torch.Tensor) -> list[_Modulation]:
    """Weights (N, C) of a 1×1 convolution and of the depthwise convolution behind it, split into ``parts``."""
    weights = (layer.weight.to(like).chunk(parts) for layer in (inner, around))
    return [(weight[..., 0, 0], kernel) for weight, kernel in zip(*weights, strict=True)]


def _modulation(norm: Any, part: Any, prior: torch.Tensor) -> _Modulation:
    """Scale and shift (C,) that the prior gives, with the norm's weight multiplied into the scale."""
    scale, shift = part.kernel(prior)[0].chunk(2)
    return norm.body["weight"].to(scale) * scale, shift


def _surroundings(
    stream: RowStream, height: int, modulation: _Modulation, layers: list[_Modulation]
) -> Iterator[list[torch.Tensor]]:
    """Apply norm and modulation, then each pair of layers; yields one (1, n, W, N) per pair. All have equal widths."""
    width, (scale, shift) = len(layers[0][0]), modulation

    def project(strip: torch.Tensor, out: torch.Tensor) -> None:
        _, _, inverse = torch.native_layer_norm(strip, strip.shape[-1:], None, None, EPS)
        given = torch.addcmul(shift, strip * inverse.to(strip.dtype), scale).flatten(0, 2)
        for (weight, _), part in zip(layers, out, strict=True):
            torch.mm(given, weight.T, out=part.flatten(0, 1))

    for block in with_halo(stream, height, 1, (len(layers), width), project):
        made = [
            convolve_rows(part[None], around, None, 1, width)
            for (_, around), part in zip(layers, block, strict=True)
        ]
        del block  # see ``with_halo``; whoever empties the list frees what was in it
        yield made


def _added(stream: RowStream, x: torch.Tensor, weight: torch.Tensor) -> RowStream:
    """Apply a 1×1 convolution, add the result to the image in place and yield views of it."""
    row = 0
    for strip in stream:
        view = x[:, row : row + strip.shape[1]]
        row += strip.shape[1]
        view.flatten(0, 2).addmm_(strip.flatten(0, 2), weight.T)
        del strip
        yield view


def _down(layer: Any, stream: RowStream, height: int) -> RowStream:
    return pixel_unshuffle(conv3x3(stream, height, layer["body"][0]), 2)


def _up(layer: Any, stream: RowStream, height: int) -> RowStream:
    return pixel_shuffle(conv3x3(stream, height, layer["body"][0]), 2)


def _reduced(layer: Any, stream: RowStream, x: torch.Tensor) -> RowStream:
    """Concatenate a stream and ``x`` by channels and apply a 1×1 convolution."""
    row, weight = 0, layer.weight.to(x)[..., 0, 0].T
    for strip in stream:
        both = torch.cat([strip, x[:, row : row + strip.shape[1]]], 3)
        row += strip.shape[1]
        yield both @ weight
