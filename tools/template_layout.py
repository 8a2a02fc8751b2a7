"""Where the nodes of a template stand: groups of columns on up to three shelves, as large on the screen as they fit.

ComfyUI shows a template that was just opened whole, with a quarter of the window as margin. So layouts are sought that are
shown large in a window of ``WINDOW`` and have few links behind nodes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

Box = tuple[float, float, float, float]
"""Left, top, width, height; of a node without its title, which stands above."""

WINDOW = (1920, 1080)
SHOWN = 0.75
"""The part of the window that ComfyUI fills with a template (``fitToBounds``)."""
TITLE = 34
GAP = 28
"""Between nodes; Nodes 2.0 draws a node's error and footer into it."""
GUTTER = 56
"""Between columns, for the links."""
MARGIN = 20
GROUP_GAP = 24
LARGE_ENOUGH = 0.59
"""ComfyUI draws texts from 8 / 14 on; beyond this scale, fewer links behind nodes count more than size."""
STARTS, TRIES = 6, 700
INSIDE = 4
"""Pixels from its edge on that a link counts as behind a node."""

# In the order of reading: a group's name, its colour, and its nodes by title or class.
GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Models": (
        "#3f5159",
        (
            "LoadImage",
            "ImageBatch",
            "LLMGA_LoadHistory",
            "Load CLIP (chat)",
            "CLIPLoader",
            "LLMGA_HostLanguageModel",
            "LLMGA_ModelLoader",
            "LLMGA_Endpoint",
            "CheckpointLoaderSimple",
            "UNETLoader",
            "VAELoader",
            "ControlNetLoader",
            "LLMGA_GILLLoader",
            "LLMGA_PictureIndex",
            "LLMGA_UNetLoader",
            "The UNet",
            "LLMGA_DiffRIRLoader",
            "ModelSamplingAuraFlow",
            "CFGNorm",
        ),
    ),
    "Mask": ("#5a4a4a", ("LLMGA_PrepareMask", "ImagePadForOutpaint", "LLMGA_CropForPainting")),
    "Conversation": (
        "#5c4a72",
        (
            "LLMGA Chat",
            "LLMGA Chat per Picture",
            "LLMGA Caption Folder",
            "What was captioned",
            "First turn",
            "Second turn",
            "Next turn",
            "LLMGA_GILLChat",
            "LLMGA_ScenePlan",
            "LLMGA_SceneAssess",
            "Which descriptions agree",
            "Readout",
            "Retrieved",
            "LLMGA Edit Instruction",
            "First edit",
            "Second edit",
            "LLMGA_SaveHistory",
            "Before",
            "After",
            "Instruction",
            "Prompt",
            "Prompts",
            "Page texts",
        ),
    ),
    "Conditioning": (
        "#4a6350",
        (
            "FluxKontextImageScale",
            "LLMGA_LongCLIPEncode",
            "What to change",
            "Negative prompt",
            "Nothing to avoid",
            "CLIPTextEncode",
            "ConditioningZeroOut",
            "FluxKontextMultiReferenceLatentMethod",
            "Tokens and chunks",
            "Canny",
            "Edges",
            "ControlNetApplyAdvanced",
        ),
    ),
    "Edit": (
        "#4a5f63",
        (
            "LLMGA_Invert",
            "LLMGA_PromptToPromptOptions",
            "LLMGA_AttentionMaps",
            "Where the words are",
            "Inversion Edit",
            "First Inversion Edit",
            "After the first edit",
            "Second Inversion Edit",
            "What was kept",
            "LLMGA_FlowEdit",
            "How it was edited",
        ),
    ),
    "Painting": (
        "#6b5a3e",
        (
            "InpaintModelConditioning",
            "VAEEncode",
            "EmptyLatentImage",
            "EmptySD3LatentImage",
            "EmptyChromaRadianceLatentImage",
            "EmptyFlux2LatentImage",
            "RandomNoise",
            "KSamplerSelect",
            "Flux2Scheduler",
            "BasicScheduler",
            "CFGGuider",
            "KSampler",
            "SamplerCustomAdvanced",
            "VAEDecode",
            "LLMGA_SceneSynthesis",
            "How it was painted",
        ),
    ),
    "Check": (
        "#63564a",
        ("LLMGA Judge", "What is wrong", "Second Judge", "ComfySwitchNode"),
    ),
    "Restore": (
        "#4b5a3e",
        (
            "LLMGA_DiffRIRRestore",
            "What was restored",
            "LLMGA_StitchPainting",
            "LLMGA_KeepTheRest",
            "What was kept",
            "What was changed",
            "LLMGA_SeamReport",
            "Seam",
            "Difference",
            "Where the seam is",
        ),
    ),
    "Result": (
        "#3e5a4b",
        (
            "SaveImage",
            "First picture",
            "Changed picture",
            "The first picture",
            "Both",
            "LLMGA_ScenePreview",
            "Boxes, masks and attention",
        ),
    ),
}
NOTE = "MarkdownNote"


@dataclass(frozen=True)
class Group:
    """Nodes that stand together: a name, a colour, and node ids in their order."""

    name: str
    colour: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Link:
    """From one node to another; where it leaves and arrives, from the left upper corner of each."""

    source: str
    target: str
    leaves: tuple[float, float]
    arrives: tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """Places of nodes and groups.

    Attributes:
        places: node id -> box.
        frames: group -> box, its title inside.
        scale: at which a window of ``WINDOW`` shows the whole.
        behind: how many links pass behind a node.
    """

    places: dict[str, Box]
    frames: dict[Group, Box]
    scale: float
    behind: int

    @property
    def cost(self) -> float:
        """The lower, the better."""
        return self.behind + 300 * max(0.0, LARGE_ENOUGH - self.scale) - self.scale


def grouped(nodes: Sequence[dict[str, Any]]) -> list[Group]:
    """The groups that a workflow has, numbered.

    Args:
        nodes: each with "id", "type" and "title".

    Raises:
        ValueError: a node belongs to no group.
    """
    groups, placed = [], {str(node["id"]) for node in nodes if node["type"] == NOTE}
    for name, (colour, keys) in GROUPS.items():
        members = [
            str(node["id"])
            for key in keys
            for node in nodes
            if key in (node["title"], node["type"]) and str(node["id"]) not in placed
        ]
        members = list(dict.fromkeys(members))
        placed.update(members)
        if members:
            groups.append(Group(f"{len(groups) + 1} {name}", colour, tuple(members)))
    lost = [node["title"] for node in nodes if str(node["id"]) not in placed]
    if lost:
        raise ValueError(f"GROUPS has no place for {', '.join(lost)}")
    return groups


@dataclass(frozen=True)
class Plan:
    """What a layout is made from: the order of the nodes and the highest column in each group, the widest shelf."""

    groups: tuple[Group, ...]
    heights: tuple[int, ...]
    width: int

    def changed(self, random: Random) -> Plan:
        """One thing of it otherwise."""
        which = random.randrange(len(self.groups))
        group = self.groups[which]
        match random.randrange(4):
            case 0:
                return replace(self, width=random.randrange(1200, 2800, 60))
            case 1 if len(group.nodes) > 1:
                nodes = list(group.nodes)
                nodes.insert(random.randrange(len(nodes)), nodes.pop(random.randrange(len(nodes))))
                groups = (*self.groups[:which], replace(group, nodes=tuple(nodes)), *self.groups[which + 1 :])
                return replace(self, groups=groups)
            case 2:
                height = random.randrange(300, 1400, 40)
                return replace(self, heights=(height,) * len(self.groups))
            case _:
                height = random.randrange(200, 1400, 40)
                heights = (*self.heights[:which], height, *self.heights[which + 1 :])
                return replace(self, heights=heights)


def best_layout(
    groups: Sequence[Group], note: str, sizes: dict[str, tuple[float, float]], links: Sequence[Link]
) -> Layout:
    """The best layout of ``STARTS`` searches of ``TRIES`` layouts, each one change away from the best so far.

    Always the same for the same nodes.

    Args:
        note: the id of the note, which stands first.
        sizes: width and height of each node, the larger of both renderers.
    """
    searches = (_search(groups, note, sizes, links, Random(seed)) for seed in range(STARTS))
    return min(searches, key=lambda layout: layout.cost)


def _search(
    groups: Sequence[Group],
    note: str,
    sizes: dict[str, tuple[float, float]],
    links: Sequence[Link],
    random: Random,
) -> Layout:
    first = random.randrange(500, 1100)
    plan = Plan((Group("", "", (note,)), *groups), (first,) * (len(groups) + 1), 1800)
    best, least = _layout(plan, sizes), float("inf")
    for _ in range(TRIES):
        tried = plan.changed(random)
        layout = _layout(tried, sizes)
        if layout.cost > least:  # too small already
            continue
        layout = replace(layout, behind=sum(is_behind(link, layout.places) for link in links))
        if layout.cost <= least:
            plan, best, least = tried, layout, layout.cost
    return best


def _layout(plan: Plan, sizes: dict[str, tuple[float, float]]) -> Layout:
    """With no links counted yet."""
    places, frames = _shelves(plan, sizes)
    _, _, width, height = bounds(places.values())
    scale = SHOWN * min(WINDOW[0] / width, WINDOW[1] / height)
    return Layout(places, {g: box for g, box in frames.items() if g.name}, scale, 0)


def _shelves(plan: Plan, sizes: dict[str, tuple[float, float]]) -> tuple[dict[str, Box], dict[Group, Box]]:
    """Groups beside each other, in columns no higher than planned, on shelves no wider than planned."""
    places: dict[str, Box] = {}
    frames: dict[Group, Box] = {}
    left, top, shelf = 0.0, 0.0, 0.0
    for group, height in zip(plan.groups, plan.heights, strict=True):
        columns = _columns(group.nodes, sizes, height)
        wide = sum(max(sizes[one][0] for one in column) for column in columns)
        wide += GUTTER * (len(columns) - 1) + 2 * MARGIN
        if left and left + wide > plan.width:
            left, top, shelf = 0.0, top + shelf + GROUP_GAP, 0.0
        tall = max(_height(column, sizes) for column in columns) + TITLE + 2 * MARGIN
        x = left + MARGIN
        for column in columns:
            y = top + TITLE + MARGIN + TITLE
            for one in column:
                places[one] = (x, y, *sizes[one])
                y += sizes[one][1] + TITLE + GAP
            x += max(sizes[one][0] for one in column) + GUTTER
        frames[group] = (left, top, wide, tall)
        shelf = max(shelf, tall)
        left += wide + GROUP_GAP
    return places, frames


def _columns(nodes: Sequence[str], sizes: dict[str, tuple[float, float]], height: float) -> list[list[str]]:
    columns: list[list[str]] = [[]]
    for one in nodes:
        if columns[-1] and _height([*columns[-1], one], sizes) > height:
            columns.append([])
        columns[-1].append(one)
    return columns


def _height(column: Sequence[str], sizes: dict[str, tuple[float, float]]) -> float:
    return sum(sizes[one][1] + TITLE for one in column) + GAP * (len(column) - 1)


def bounds(boxes: Any) -> Box:
    """The box around boxes and their titles."""
    boxes = list(boxes)
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes) - TITLE
    right = max(x + w for x, _, w, _ in boxes)
    bottom = max(y + h for _, y, _, h in boxes)
    return left, top, right - left, bottom - top


def overlapping(boxes: dict[str, Box], title: float = TITLE) -> list[tuple[str, str]]:
    """Pairs of nodes that lie over each other, titles included."""
    return [
        (a, b)
        for (a, (x, y, w, h)), (b, (u, v, s, t)) in itertools.combinations(boxes.items(), 2)
        if x < u + s and u < x + w and y - title < v + t and v - title < y + h
    ]


def is_behind(link: Link, places: dict[str, Box]) -> bool:
    """Whether the curve that ComfyUI draws for a link passes behind a node that is neither end of it."""
    points = list(curve(link, places))
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    top, bottom = min(y for _, y in points), max(y for _, y in points)
    near = [
        (a + INSIDE, b - TITLE + INSIDE, a + w - INSIDE, b + h - INSIDE)
        for one, (a, b, w, h) in places.items()
        if a < right
        and left < a + w
        and b - TITLE < bottom
        and top < b + h
        and one not in (link.source, link.target)
    ]
    return any(a < x < c and b < y < d for a, b, c, d in near for x, y in points)


def curve(link: Link, places: dict[str, Box], points: int = 14) -> Iterator[tuple[float, float]]:
    """Points of LiteGraph's spline: a cubic Bézier curve whose handles are a quarter of the distance long."""
    x0, y0 = places[link.source][0] + link.leaves[0], places[link.source][1] + link.leaves[1]
    x3, y3 = places[link.target][0] + link.arrives[0], places[link.target][1] + link.arrives[1]
    handle = 0.25 * ((x3 - x0) ** 2 + (y3 - y0) ** 2) ** 0.5
    x1, x2 = x0 + handle, x3 - handle
    for i in range(1, points):
        t = i / points
        a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
        yield a * x0 + b * x1 + c * x2 + d * x3, (a + b) * y0 + (c + d) * y3
