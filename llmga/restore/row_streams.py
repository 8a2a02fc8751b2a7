"""A picture as a stream of strips of rows, from the top to the bottom, through layers that look one row up and down.

A stream is an iterator of tensors (1, n, W, C) with n of at least 1 that follow each other without gap or overlap; channels
come last, because then 1×1 convolutions are matrix products and depthwise ones are fastest. Streams are lazy: layers put
behind each other work on a strip while it is warm, each some rows behind the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F

Rows = Iterator[torch.Tensor]


def strips(x: torch.Tensor, rows: int) -> Rows:
    """The picture (1, H, W, C) in views of ``rows`` rows each."""
    return iter(x.split(rows, 1))


def windows(
    stream: Rows,
    height: int,
    reach: int = 1,
    shape: tuple[int, int] | None = None,
    project: Callable[[torch.Tensor, torch.Tensor], Any] | None = None,
) -> Rows:
    """Strips with the ``reach`` rows above and below that a stencil needs; 0 beyond the picture.

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


def convolved(stream: Rows, height: int, layer: Any, slope: float | None = None) -> Rows:
    """Through a 3×3 convolution, then a leaky ReLU if there is a ``slope``."""
    weight = bias = None
    for block in windows(stream, height):
        if weight is None:
            weight = layer.weight.to(block)
            bias = None if layer.bias is None else layer.bias.to(block)
        # oneDNN copies the weight, twice; with fewer pixels than that has outputs, its copy outgrows the columns.
        few = (block.shape[1] - 2) * block.shape[2] < len(weight)
        given = [(multiply if few else convolve)(block, weight, bias, 1)]
        del block
        if slope is not None:
            F.leaky_relu_(given[0], slope)
        yield given.pop()


def convolve(
    block: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    padding: int = 0,
    groups: int = 1,
) -> torch.Tensor:
    """A convolution with channels last, padded on the left and right."""
    out = F.conv2d(block.permute(0, 3, 1, 2), weight, bias, padding=(0, padding), groups=groups)
    return out.permute(0, 2, 3, 1)


def multiply(
    block: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, padding: int = 0
) -> torch.Tensor:
    """``convolve`` as one matrix product of the weight as it is and a column for each pixel."""
    high, wide = weight.shape[2:]
    columns = F.unfold(block.permute(0, 3, 1, 2), (high, wide), padding=(0, padding))  # 1, C·high·wide, n·W
    out = columns[0].T @ weight.flatten(1).T
    if bias is not None:
        out += bias
    return out.view(1, block.shape[1] - high + 1, -1, len(weight))


def regrouped(stream: Rows, multiple: int) -> Rows:
    """The same rows in strips whose heights are multiples."""
    left = None
    for strip in stream:
        strip = strip if left is None else torch.cat([left, strip], 1)
        whole = strip.shape[1] - strip.shape[1] % multiple
        left = strip[:, whole:] if whole < strip.shape[1] else None
        if whole:
            yield strip[:, :whole]


def stored(stream: Rows, x: torch.Tensor) -> Rows:
    """Written into the picture ``x`` on the way; goes on with views of it."""
    row = 0
    for strip in stream:
        view = x[:, row : row + strip.shape[1]]
        row += strip.shape[1]
        view.copy_(strip)
        del strip
        yield view


def residual(stream: Rows, body: Callable[[Rows], Rows]) -> Rows:
    """The sum of a stream and what ``body`` makes of it, which comes some rows late."""
    waiting: list[torch.Tensor] = []

    def noted() -> Rows:
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


def shuffled(stream: Rows, factor: int) -> Rows:
    """``F.pixel_shuffle``."""
    for strip in stream:
        yield F.pixel_shuffle(strip.permute(0, 3, 1, 2), factor).permute(0, 2, 3, 1)


def unshuffled(stream: Rows, factor: int) -> Rows:
    """``F.pixel_unshuffle``."""
    for strip in regrouped(stream, factor):
        yield F.pixel_unshuffle(strip.permute(0, 3, 1, 2), factor).permute(0, 2, 3, 1)


def _copy(strip: torch.Tensor, out: torch.Tensor) -> None:
    out.copy_(strip)
