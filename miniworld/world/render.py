"""Renderer: from a scene to its pixels, with the exact masks of its objects."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from .scene import SIZES, UNIT, Scene, Thing
from .textures import backdrop, tint

Pixels = NDArray[np.floating]
Masks = NDArray[np.bool_]

PALETTE = {
    "red": (218, 38, 40),
    "orange": (247, 138, 28),
    "yellow": (252, 218, 46),
    "green": (34, 148, 66),
    "blue": (38, 84, 222),
    "purple": (142, 56, 186),
    "white": (250, 250, 250),
    "black": (36, 36, 42),
}
_MARKS = {"white": (164, 176, 202), "black": (132, 132, 144)}  # stripes and dots; cream on the others
_CREAM = (250, 250, 245)
_RIMS = {"white": (176, 182, 194), "black": (104, 104, 116)}  # a darker shade of itself for the others

_SCALE = 4  # shapes are drawn that much larger, then averaged
_PERIOD = {"small": 5.0, "medium": 6.0, "large": 6.6}  # of stripes and dots, in 1/128 of the side
_RIM = 1.0
_HOLE = 0.46  # of a ring, as a part of its width
_SHADOW_SHIFT = 2.8  # down, and away from the light
_SHADOW_BLUR = 1.5
_SHADOW = 0.45  # how dark
_SHADE = 0.11  # how much lighter the lit side of an object is, and how much darker the other
_MARGIN = 7  # around an object's box, for its shadow


@dataclass(frozen=True)
class Rendering:
    """A picture and where its objects are, in the scene's order.

    ``amodal`` and ``visible`` are (N, H, W): the pixels at least half covered by the whole object, and those of them
    that no later object covers.
    """

    image: Image.Image
    amodal: Masks
    visible: Masks


def render(scene: Scene, size: int = 128) -> Rendering:
    """Paint a scene, ``size`` pixels wide and high; the same scene gives the same bytes.

    Raises:
        ValueError: ``size`` is below 32, where nothing could be told apart.
    """
    if size < 32:
        raise ValueError(f"size is at least 32 pixels, got {size}")
    canvas = backdrop(scene.background, scene.tone, scene.backdrop, size)
    amodal = np.zeros((len(scene.objects), size, size), dtype=bool)
    for thing, mask in zip(scene.objects, amodal, strict=True):
        _paint(canvas, mask, thing, scene)
    visible = amodal.copy()
    for i in range(len(amodal) - 1):
        visible[i] &= ~amodal[i + 1 :].any(axis=0)
    return Rendering(Image.fromarray(np.rint(canvas).astype(np.uint8)), amodal, visible)


def box(mask: Masks) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a mask (H, W), the last two exclusive."""
    x, y = (np.flatnonzero(mask.any(axis=axis)) for axis in (0, 1))
    return int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1


def changed(before: Scene, after: Scene, size: int = 128) -> Masks:
    """(size, size): where the pictures of two scenes can differ; everywhere else they are equal to the bit.

    An object counts with its soft edge and its shadow, a background with all that no object covers completely. The
    objects that the scenes share have to come in the same order.
    """
    shared = set(before.objects) & set(after.objects)
    if (before.tone, before.light) != (after.tone, after.light):
        return np.ones((size, size), dtype=bool)
    mask = np.zeros((size, size), dtype=bool)
    if (before.background, before.backdrop) != (after.background, after.backdrop):
        mask[:] = True
        for thing in shared:
            window, sprite = _place(thing, before.light, size)
            mask[window] &= sprite.cover < 1
    for thing in {*before.objects, *after.objects} - shared:
        window, sprite = _place(thing, before.light, size)
        mask[window] |= (sprite.cover > 0) | (sprite.shadow > 0)
    return mask


@dataclass(frozen=True)
class _Sprite:
    """An object without its colours: (h, w) float32 each, 0 .. 1, ``shade`` -1 .. 1 from the dark to the lit side."""

    cover: Pixels
    rim: Pixels
    marks: Pixels
    shadow: Pixels
    shade: Pixels


def _paint(canvas: Pixels, mask: Masks, thing: Thing, scene: Scene) -> None:
    window, sprite = _place(thing, scene.light, len(canvas))
    colour = np.array(PALETTE[thing.colour], dtype=np.float32)
    marks = np.array(_MARKS.get(thing.colour, _CREAM), dtype=np.float32)
    rim = np.array(_RIMS.get(thing.colour, 0.72 * colour), dtype=np.float32)
    body = colour + (marks - colour) * sprite.marks[..., None]
    body += (rim - body) * sprite.rim[..., None]
    body *= tint(scene.tone) * (1 + _SHADE * sprite.shade[..., None])
    ground = canvas[window] * (1 - _SHADOW * sprite.shadow[..., None])
    cover = sprite.cover[..., None]
    canvas[window] = ground * (1 - cover) + np.minimum(body, 255) * cover
    mask[window] = sprite.cover >= 0.5


def _place(thing: Thing, light: str, size: int) -> tuple[tuple[slice, slice], _Sprite]:
    """The rows and columns of the picture that an object and its shadow take, and the sprite cut to them."""
    unit = size / UNIT
    half = math.ceil((SIZES[thing.size] / 2 + _MARGIN) * unit)
    side = 2 * half + 1
    x, y = (step * unit for step in thing.centre)
    left, top = math.floor(x) - half, math.floor(y) - half
    sprite = _sprite(thing.shape, thing.size, thing.texture, light, unit, x - left, y - top, side)
    rows, columns = (slice(max(0, -start), min(side, size - start)) for start in (top, left))
    window = (slice(top + rows.start, top + rows.stop), slice(left + columns.start, left + columns.stop))
    return window, _Sprite(**{name: layer[rows, columns] for name, layer in vars(sprite).items()})


@lru_cache(maxsize=2048)
def _sprite(
    shape: str, size: str, texture: str, light: str, unit: float, x: float, y: float, side: int
) -> _Sprite:
    """An object whose centre is (x, y) in a square of ``side`` pixels."""
    zoom = unit * _SCALE
    # PIL fills whole pixels from vertex to vertex, both included: half a pixel too far right, down and out.
    cx, cy, radius = x * _SCALE - 0.5, y * _SCALE - 0.5, SIZES[size] / 2 * zoom - 0.5
    cover, rim, marks, shifted = (Image.new("L", (side * _SCALE, side * _SCALE)) for _ in range(4))
    for width, fill in ((radius, 255), *([(_HOLE * radius, 0)] if shape == "ring" else [])):
        path = [(cx + width * px, cy + width * py) for px, py in _OUTLINES[shape]]
        ImageDraw.Draw(cover).polygon(path, fill=fill)
        ImageDraw.Draw(rim).line([*path, *path[:2]], fill=255, width=round(2 * _RIM * zoom), joint="curve")
    _draw_marks(ImageDraw.Draw(marks), texture, cx, cy, radius, _PERIOD[size] * zoom)
    lit = -1 if light == "left" else 1
    shifted.paste(cover, (round(-lit * _SHADOW_SHIFT * zoom), round(_SHADOW_SHIFT * zoom)))
    down, right = np.mgrid[:side, :side].astype(np.float32) + 0.5
    return _Sprite(
        cover=_coverage(cover.reduce(_SCALE)),
        rim=_coverage(rim.reduce(_SCALE)),
        marks=_coverage(marks.reduce(_SCALE)),
        shadow=_coverage(shifted.reduce(_SCALE).filter(ImageFilter.GaussianBlur(_SHADOW_BLUR * unit))),
        shade=np.clip((lit * (right - x) - (down - y)) / (1.4 * SIZES[size] / 2 * unit), -1, 1),
    )


def _coverage(layer: Image.Image) -> Pixels:
    return np.asarray(layer, dtype=np.float32) / 255


def _draw_marks(
    draw: ImageDraw.ImageDraw, texture: str, x: float, y: float, radius: float, period: float
) -> None:
    """Diagonal stripes, or dots in a staggered grid, around the centre."""
    steps = range(-math.ceil(2 * radius / period), math.ceil(2 * radius / period) + 1)
    if texture == "striped":
        for step in steps:
            at = x + step * period * math.sqrt(2)
            draw.line(
                (at - radius, y + radius, at + radius, y - radius), fill=255, width=round(0.42 * period)
            )
    elif texture == "dotted":
        dot = 0.29 * period
        for row in steps:
            for column in steps:
                cx, cy = x + (column + row % 2 / 2) * period * 1.05, y + row * period * 0.9
                draw.ellipse((cx - dot, cy - dot, cx + dot, cy + dot), fill=255)


def _fit(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The outline moved and scaled until its box, the longer side, is -1 .. 1."""
    xs, ys = zip(*points, strict=True)
    scale = 2 / max(max(xs) - min(xs), max(ys) - min(ys))
    return [((x - (max(xs) + min(xs)) / 2) * scale, (y - (max(ys) + min(ys)) / 2) * scale) for x, y in points]


def _spiked(corners: int, inner: float) -> list[tuple[float, float]]:
    turns = [(math.pi * i / corners, 1 if i % 2 == 0 else inner) for i in range(2 * corners)]
    return [(radius * math.sin(turn), -radius * math.cos(turn)) for turn, radius in turns]


def _heart() -> list[tuple[float, float]]:
    turns = [2 * math.pi * i / 64 for i in range(64)]
    return [
        (
            16 * math.sin(t) ** 3,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)),
        )
        for t in turns
    ]


_ROUND = [(math.cos(math.pi * i / 36), math.sin(math.pi * i / 36)) for i in range(72)]
_ARM = 0.36
_OUTLINES = {
    "circle": _ROUND,
    "ring": _ROUND,
    "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "triangle": _fit([(0, -1), (1, 0.8), (-1, 0.8)]),
    "star": _fit(_spiked(5, 0.45)),
    "heart": _fit(_heart()),
    "diamond": [(0, -1), (0.78, 0), (0, 1), (-0.78, 0)],
    "cross": [
        (-_ARM, -1),
        (_ARM, -1),
        (_ARM, -_ARM),
        (1, -_ARM),
        (1, _ARM),
        (_ARM, _ARM),
        (_ARM, 1),
        (-_ARM, 1),
        (-_ARM, _ARM),
        (-1, _ARM),
        (-1, -_ARM),
        (-_ARM, -_ARM),
    ],
}
