"""The last layers of the DIRformer folded into one 5×5 convolution.

They are three 3×3 convolutions with two pixel shuffles and no nonlinearity between them: together a 5×5 convolution to
4 × 4 pixels of 3 colours each, and a bias. Only the zero padding of each layer does not fit that. It touches the outermost
pixels alone, which get kernels of their own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .row_streams import RowStream, convolve_rows, pixel_shuffle, with_halo

REACH = 2
FIRST, INNER, LAST = range(3)
_PART = 16


class FoldedTail:
    """The folded kernels (48, width, 5, 5) and biases (48,), by [row, column] of ``FIRST``, ``INNER``, ``LAST``."""

    def __init__(self, layers: Any, like: torch.Tensor) -> None:
        """``layers`` is ``DIRformer.tail``; the kernels get the dtype and device of ``like``."""
        at = torch.device("cpu") if like.device.type == "mps" else like.device  # MPS has no float64
        first, _, second, _ = layers[0]
        convolutions = [
            (layer.weight.to(at), layer.bias.to(at, torch.float64)) for layer in (first, second, layers[1])
        ]
        self.kernels = like.new_empty(3, 3, 48, first.weight.shape[1], 5, 5)
        self.biases = like.new_empty(3, 3, 48)
        for colour in range(3):  # one after the other: what arises on the way is larger than the kernels
            collapse, its = _Collapse(convolutions, colour), slice(16 * colour, 16 * colour + 16)
            for row in range(3):
                for column in range(3):
                    self.kernels[row, column, its], self.biases[row, column, its] = collapse.at(row, column)

    def __call__(self, stream: RowStream, height: int) -> RowStream:
        """Strips (1, n, W, width) to (1, 4·n, 4·W, 3)."""
        return pixel_shuffle(self._folded(stream, height), 4)

    def _folded(self, stream: RowStream, height: int) -> RowStream:
        row = 0
        for block in with_halo(stream, height, REACH):
            out = self._rows(block, INNER)
            if row == 0:
                out[:, :1] = self._rows(block[:, : 2 * REACH + 1], FIRST)
            row += out.shape[1]
            if row == height:
                out[:, -1:] = self._rows(block[:, -2 * REACH - 1 :], LAST)
            yield out

    def _rows(self, block: torch.Tensor, row: int) -> torch.Tensor:
        """(1, n, W, 48) from (1, n + 4, W, width)."""

        def at(column: int, x: torch.Tensor, padding: int) -> torch.Tensor:
            return convolve_rows(x, self.kernels[row, column], self.biases[row, column], padding)

        out = at(INNER, block, REACH)
        out[:, :, :1] = at(FIRST, F.pad(block[:, :, : REACH + 1], (0, 0, REACH, 0)), 0)
        out[:, :, -1:] = at(LAST, F.pad(block[:, :, -REACH - 1 :], (0, 0, 0, REACH)), 0)
        return out


class _Collapse:
    """Follows one colour's 16 outputs of a pixel backwards, through the adjoints of the three convolutions, in float64."""

    def __init__(self, convolutions: list[tuple[torch.Tensor, torch.Tensor]], colour: int) -> None:
        self.one, self.two, (three, bias) = convolutions
        which = torch.eye(48, dtype=bias.dtype, device=bias.device)[16 * colour : 16 * colour + 16]
        ones = F.pixel_shuffle(which[..., None, None], 4)
        self.bias = ones.sum((2, 3)) @ bias  # each of the 16 is a picture of 4×4
        out = _overlapped(_columns(ones, three), INNER, INNER)
        # 4×4 grew to 6×6; with a frame of zeros these are 4×4 pixels of twice the size.
        self.out = F.pixel_unshuffle(F.pad(out, (1, 1, 1, 1)), 2)
        self.columns = _columns(self.out, self.two[0])

    def at(self, row: int, column: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The kernel (16, width, 5, 5) and bias (16,) of the pixels at the (first, inner, last) row and column."""
        bias = self.bias + _inside(self.out, row, column).sum((2, 3)) @ self.two[1]
        out = F.pixel_unshuffle(_overlapped(self.columns, row, column), 2)  # 4×4 to 6×6 to 3×3
        bias += _inside(out, row, column).sum((2, 3)) @ self.one[1]
        return _overlapped(_columns(out, self.one[0]), row, column), bias


def _columns(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """What each value spreads through the adjoint of a 3×3 convolution: (3, 3, B, in, h, w) from (B, out, h, w)."""
    batch, _, height, width = x.shape
    given = x.permute(0, 2, 3, 1).flatten(0, 2)
    columns = x.new_empty(len(given), 9 * weight.shape[1])
    # The weight in parts: a copy of it in float64 would be larger than all else here.
    for part, out in zip(weight.split(_PART, 1), columns.split(9 * _PART, 1), strict=True):
        torch.mm(given, part.flatten(1).to(x), out=out)
    return columns.view(batch, height, width, -1, 3, 3).permute(4, 5, 0, 3, 1, 2)


def _overlapped(columns: torch.Tensor, row: int, column: int) -> torch.Tensor:
    """Their sum, (B, in, h + 2, w + 2), without what is beyond the picture: ``F.conv_transpose2d``."""
    *_, batch, width, h, w = columns.shape
    out = columns.new_zeros(batch, width, h + 2, w + 2)
    for i in range(3):
        for j in range(3):
            _inside(out[..., i : i + h, j : j + w], row, column).add_(_inside(columns[i, j], row, column))
    return out


def _inside(x: torch.Tensor, row: int, column: int) -> torch.Tensor:
    """Without the first or last row and column, which are beyond the picture when its first or last pixel is meant."""
    (top, bottom), (left, right) = ((int(place == FIRST), int(place == LAST)) for place in (row, column))
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]
