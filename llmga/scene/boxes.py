"""Boxes as language models and other programs write them: which four numbers, in which order, on which grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from .plan import SMALLEST_SIDE, SceneBox

Order = Literal["size", "corners", "element", "list"]
"""x, y, width, height; left, top, right, bottom; ComfyUI's element: ymin, xmin, ymax, xmax; or a bare list, which is the
first unless only the second fits into the picture."""

GRIDS = (100.0, 512.0, 1000.0, 1024.0)
"""Percent, the pixels that RFNet asks for, those of several vision models, and SDXL's pixels."""
ELEMENT_GRID = 1000.0
OUTSIDE = 1.25
"""A box may leave the picture so far without another grid being meant."""
_CORNERS = (
    ("left", "top", "right", "bottom"),
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
)
_SIZES = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("left", "top", "width", "height"))
_KEYS: tuple[tuple[str, Order], ...] = (
    ("box", "list"),
    ("bounding_box", "list"),
    ("bounding box", "list"),
    ("bbox_2d", "corners"),
    ("bbox", "element"),
    ("box_2d", "element"),  # Gemini's
    ("rect", "list"),
    ("position", "list"),
)
FARTHEST = 16384
"""Pixels: ComfyUI's largest canvas. A number beyond it belongs to no picture."""


class RawBox(NamedTuple):
    """Four numbers and what they are."""

    order: Order
    numbers: tuple[float, float, float, float]


def read_boxes(entries: Sequence[Mapping[str, Any]]) -> tuple[list[SceneBox | str], list[str]]:
    """The boxes of a reply's objects: those in parts of the picture, those of ComfyUI's elements, and all others on one
    grid. So a single box that was miscounted does not change the others.

    Returns:
        For each object its box, or what is wrong with it; and notes on how they were read.
    """
    raw = [_raw(entry) for entry in entries]
    kinds: dict[_Kind, list[int]] = {}
    for number, one in enumerate(raw):
        if isinstance(one, RawBox):
            kinds.setdefault(_kind(one), []).append(number)
    notes: list[str] = []
    corners: dict[int, tuple[float, ...]] = {}
    for kind, numbers in kinds.items():
        resolved, how = _resolved([one for i in numbers if isinstance(one := raw[i], RawBox)])
        found = [_corners(one) for one in resolved]
        grid, note = _grid(kind, found)
        names = " and of ".join(_who(entries[i]) for i in numbers)
        whose = "the boxes were" if len(kinds) == 1 else f"the box of {names} was"
        notes += [f"{whose} read as {said}" for said in (how, note) if said]
        corners |= {i: tuple(value / grid for value in one) for i, one in zip(numbers, found, strict=True)}
    boxes: list[SceneBox | str] = []
    for number, (entry, one) in enumerate(zip(entries, raw, strict=True)):
        if isinstance(one, str):
            boxes.append(one)
            continue
        left, top, right, bottom = corners[number]
        if right - left <= 0 or bottom - top <= 0:
            boxes.append('its "box" has no width or no height')
            continue
        if right <= 0 or bottom <= 0 or left >= 1 or top >= 1:
            boxes.append('its "box" lies outside of the picture')
            continue
        box = SceneBox.clamped(left, top, right - left, bottom - top)
        moved = max(abs(box.x - left), abs(box.y - top), abs(box.right - right), abs(box.bottom - bottom))
        if moved > SMALLEST_SIDE / 2:
            notes.append(f"{_who(entry)}: its box was clamped into the picture")
        boxes.append(box)
    return boxes, notes


_Kind = Literal["parts", "elements", "others"]


def _kind(box: RawBox) -> _Kind:
    largest = max(map(abs, box.numbers))
    if largest <= OUTSIDE:
        return "parts"
    return "elements" if box.order == "element" and largest <= OUTSIDE * ELEMENT_GRID else "others"


def _who(entry: Mapping[str, Any]) -> str:
    return str(entry.get("name", "an object"))[:40]


def _resolved(raw: Sequence[RawBox]) -> tuple[list[RawBox], str]:
    """Bare lists as sizes, or as corners where sizes would leave the grid that all numbers fit; and a note on it."""
    lists = [one.numbers for one in raw if one.order == "list"]
    largest = max((number for numbers in lists for number in numbers), default=0.0)
    grid = next((side for side in (1.0, *GRIDS) if largest <= side), largest)
    leaves = any(max(a + c, b + d) > 1.05 * grid for a, b, c, d in lists)
    as_corners = leaves and all(c > a >= 0 and d > b >= 0 for a, b, c, d in lists)
    order: Order = "corners" if as_corners else "size"
    note = "left, top, right, bottom, for as widths and heights they leave the picture"
    return [one._replace(order=order) if one.order == "list" else one for one in raw], note * as_corners


def _raw(entry: Mapping[str, Any]) -> RawBox | str:
    lower = {str(key).casefold(): value for key, value in entry.items()}
    for key, order in _KEYS:
        if key in lower:
            return _raw_of(lower[key], order)
    found = _raw_of(lower, "size")
    return 'it has no "box" of x, y, width and height' if isinstance(found, str) else found


def _raw_of(value: Any, order: Order) -> RawBox | str:
    if isinstance(value, Mapping):
        lower = {str(key).casefold(): each for key, each in value.items()}
        for names, found in [*((n, "corners") for n in _CORNERS), *((n, "size") for n in _SIZES)]:
            if all(name in lower for name in names):
                return _checked([lower[name] for name in names], "corners" if found == "corners" else "size")
        return f'its "box" holds {", ".join(map(str, lower))[:60]} instead of x, y, width and height'
    if isinstance(value, (list, tuple)):
        nested = (one if isinstance(one, (list, tuple)) else [one] for one in value[:5])
        flat = [each for one in nested for each in one[:5]]  # [[left, top], [right, bottom]] too
        if len(flat) != 4:
            return f'its "box" holds {len(flat)} numbers instead of four (x, y, width, height)'
        return _checked(flat, order)
    return f'its "box" is {str(value)[:40]!r} instead of four numbers (x, y, width, height)'


def _checked(values: Sequence[Any], order: Order) -> RawBox | str:
    numbers = []
    for value in values:
        if isinstance(value, str):
            try:
                value = float(value.strip().removesuffix("px").removesuffix("%"))
            except ValueError:
                return f'its "box" holds {value[:20]!r}, which is not a number'
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return f'its "box" holds {str(value)[:20]!r}, which is not a number'
        if not math.isfinite(value):
            return 'its "box" holds a number that is not finite'
        numbers.append(float(value))
    a, b, c, d = numbers
    if max(map(abs, numbers)) > FARTHEST:
        return f'its "box" holds {max(numbers, key=abs):g}, which is beyond any picture'
    if order == "element" and max(map(abs, numbers)) <= OUTSIDE:
        order = "list"  # elements count to 1000: these are parts of the picture
    return RawBox(order, (a, b, c, d))


def _corners(box: RawBox) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) on the box's own grid."""
    a, b, c, d = box.numbers
    if box.order == "element":
        return min(b, d), min(a, c), max(b, d), max(a, c)
    if box.order == "corners":
        return min(a, c), min(b, d), max(a, c), max(b, d)
    return a, b, a + c, b + d


def _grid(kind: _Kind, corners: Sequence[tuple[float, float, float, float]]) -> tuple[float, str]:
    """The side of the grid on which boxes of a kind are counted, for others the first of ``GRIDS`` that they fit; and a
    note on it."""
    if kind == "parts":
        return 1.0, ""
    if kind == "elements":
        return ELEMENT_GRID, f"top, left, bottom, right on a grid of {ELEMENT_GRID:g}"
    largest = max(value for box in corners for value in box)
    grid = next((side for side in GRIDS if largest <= side), None)
    if grid is None:
        return largest, f"on a grid of {largest:g}, which is as far as the farthest one reaches"
    return grid, f"on a grid of {grid:g}"
