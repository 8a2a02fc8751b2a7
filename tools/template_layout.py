"""Where the nodes of a template stand: groups of columns on up to three shelves, as large on the screen as they fit.

ComfyUI shows a template that was just opened whole, with a quarter of the window as margin. So layouts are sought that are
shown large in a window of ``WINDOW`` and have few links behind nodes; reroutes lead the others around.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from operator import add
from random import Random
from typing import Any, NamedTuple

import numpy as np

from .template_groups import Group
from .template_links import TITLE, Box, Link, Links, Point
from .template_reroutes import Router

WINDOW = (1920, 1080)
SHOWN = 0.75
"""The part of the window that ComfyUI fills with a template (``fitToBounds``)."""
GAP = 28
"""Between nodes; Nodes 2.0 draws a node's error and footer into it."""
GUTTER = 56
"""Between columns, for the links."""
MARGIN = 20
GROUP_GAP = 18
LETTER = 13
"""Pixels of a letter of a group's name."""
LARGE_ENOUGH = 0.59
"""Beyond this scale, fewer links behind nodes count more than size."""
LONG = 8000
"""Pixels of links that are as bad as one link behind a node."""
AGAINST = 0.4
"""Of a link behind a node: what one pair of nodes costs that stands against the order of reading."""
READABLE, TOO_SMALL = 0.573, 3000
"""Below this scale, each unit of it costs so much: ComfyUI's classic renderer draws no text below 8 / 14 = 0.5714."""
PADDING = (20, 16)
"""Pixels that ComfyUI adds to a template's width and height when it fits the whole into the window."""
STARTS, TRIES = 2, 5000
CLIMBS, STEPS = 4, 6000
"""Of the search for a plan to begin with."""
HEAT = 1.5
"""By how many links a change may be worse at the start of a search."""


@dataclass(frozen=True)
class Layout:
    """Places of nodes and groups.

    Attributes:
        places: node id -> box.
        frames: group -> box, its title inside.
        scale: at which a window of ``WINDOW`` shows the whole.
        behind: how many links pass behind a node.
        length: of all links together.
        against: how many pairs of nodes stand against the order of reading.
        reroutes: the points through which a link goes, by ``Link.key``.
    """

    places: dict[str, Box]
    frames: dict[Group, Box]
    scale: float
    behind: int
    length: float = 0.0
    against: int = 0
    reroutes: dict[tuple[str, int, str, int], list[Point]] = field(default_factory=dict)

    @property
    def cost(self) -> float:
        """The lower, the better."""
        small = 300 * max(0.0, LARGE_ENOUGH - self.scale) + TOO_SMALL * max(0.0, READABLE - self.scale)
        return self.behind + AGAINST * self.against + self.length / LONG + small - self.scale


@dataclass(frozen=True)
class Plan:
    """What a layout is made from.

    Attributes:
        groups: with their nodes in the order in which they fill columns.
        heights: of the highest column in each group.
        below: whether a group stands below the one before it instead of beside.
        width: of the widest shelf.
    """

    groups: tuple[Group, ...]
    heights: tuple[int, ...]
    below: tuple[bool, ...]
    width: int

    @staticmethod
    def drawn(groups: Sequence[Group], random: Random) -> Plan:
        """Any plan."""
        heights = tuple(random.randrange(200, 1400, 40) for _ in groups)
        below = tuple(random.random() < 0.5 for _ in groups)
        return Plan(tuple(groups), heights, below, random.randrange(1200, 2800, 60))

    def changed(self, random: Random) -> Plan:
        """One thing of it otherwise."""
        which = random.randrange(len(self.groups))
        group = self.groups[which]
        match random.randrange(6):
            case 0:
                return replace(self, width=random.randrange(1200, 2800, 60))
            case 1 | 2 if len(group.nodes) > 1:
                nodes = list(group.nodes)
                nodes.insert(random.randrange(len(nodes)), nodes.pop(random.randrange(len(nodes))))
                return replace(self, groups=_with(self.groups, which, replace(group, nodes=tuple(nodes))))
            case 3:
                height = random.randrange(300, 1400, 40)
                return replace(self, heights=(height,) * len(self.groups))
            case 4:
                return replace(self, below=_with(self.below, which, not self.below[which]))
            case _:
                return replace(self, heights=_with(self.heights, which, random.randrange(200, 1400, 40)))


def _with(values: tuple[Any, ...], which: int, value: Any) -> tuple[Any, ...]:
    return (*values[:which], value, *values[which + 1 :])


def best_layout(
    groups: Sequence[Group],
    note: str,
    sizes: dict[str, tuple[float, float]],
    links: Sequence[Link],
    order: Sequence[tuple[str, str]] = (),
) -> Layout:
    """The best layout of ``STARTS`` searches of ``TRIES`` layouts, each one change away from the one before.

    Always the same for the same nodes.

    Args:
        note: the id of the note, which stands first.
        sizes: width and height of each node, the larger of both renderers.
        order: pairs of nodes without a link, of which the first is to be read first.
    """
    first = Group("", "", (note,))
    drawn = Links(links, list(sizes), order)
    found = [_search([first, *groups], sizes, drawn, Random(seed)) for seed in range(STARTS)]
    return rerouted(min(found, key=lambda layout: layout.cost), drawn)


def rerouted(layout: Layout, links: Links) -> Layout:
    """With reroutes for the links behind nodes and over the names of groups, where there is a way around.

    Ways that a layout has are kept where they pass over no name. A link over a name is better than one behind a node.
    """
    boxes = np.array(list(layout.places.values()))
    names = np.array([name_box(group.name, frame) for group, frame in layout.frames.items()]).reshape(-1, 4)
    router, over_names = Router(links, boxes, names), Router(links, boxes)
    kept = {
        link.key: layout.reroutes[link.key]
        for link in links.links
        if link.key in layout.reroutes and not router.is_over_a_name(link, layout.reroutes[link.key])
    }
    behind, over = links.behind(boxes), links.over(boxes, names)
    wanted = [link for link in itertools.compress(links.links, behind | over) if link.key not in kept]
    router.take(list(itertools.chain(*kept.values())))
    ways = kept | {link.key: router.way(link) for link in wanted}
    over_names.take(list(itertools.chain(*ways.values())))
    for link in itertools.compress(links.links, behind):
        ways[link.key] = ways[link.key] or over_names.way(link)
    found = {key: way for key, way in ways.items() if way}
    left = sum(link.key not in found for link in itertools.compress(links.links, behind))
    return replace(layout, behind=left, reroutes=found)


def name_box(name: str, frame: Box) -> Box:
    """Where ComfyUI writes the name of a group."""
    x, y, *_ = frame
    return x + 4, y + 7, float(LETTER * len(name)), 22.0


def _search(
    groups: Sequence[Group], sizes: dict[str, tuple[float, float]], links: Links, random: Random
) -> Layout:
    """Simulated annealing: a worse layout is gone on from the more rarely, the worse it is and the longer it lasts.

    It begins with a plan that is shown large, for single changes of a small one hardly ever lead to one.
    """
    plan = _large(groups, sizes, links, random)
    now = best = _layout(plan, sizes, links)
    for i in range(TRIES):
        tried = plan.changed(random)
        bar = now.cost - HEAT * (1 - i / TRIES) ** 2 * math.log(1 - random.random())
        layout = _layout(tried, sizes, links, bar)
        if layout.cost <= bar:
            plan, now = tried, layout
            best = min(best, now, key=lambda one: one.cost)
    return best


def _large(
    groups: Sequence[Group], sizes: dict[str, tuple[float, float]], links: Links, random: Random
) -> Plan:
    """The first plan that is large enough, or the largest of ``CLIMBS``, each improved in ``STEPS`` steps."""
    found: list[tuple[float, Plan]] = []
    for _ in range(CLIMBS):
        plan, scale = Plan.drawn(groups, random), 0.0
        for _ in range(STEPS):
            tried = plan
            for _ in range(random.randrange(1, 5)):
                tried = tried.changed(random)
            reached = _layout(tried, sizes, links, -math.inf).scale
            if reached >= LARGE_ENOUGH:
                return tried
            if reached >= scale:
                plan, scale = tried, reached
        found.append((scale, plan))
    return max(found, key=lambda one: one[0])[1]


def _layout(plan: Plan, sizes: dict[str, tuple[float, float]], links: Links, bar: float = math.inf) -> Layout:
    """The layout of a plan; its links are counted only where it costs less than ``bar`` without."""
    places, frames = _shelves(plan, sizes)
    layout = Layout(
        {one: places[one] for one in sizes},
        {group: box for group, box in frames.items() if group.name},
        shown_at(places.values()),
        0,
    )
    if layout.cost > bar:
        return layout
    behind, length = links.estimate(np.array(list(layout.places.values())))
    return replace(layout, behind=behind, length=length, against=_against(plan, links))


def _against(plan: Plan, links: Links) -> int:
    """How many pairs of nodes of one group do not stand in the order of reading: down a column, then the next column."""
    at = {one: (i, k) for i, group in enumerate(plan.groups) for k, one in enumerate(group.nodes)}
    return sum(at[first][0] == at[then][0] and at[first] > at[then] for first, then in links.order)


def _shelves(plan: Plan, sizes: dict[str, tuple[float, float]]) -> tuple[dict[str, Box], dict[Group, Box]]:
    """Groups beside or below each other, in columns no higher than planned, on shelves no wider than planned."""
    places: dict[str, Box] = {}
    frames: dict[Group, Box] = {}
    left, top, right, bottom = 0.0, 0.0, 0.0, 0.0  # of the stack that is filled; its bottom is the shelf's
    y = 0.0
    for group, height, below in zip(plan.groups, plan.heights, plan.below, strict=True):
        columns = _columns(group.nodes, sizes, height)
        wide = sum(column.width for column in columns)
        wide += GUTTER * (len(columns) - 1) + 2 * MARGIN
        if not below or not frames:
            left, y = right + GROUP_GAP if frames else 0.0, top
        if left and left + wide > plan.width:
            left, top, right = 0.0, bottom + GROUP_GAP, 0.0
            y = top
        tall = max(column.height for column in columns) + TITLE + 2 * MARGIN
        _place(columns, sizes, (left + MARGIN, y + TITLE + MARGIN), places)
        frames[group] = (left, y, wide, tall)
        y += tall + GROUP_GAP
        right, bottom = max(right, left + wide), max(bottom, y - GROUP_GAP)
    return places, frames


class _Column(NamedTuple):
    nodes: list[str]
    width: float
    height: float


def _place(
    columns: list[_Column], sizes: dict[str, tuple[float, float]], corner: Point, places: dict[str, Box]
) -> None:
    x, top = corner
    for column in columns:
        y = top + TITLE
        for one in column.nodes:
            width, height = sizes[one]
            places[one] = (x, y, width, height)
            y += height + TITLE + GAP
        x += column.width + GUTTER


def _columns(nodes: Sequence[str], sizes: dict[str, tuple[float, float]], height: float) -> list[_Column]:
    """Nodes one below the other, with their titles, in columns no higher than ``height``."""
    columns: list[_Column] = []
    column: list[str] = []
    widest = filled = 0.0
    for one in nodes:
        wide, tall = sizes[one]
        tall += TITLE
        if column and filled + tall + GAP * len(column) > height:
            columns.append(_Column(column, widest, filled + GAP * (len(column) - 1)))
            column, widest, filled = [], 0.0, 0.0
        column.append(one)
        widest, filled = max(widest, wide), filled + tall
    return [*columns, _Column(column, widest, filled + GAP * (len(column) - 1))]


def bounds(boxes: Any) -> Box:
    """The box around boxes and their titles."""
    xs, ys, widths, heights = zip(*boxes, strict=True)
    left, top = min(xs), min(ys) - TITLE
    right, bottom = max(map(add, xs, widths)), max(map(add, ys, heights))
    return left, top, right - left, bottom - top


def shown_at(boxes: Iterable[Box]) -> float:
    """The scale at which ComfyUI shows nodes that it has just opened in a window of ``WINDOW``."""
    _, _, width, height = bounds(boxes)
    return SHOWN * min(WINDOW[0] / (width + PADDING[0]), WINDOW[1] / (height + PADDING[1]))


def overlapping(boxes: dict[str, Box], title: float = TITLE) -> list[tuple[str, str]]:
    """Pairs of nodes that lie over each other, titles included."""
    return [
        (a, b)
        for (a, (x, y, w, h)), (b, (u, v, s, t)) in itertools.combinations(boxes.items(), 2)
        if x < u + s and u < x + w and y - title < v + t and v - title < y + h
    ]
