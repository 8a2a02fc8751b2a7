"""A scene plan in ComfyUI's own types: BOUNDING_BOX dictionaries, and the element JSON of its Create Bounding Boxes.

So a plan drives what reads these: Ideogram's prompts, regional conditioning, GLIGEN's text boxes, core's box editor.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .boxes import ELEMENT_GRID, OUTSIDE
from .parse import ParsedPlan, ScenePlanError, name_and_description, parse_plan
from .plan import SceneObject, ScenePlan

_WORDS = ("desc", "text", "label")
"""Where a box has its words: the box editor's metadata and elements have the first two, detectors the last."""


def object_text(one: SceneObject) -> str:
    """The name with its first description: what a box of a program without descriptions says."""
    return ", ".join([one.name, *one.descriptions[:1]])


def to_bounding_boxes(plan: ScenePlan, width: int, height: int) -> list[dict[str, Any]]:
    """One BOUNDING_BOX for each object, in pixels, with the metadata that ComfyUI's box editor shows.

    Args:
        width, height: pixels of the picture.

    Source: ComfyUI 0.33 ``comfy_api/latest/_io.py`` ``BoundingBoxes``, ``comfy_extras/nodes_bounding_boxes.py``.
    """
    boxes = []
    for one in plan.objects:
        left, top = round(one.box.x * width), round(one.box.y * height)
        boxes.append(
            {
                "x": left,
                "y": top,
                "width": max(round(one.box.right * width) - left, 1),
                "height": max(round(one.box.bottom * height) - top, 1),
                "metadata": {"type": "obj", "text": "", "desc": object_text(one), "palette": []},
            }
        )
    return boxes


def to_elements(plan: ScenePlan) -> list[dict[str, Any]]:
    """The plan as elements: ``bbox`` is [ymin, xmin, ymax, xmax] on a grid of 1000."""
    return [
        {
            "type": "obj",
            "bbox": [round(v * ELEMENT_GRID) for v in (one.box.y, one.box.x, one.box.bottom, one.box.right)],
            "desc": object_text(one),
        }
        for one in plan.objects
    ]


def from_bounding_boxes(
    boxes: Any, width: int, height: int, background: str = "", negative: str = ""
) -> ParsedPlan:
    """The plan of ComfyUI's boxes or elements; what stands before the first comma of a box's words is its object's name.

    No grid is guessed: boxes are in pixels of the picture, elements on a grid of ``ELEMENT_GRID`` (or in parts of 1).

    Args:
        boxes: a BOUNDING_BOX, a list of them (or a list of such lists, one for each picture, of which the first counts), a
            list of elements, or either as JSON text. Words are in "desc", "text" or "label", in the box or its "metadata".
        width, height: the picture that the boxes' pixels are of.

    Raises:
        ScenePlanError: it holds no box, boxes without words, or boxes that reach far beyond the picture.
    """
    if isinstance(boxes, str):
        try:
            boxes = json.loads(boxes)
        except (ValueError, RecursionError) as error:
            raise ScenePlanError(f"the boxes are not valid JSON: {error}") from error
    boxes = [boxes] if isinstance(boxes, dict) else boxes
    notes = []
    if isinstance(boxes, list) and boxes and isinstance(boxes[0], list):
        notes = [f"the boxes of the first of {len(boxes)} pictures were taken"] * (len(boxes) > 1)
        boxes = boxes[0]
    found = [box for box in boxes if isinstance(box, dict)] if isinstance(boxes, Sequence) else []
    if not found:
        raise ScenePlanError("the boxes must be a list of BOUNDING_BOX or of elements, with one at least")
    others = len(boxes) - len(found)
    notes += [f"{others} of {len(boxes)} boxes are not a BOUNDING_BOX, and were left out"] * (others > 0)
    objects = [_entry(box, width, height) for box in found]
    _check_reach([one["box"] for one in objects if _is_placed(one)], width, height)
    unnamed = [number for number, one in enumerate(objects, 1) if not one["name"]]
    if len(unnamed) == len(objects):
        raise ScenePlanError(_unnamed(1))
    notes += [f"{_unnamed(number)}; it was left out" for number in unnamed]
    document = {
        "objects": [one for one in objects if one["name"]],
        "background": background,
        "negative": negative,
    }
    parsed = parse_plan(json.dumps(document, default=str))
    return replace(parsed, notes=(*notes, *parsed.notes))


def _unnamed(number: int) -> str:
    return f'box {number} does not name its object: write the name into its "desc", "text" or "label"'


def _words(box: dict[str, Any]) -> str:
    metadata = box.get("metadata")
    places = [metadata, box] if isinstance(metadata, dict) else [box]
    found = (str(place.get(key) or "").strip() for place in places for key in _WORDS)
    return next(filter(None, found), "")


def _entry(box: dict[str, Any], width: int, height: int) -> dict[str, Any]:
    name, rest = name_and_description(_words(box))
    entry: dict[str, Any] = {"name": name, "descriptions": [rest] if rest else []}
    if isinstance(box.get("bbox"), list):
        return {**entry, "bbox": _element_parts(box["bbox"])}
    try:
        x, y = float(box["x"]) / width, float(box["y"]) / height
        return {
            **entry,
            "box": {"x": x, "y": y, "w": float(box["width"]) / width, "h": float(box["height"]) / height},
        }
    except (KeyError, TypeError, ValueError, OverflowError):
        return {**entry, "box": {side: box.get(side) for side in ("x", "y", "width", "height")}}


def _is_placed(entry: dict[str, Any]) -> bool:
    """Whether the box is in parts of the picture; one that is not of numbers is left as it is, for a note on it."""
    return "w" in entry.get("box", ())


def _element_parts(bbox: list[Any]) -> Any:
    """An element's [ymin, xmin, ymax, xmax] as corners in parts of the picture; what is no such list is left as it is."""
    numbers = [value for value in bbox if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(bbox) != 4 or len(numbers) != 4 or not OUTSIDE < max(numbers) <= OUTSIDE * ELEMENT_GRID:
        return bbox
    top, left, bottom, right = (value / ELEMENT_GRID for value in numbers)
    return {"left": left, "top": top, "right": right, "bottom": bottom}


def _check_reach(boxes: Sequence[dict[str, float]], width: int, height: int) -> None:
    """Refuse boxes of a larger picture: taken as they are, all of them would be clamped to its edge.

    Raises:
        ScenePlanError: a box reaches more than a quarter of the picture beyond it.
    """
    right = max(filter(math.isfinite, (box["x"] + box["w"] for box in boxes)), default=0.0)
    bottom = max(filter(math.isfinite, (box["y"] + box["h"] for box in boxes)), default=0.0)
    if max(right, bottom) > OUTSIDE:
        raise ScenePlanError(
            f"the boxes reach to {right * width:g}×{bottom * height:g}, and width and height are {width}×{height}; set "
            "these to the size that the boxes were drawn on"
        )
