"""The links of a template as ComfyUI draws them, in both renderers, and which of them pass behind a node or over a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Box = tuple[float, float, float, float]
"""Left, top, width, height; of a node without its title, which stands above."""
Point = tuple[float, float]

TITLE = 34
INSIDE = 3
"""Pixels from a node's edge on that a link counts as behind it."""
SLOT = 24
"""The same at the sides of a link's own nodes, whose slots lie inside."""
NEAR = 3
"""Pixels from a name within which a link counts as over it."""
HANDLE = 0.25
"""LiteGraph's handles, in distances between the ends."""


@dataclass(frozen=True)
class Link:
    """From a slot of one node to a slot of another.

    Attributes:
        source, target: node ids.
        slots: the number of the output and of the input.
        ends: for each renderer, where it leaves and arrives, from the left upper corner of each node.
    """

    source: str
    target: str
    slots: tuple[int, int]
    ends: tuple[tuple[Point, Point], ...]

    @property
    def key(self) -> tuple[str, int, str, int]:
        return self.source, self.slots[0], self.target, self.slots[1]


class Links:
    """All links of a template, looked at together.

    Args:
        nodes: the ids of all nodes, in the order in which ``behind`` gets their boxes.
        order: pairs of nodes without a link, of which the first is to be read first, as the source of a link is.
    """

    def __init__(
        self, links: Sequence[Link], nodes: Sequence[str], order: Sequence[tuple[str, str]] = ()
    ) -> None:
        self.links = list(links)
        self.order = list(dict.fromkeys([*((link.source, link.target) for link in links), *order]))
        index = {one: i for i, one in enumerate(nodes)}
        self.source = np.array([index[link.source] for link in links], int)
        self.target = np.array([index[link.target] for link in links], int)
        self.ends = np.array([link.ends for link in links], float)  # (links, renderers, 2, 2)
        self.mean = self.ends.mean(1, keepdims=True) if len(links) else self.ends

    def behind(self, boxes: np.ndarray) -> np.ndarray:
        """Which links pass behind a node in either renderer, without reroutes; (links,) bool.

        Args:
            boxes: (nodes, 4), as ``Box``.
        """
        return self._behind(boxes, self.ends, MANY)[0]

    def over(self, boxes: np.ndarray, names: np.ndarray) -> np.ndarray:
        """Which links pass over a name, or so near that it seems so, without reroutes; (links,) bool.

        Args:
            boxes: (nodes, 4), as ``Box``.
            names: (names, 4), as ``Box``.
        """
        if not self.links:
            return np.zeros(0, bool)
        points, _ = self._curves(boxes, self.ends, MANY)
        points = points.reshape(len(self.links), -1, 1, 2)
        low, high = around(names, NEAR)
        inside = np.all((points > low) & (points < high), axis=-1)
        return np.any(inside.reshape(len(self.links), -1), axis=1)

    def estimate(self, boxes: np.ndarray) -> tuple[int, float]:
        """How many links pass behind a node, from a few points of each, and how long they are together; fast."""
        behind, reach = self._behind(boxes, self.mean, FEW)
        return int(behind.sum()), float(reach.sum())

    def _behind(
        self, boxes: np.ndarray, ends: np.ndarray, weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        if not self.links:
            return np.zeros(0, bool), np.zeros(0)
        points, reach = self._curves(boxes, ends, weights)
        low, high = insides(boxes)
        low, high = (np.repeat(one[None], len(self.links), 0) for one in (low, high))
        each = np.arange(len(self.links))
        high[each, self.source, 0] -= SLOT - INSIDE
        low[each, self.target, 0] += SLOT - INSIDE
        x, y = (
            points.reshape(len(self.links), -1, 1, 2)[..., 0],
            points.reshape(len(self.links), -1, 1, 2)[..., 1],
        )
        low, high = low[:, None], high[:, None]
        inside = (x > low[..., 0]) & (x < high[..., 0]) & (y > low[..., 1]) & (y < high[..., 1])
        return np.any(inside, axis=(1, 2)), reach

    def _curves(
        self, boxes: np.ndarray, ends: np.ndarray, weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The points of each link, (links, renderers, points, 2), and its length in the first of them, (links,)."""
        start = boxes[self.source, None, :2] + ends[:, :, 0]
        end = boxes[self.target, None, :2] + ends[:, :, 1]
        across = end - start
        reach = np.sqrt((across * across).sum(-1, keepdims=True))
        handle = HANDLE * reach * RIGHT
        return curves(start, start + handle, end - handle, end, weights), reach[:, 0, 0]


def insides(boxes: np.ndarray, margin: float = INSIDE) -> tuple[np.ndarray, np.ndarray]:
    """The left upper and right lower corners of what is behind nodes, titles included: (nodes, 2) twice."""
    low = boxes[:, :2] + np.array([margin, margin - TITLE])
    return low, boxes[:, :2] + boxes[:, 2:] - margin


def around(boxes: np.ndarray, by: float) -> tuple[np.ndarray, np.ndarray]:
    """The left upper and right lower corners of boxes that have no title, enlarged: (boxes, 2) twice."""
    return boxes[:, :2] - by, boxes[:, :2] + boxes[:, 2:] + by


def weights(points: int) -> np.ndarray:
    """Of the four points of a cubic Bézier curve at so many places of it, the ends left out: (4, points, 1)."""
    t = np.linspace(0, 1, points + 2)[1:-1, None]
    return np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])


MANY, FEW = weights(200), weights(12)
RIGHT = np.array([1.0, 0.0])


def curves(
    start: np.ndarray, first: np.ndarray, second: np.ndarray, end: np.ndarray, weights: np.ndarray = MANY
) -> np.ndarray:
    """Points of cubic Bézier curves: (..., 2) four times -> (..., points, 2)."""
    a, b, c, d = (one[..., None, :] for one in (start, first, second, end))
    return weights[0] * a + weights[1] * b + weights[2] * c + weights[3] * d
