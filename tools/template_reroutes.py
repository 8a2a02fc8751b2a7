"""Reroutes: the points through which a link is led around nodes and the names of groups."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .template_links import HANDLE, NEAR, SLOT, TITLE, Link, Links, Point, around, curves, insides

MOST_HANDLE = 20
"""Pixels of the longest handle at a reroute, as ComfyUI sets it (``LiteGraph.Reroute.SplineOffset``)."""
BESIDE = (18, 36)
"""Pixels from a node's side at which a reroute may stand, so that several links fit between two columns."""
ABOVE = (14, 38)
CLEAR = -8
"""A curve keeps so far from nodes (as a margin inside them): versions of ComfyUI's page differ by some pixels."""
CLEAR_OF_NAMES = 6
"""A curve keeps so far from the names of groups."""
DISC = 10
"""The radius of a reroute as ComfyUI draws it; it keeps one pixel farther from names."""
BESIDE_NAME, ABOVE_NAME, BELOW_NAME = 12, (12, 24), 11
APART = 9
"""Pixels between two reroutes."""
EACH = 150
"""Pixels of a way that one reroute less is worth."""
MOST = 6
VISITS = 4
"""How many ways to one point are followed."""


class _Way(NamedTuple):
    """A way that is not finished: what it costs at least, and its points so far, from slot to slot."""

    least: float
    length: float
    points: tuple[int, ...]


class Router:
    """Finds ways for links, with all reroutes apart.

    Args:
        boxes: of the nodes, (nodes, 4), in the order of ``links``.
        names: of the groups, (names, 4), which ways keep clear of, too.
    """

    def __init__(self, links: Links, boxes: np.ndarray, names: np.ndarray | None = None) -> None:
        self.boxes, self.links = boxes, links
        self.names = np.zeros((0, 4)) if names is None else names
        corners = zip(insides(boxes, CLEAR), around(self.names, CLEAR_OF_NAMES), strict=True)
        self.low, self.high = (np.concatenate(both) for both in corners)
        self.spots = self._spots()
        self.free = np.ones(len(self.spots), bool)
        self.sights: dict[int, np.ndarray] = {}

    def way(self, link: Link) -> list[Point]:
        """The points for one link, from its source to its target; none where every way is behind some node.

        Where no way is left between the reroutes of other links, some of its points are theirs, too.
        """
        return self._way(link, self.free) or self._way(link, np.ones(len(self.spots), bool))

    def is_over_a_name(self, link: Link, way: Sequence[Point]) -> bool:
        """Whether a link that goes through these points passes over a name, with a line or a reroute."""
        points = np.array(way)
        low, high = around(self.names, DISC)
        found = ((points[:, None] > low) & (points[:, None] < high)).all(-1).any()
        low, high = around(self.names, NEAR)
        for start, end in self._ends(link):
            curve = np.concatenate(drawn([start, *points, end]))
            found = found or ((curve[:, None] > low) & (curve[:, None] < high)).all(-1).any()
        return bool(found)

    def take(self, points: Sequence[Point]) -> None:
        """No other reroute may stand at these points."""
        for point in points:
            self.free &= np.hypot(*(self.spots - point).T) >= APART

    def _way(self, link: Link, free: np.ndarray) -> list[Point]:
        ends = self._ends(link)
        points = np.concatenate([ends.mean(0), self.spots])
        visits: Counter[int] = Counter()
        heap = [_Way(0.0, 0.0, (0,))]
        while heap:
            way = heapq.heappop(heap)
            last = way.points[-1]
            if visits[last] >= VISITS or not self._is_clear(points, way.points, ends, link):
                continue
            if last == 1:
                chosen = [(float(x), float(y)) for x, y in points[list(way.points[1:-1])]]
                self.take(chosen)
                return chosen
            visits[last] += 1
            for step in self._steps(points, way, link, free):
                heapq.heappush(heap, step)
        return []

    def _steps(self, points: np.ndarray, way: _Way, link: Link, free: np.ndarray) -> list[_Way]:
        """The way and one more point that is seen from its last."""
        last = way.points[-1]
        here, left = (np.hypot(*(points - points[one]).T) for one in (last, 1))
        if last == 0:
            in_sight = self._in_sight(points[0], self._own(link)[0])
        else:
            if last - 2 not in self.sights:
                self.sights[last - 2] = self._in_sight(points[last])
            in_sight = self.sights[last - 2]
        # Whether the slot is in sight, which lies inside its node, shows when its curve is looked at.
        steps = np.concatenate([[False, last != 0], in_sight & free & (len(way.points) <= MOST)])
        chosen = np.flatnonzero(steps & (here > APART))
        lengths = way.length + here[chosen] + EACH * (chosen != 1)
        numbers = zip(chosen.tolist(), lengths.tolist(), (lengths + left[chosen]).tolist(), strict=True)
        return [_Way(least, length, (*way.points, i)) for i, length, least in numbers]

    def _in_sight(self, point: np.ndarray, through: int | None = None) -> np.ndarray:
        """Which spots are seen from a point in a straight line, also through one node."""
        across = self.spots - point
        across = np.where(across == 0, 1e-9, across)[:, None]  # (spots, 1, 2)
        sides = np.stack([(self.low - point) / across, (self.high - point) / across])
        enters, leaves = (
            sides.min(0).max(-1),
            sides.max(0).min(-1),
        )  # (spots, boxes), 0 at the point and 1 at the spot
        behind = (enters < leaves) & (enters < 1) & (leaves > 0)
        if through is not None:
            behind[:, through] = False
        return ~behind.any(1)

    def _is_clear(self, points: np.ndarray, way: tuple[int, ...], ends: np.ndarray, link: Link) -> bool:
        """Whether the curves of a way, but for the last, whose end no next point turns yet, keep clear of nodes."""
        finished = way[-1] == 1
        if len(way) < 3:
            return not finished
        for start, end in ends:
            through = [start, *(points[i] for i in way[1:-1]), end if finished else points[way[-1]]]
            legs = drawn(through, finished)
            if any(self._is_behind(legs[which], link) for which in ((-2, -1) if finished else (-1,))):
                return False
        return True

    def _is_behind(self, curve: np.ndarray, link: Link) -> bool:
        low, high = self.low.copy(), self.high.copy()
        source, target = self._own(link)
        high[source, 0] -= SLOT
        low[target, 0] += SLOT
        near = ((low < curve.max(0)) & (high > curve.min(0))).all(1)
        return bool(((curve[:, None] > low[near]) & (curve[:, None] < high[near])).all(-1).any())

    def _own(self, link: Link) -> tuple[int, int]:
        which = self.links.links.index(link)
        return int(self.links.source[which]), int(self.links.target[which])

    def _ends(self, link: Link) -> np.ndarray:
        """Where a link leaves and arrives in each renderer: (renderers, 2, 2)."""
        source, target = self._own(link)
        return np.array(link.ends) + np.stack([self.boxes[source, :2], self.boxes[target, :2]])

    def _spots(self) -> np.ndarray:
        """Where a reroute may stand: around the corners of nodes and names and beside linked slots, outside of them all."""
        left, top = self.boxes[:, 0], self.boxes[:, 1] - TITLE
        right, bottom = left + self.boxes[:, 2], self.boxes[:, 1] + self.boxes[:, 3]
        found = []
        for beside, above in itertools.product(BESIDE, ABOVE):
            for x, y in itertools.product((left - beside, right + beside), (top - above, bottom + above)):
                found.append(np.stack([x, y], 1))
        for link in self.links.links:
            ((_, y), (_, v)), (source, target) = self._ends(link).mean(0), self._own(link)
            found += [
                np.array([[right[source] + beside, y], [left[target] - beside, v]]) for beside in BESIDE
            ]
        left, top, width, height = self.names.T
        for x, above in itertools.product((left - BESIDE_NAME, left + width + BESIDE_NAME), ABOVE_NAME):
            found.append(np.stack([x, top - above], 1))
            found.append(np.stack([x, top + height + BELOW_NAME], 1))
        spots = np.concatenate(found)
        corners = zip(insides(self.boxes, -10), around(self.names, DISC + 1), strict=True)
        low, high = (np.concatenate(both) for both in corners)
        inside = np.any(np.all((spots[:, None] > low) & (spots[:, None] < high), axis=-1), axis=1)
        return np.unique(np.round(spots[~inside]), axis=0)


def drawn(through: list[np.ndarray], finished: bool = True) -> list[np.ndarray]:
    """The curves that LiteGraph draws through a slot, reroutes and a slot; (points, 2) each.

    Args:
        finished: the last point is a slot; otherwise a reroute, and the curve to it is left out.
    """
    legs = []
    after = None  # the handle with which a curve leaves the point before
    for before, here, then in zip(through, through[1:], through[2:], strict=False):
        reach = math.dist(before, here)
        turn = _turn(before, here, then)
        first = after if after is not None else np.array([HANDLE * reach, 0.0])
        back = min(MOST_HANDLE, HANDLE * reach)
        legs.append(curves(before, before + first, here - back * turn, here))
        after = min(MOST_HANDLE, HANDLE * math.dist(here, then)) * turn
    if finished:
        start, end = through[-2], through[-1]
        handle = np.array([HANDLE * math.dist(start, end), 0.0])
        first = after if after is not None else handle
        legs.append(curves(start, start + first, end - handle, end))
    return legs


def _turn(before: np.ndarray, here: np.ndarray, then: np.ndarray) -> np.ndarray:
    """The direction in which LiteGraph leads a link through a reroute: halfway between where it comes from and goes to."""
    came = math.atan2(here[1] - before[1], here[0] - before[0])
    goes = math.atan2(then[1] - here[1], then[0] - here[0])
    half = (came - goes) * 0.5
    if abs(half) > math.pi / 2:
        half += math.pi
    return np.array([math.cos(came - half), math.sin(came - half)])
