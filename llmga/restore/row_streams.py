"""Convolutions over an image that comes as a stream of row strips, from top to bottom.

A stream is an iterator of tensors (1, n, W, C) with n of at least 1 that follow each other without gap or overlap; channels
come last, because then 1×1 convolutions are matrix products and depthwise ones are fastest. Streams are lazy: chained
layers work on a strip while it is in cache, each some rows behind the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F

RowStream = Iterator[torch.Tensor]


def nothing() -> None:
    """The default of what is called on the way."""


def split_rows(x: torch.Tensor, rows: int, on_strip: Callable[[], Any] = nothing) -> RowStream:
    """Split an image (1, H, W, C) into views of ``rows`` rows each; ``on_strip`` is called before each one."""
    return noticed(iter(x.split(rows, 1)), on_strip)


def noticed(stream: RowStream, on_strip: Callable[[], Any]) -> RowStream:
    """The stream, with ``on_strip`` called before each strip goes on; what it raises ends the stream."""

    def passed(strip: torch.Tensor) -> torch.Tensor:
        on_strip()
        return strip

    return map(
        passed, stream
    )  # a generator's variable would keep the strip alive while later layers work on it


def with_halo(
    stream: RowStream,
    height: int,
    reach: int = 1,
    shape: tuple[int, int] | None = None,
    project: Callable[[torch.Tensor, torch.Tensor], Any] | None = None,
) -> RowStream:
    """Extend each strip by the ``reach`` rows above and below that a convolution needs; zeros beyond the image.

    No row is computed twice: the last ones are carried over to the next strip. None is higher than the highest given:
    at the end each layer has some rows left over, and behind many layers they would come all at once.

    Args:
        height: rows of the whole picture.
        shape: pictures and channels after ``project``.
        project: fills its second argument (pictures, n, W, channels) from a strip, by default with the strip.
    """
    carried, seen, most = None, 0, 0
    for strip in stream:
        n, seen, most = strip.shape[1], seen + strip.shape[1], max(most, strip.shape[1])
        above = reach if carried is None else carried.shape[1]
        below = reach if seen == height else 0
        pictures, channels = shape or (1, strip.shape[3])
        block = strip.new_empty(pictures, above + n + below, strip.shape[2], channels)
        block[:, :above] = 0 if carried is None else carried
        (project or _copy)(strip, block[:, above : above + n])
        if below:
            block[:, above + n :] = 0
        del strip
        made = block.shape[1] - 2 * reach
        if made > 0:
            carried = None if below else block[:, -2 * reach :].clone()
            given = [block]
            if made > most:
                given = [
                    block[:, at : at + most + 2 * reach].clone() for at in reversed(range(0, made, most))
                ]
            del block
            while given:
                yield given.pop()  # a name here would keep the strip alive while all later layers work on it
        else:
            carried = block


def conv3x3(stream: RowStream, height: int, layer: Any, slope: float | None = None) -> RowStream:
    """Apply a 3×3 convolution, then a leaky ReLU if ``slope`` is given."""
    weight = bias = None
    for block in with_halo(stream, height):
        if weight is None:
            weight = layer.weight.to(block)
            bias = None if layer.bias is None else layer.bias.to(block)
        # oneDNN copies the weight, twice; with fewer pixels than that has outputs, its copy outgrows the columns.
        few = (block.shape[1] - 2) * block.shape[2] < len(weight)
        given = [(convolve_by_matmul if few else convolve_rows)(block, weight, bias, 1)]
        del block
        if slope is not None:
            F.leaky_relu_(given[0], slope)
        yield given.pop()


def convolve_rows(
    block: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    padding: int = 0,
    groups: int = 1,
) -> torch.Tensor:
    """Apply a convolution to (1, n, W, C), padded on the left and right only."""
    out = F.conv2d(block.permute(0, 3, 1, 2), weight, bias, padding=(0, padding), groups=groups)
    return out.permute(0, 2, 3, 1)


def convolve_by_matmul(
    block: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, padding: int = 0
) -> torch.Tensor:
    """``convolve_rows`` as one matrix product (im2col), which does not copy the weight."""
    high, wide = weight.shape[2:]
    columns = F.unfold(block.permute(0, 3, 1, 2), (high, wide), padding=(0, padding))  # 1, C·high·wide, n·W
    out = columns[0].T @ weight.flatten(1).T
    if bias is not None:
        out += bias
    return out.view(1, block.shape[1] - high + 1, -1, len(weight))


def regroup(stream: RowStream, multiple: int) -> RowStream:
    """Regroup the rows into strips whose heights are multiples of ``multiple``."""
    left = None
    for strip in stream:
        strip = strip if left is None else torch.cat([left, strip], 1)
        whole = strip.shape[1] - strip.shape[1] % multiple
        left = strip[:, whole:] if whole < strip.shape[1] else None
        if whole:
            yield strip[:, :whole]


def store(stream: RowStream, x: torch.Tensor) -> RowStream:
    """Write the stream into the image ``x`` and yield views of it."""
    row = 0
    for strip in stream:
        view = x[:, row : row + strip.shape[1]]
        row += strip.shape[1]
        view.copy_(strip)
        del strip
        yield view


def add_residual(stream: RowStream, body: Callable[[RowStream], RowStream]) -> RowStream:
    """Add a stream to the output of ``body`` on it, which lags some rows behind."""
    waiting: list[torch.Tensor] = []

    def noted() -> RowStream:
        for strip in stream:
            waiting.append(strip)
            yield strip

    for made in body(noted()):
        have = torch.cat(waiting, 1) if len(waiting) > 1 else waiting[0]
        n = made.shape[1]
        waiting[:] = [have[:, n:].clone()] if n < have.shape[1] else []
        given = [made.add_(have[:, :n])]
        del made, have
        yield given.pop()


def pixel_shuffle(stream: RowStream, factor: int) -> RowStream:
    """``F.pixel_shuffle`` of a stream."""
    for strip in stream:
        yield F.pixel_shuffle(strip.permute(0, 3, 1, 2), factor).permute(0, 2, 3, 1)


def pixel_unshuffle(stream: RowStream, factor: int) -> RowStream:
    """``F.pixel_unshuffle`` of a stream."""
    for strip in regroup(stream, factor):
        yield F.pixel_unshuffle(strip.permute(0, 3, 1, 2), factor).permute(0, 2, 3, 1)


def _copy(strip: torch.Tensor, out: torch.Tensor) -> None:
    out.copy_(strip)
