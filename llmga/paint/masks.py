"""Random holes: strokes, boxes and cut-off borders, in the mixes of the paper and of LaMa's evaluation.

A mask is (H, W) float32 of 0 and 1, 1 = hole, never empty. Figures in pixels hold for a picture of
``side``² pixels and are scaled by sqrt(H·W) / side, so that a mix hides the same share of a picture of any
size and aspect.

Sources: LLMGA 7e32eb6 ``llava/masks/make_mask.py`` and ``my_datasets/dataset_inpainting.py``; DiffRIR 9f3931e
``options/*.yml``; LaMa ``configs/data_gen/random_{thin,thick}_512.yaml``. Deviations: sizes scale (theirs are
fixed); left and right borders are shares of the width (theirs are of the height, which is right for squares
only).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw

_TRIES = 50  # LaMa: 10 attempts of 5 masks each


class MaskShape(Protocol):
    """One kind of hole."""

    def draw(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        """(height, width) float32, 1 = hole."""
        ...


@dataclass(frozen=True)
class Strokes:
    """Broad free-hand lines of up to ``joints`` pieces each; ranges are inclusive.

    Their direction takes four values only, whole radians, mirrored on every other stroke, as in LaMa.
    ``count`` is what LaMa's code draws: one more than its ``max_times`` says.
    """

    count: tuple[int, int]
    length: tuple[int, int]
    width: tuple[int, int]
    joints: tuple[int, int] = (1, 5)
    side: int = 512

    def draw(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        scale = _scale(height, width, self.side)
        canvas = Image.new("1", (width, height))
        pen = ImageDraw.Draw(canvas)
        for stroke in range(_between(rng, self.count)):
            x, y = int(rng.integers(width)), int(rng.integers(height))
            for _ in range(_between(rng, self.joints)):
                angle = (0.01 + int(rng.integers(4))) * (-1 if stroke % 2 == 0 else 1)
                length = _between(rng, self.length) * scale
                # OpenCV, with which the figures were chosen, widens a line to the next odd number.
                brush = max(1, round(((_between(rng, self.width) + 1) | 1) * scale))
                end_x = min(max(round(x + length * math.sin(angle)), 0), width)
                end_y = min(max(round(y + length * math.cos(angle)), 0), height)
                pen.line((x, y, end_x, end_y), fill=1, width=brush)
                for cx, cy in ((x, y), (end_x, end_y)):  # round ends, which also close the joints
                    pen.circle((cx, cy), (brush - 1) / 2, fill=1)
                x, y = end_x, end_y
        return np.asarray(canvas, dtype=np.float32)


@dataclass(frozen=True)
class Boxes:
    """Upright boxes at least ``margin`` away from the edge, each side drawn by itself; inclusive ranges."""

    count: tuple[int, int]
    box: tuple[int, int]
    margin: int = 10
    side: int = 512

    def draw(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        scale = _scale(height, width, self.side)
        mask = np.zeros((height, width), dtype=np.float32)
        for _ in range(_between(rng, self.count)):
            rows, columns = (self._span(rng, size, scale) for size in (height, width))
            mask[rows, columns] = 1
        return mask

    def _span(self, rng: np.random.Generator, size: int, scale: float) -> slice:
        margin = min(round(self.margin * scale), (size - 1) // 2)
        low, high = (min(max(1, round(end * scale)), size - 2 * margin) for end in self.box)
        extent = _between(rng, (low, high))
        start = _between(rng, (margin, size - margin - extent))
        return slice(start, start + extent)


@dataclass(frozen=True)
class Borders:
    """The picture is to be continued: each side is cut off with probability ½, at least one.

    ``share`` is the part of the height or width that a side loses; opposite sides may both be cut.
    """

    share: tuple[float, float]

    def draw(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        mask = np.zeros((height, width), dtype=np.float32)
        cut = rng.random(4) < 0.5
        if not cut.any():
            cut[rng.integers(4)] = True
        extents = [max(1, round(rng.uniform(*self.share) * size)) for size in (width, height, width, height)]
        left, top, right, bottom = (extent if lost else 0 for extent, lost in zip(extents, cut, strict=True))
        mask[:, :left] = mask[:top] = mask[:, width - right :] = mask[height - bottom :] = 1
        return mask


@dataclass(frozen=True)
class MaskMix:
    """Shapes and how often each is drawn.

    Args:
        shapes: (weight, shape) pairs; weights need not sum to 1.
        full: probability that the hole is the whole picture instead.
        max_hole: a mask whose hole is a larger share of the picture is drawn again.
    """

    shapes: tuple[tuple[float, MaskShape], ...]
    full: float = 0.0
    max_hole: float = 1.0

    def pick(self, rng: np.random.Generator) -> MaskShape:
        """One of the shapes, by weight; ``full`` and ``max_hole`` are ``draw``'s."""
        weights = np.array([weight for weight, _ in self.shapes])
        return self.shapes[rng.choice(len(weights), p=weights / weights.sum())][1]

    def draw(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        """One mask, (height, width) float32, 1 = hole.

        Raises:
            ValueError: the size is no size, or no mask under ``max_hole`` fits it (a picture of a few
                pixels).
        """
        if height < 1 or width < 1:
            raise ValueError(f"a mask needs at least 1×1 pixels, got {width}×{height}")
        if rng.random() < self.full:
            return np.ones((height, width), dtype=np.float32)
        for _ in range(_TRIES):
            mask = self.pick(rng).draw(rng, height, width)
            if mask.mean() <= self.max_hole:
                return mask
        raise ValueError(
            f"no mask out of {_TRIES} hides at most {self.max_hole:.0%} of a picture of {width}×{height}; "
            "use larger pictures"
        )


def _scale(height: int, width: int, side: int) -> float:
    return math.sqrt(height * width) / side


def _between(rng: np.random.Generator, ends: tuple[int, int]) -> int:
    return int(rng.integers(ends[0], ends[1], endpoint=True))


def _training_mix(
    strokes: float,
    boxes: float,
    borders: float,
    share: tuple[float, float],
    *,
    side: int = 512,
    full: float = 0.0,
) -> MaskMix:
    return MaskMix(
        (
            (strokes, Strokes((1, 5), (10, 249), (5, 104), side=side)),
            (boxes, Boxes((1, 4), (35, 160), side=side)),
            (borders, Borders(share)),
        ),
        full,
    )


MIXES: Mapping[str, MaskMix] = MappingProxyType(
    {
        "stage1": _training_mix(0.25, 0.25, 0.5, (0.35, 0.4)),
        "stage2": _training_mix(0.25, 0.25, 0.5, (0.25, 0.4), full=0.25),
        # Its masks are drawn for crops of 400 px.
        "diffrir": _training_mix(0.35, 0.3, 0.35, (0.15, 0.4), side=400),
        "narrow": MaskMix(((1.0, Strokes((4, 71), (10, 109), (5, 24))),), max_hole=0.5),
        "wide": MaskMix(
            ((1.0, Strokes((1, 6), (10, 459), (5, 254))), (0.3, Boxes((1, 4), (30, 300)))), max_hole=0.5
        ),
    }
)
"""The mixes by name: training of stage 1, stage 2 and DiffRIR; LaMa's evaluation masks, narrow and wide."""
