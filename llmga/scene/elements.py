"""A scene plan in ComfyUI's own types: BOUNDING_BOX dictionaries, and the element JSON of its Create Bounding Boxes.

So a plan drives what reads these: Ideogram's prompts, regional conditioning, GLIGEN's text boxes, core's box editor.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .parse import ParsedPlan, ScenePlanError, parse_plan
from .plan import SceneObject, ScenePlan

ELEMENT_GRID = 1000


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

    Args:
        boxes: a BOUNDING_BOX, a list of them (or a list of such lists, of which the first counts), a list of elements, or
            either as JSON text.
        width, height: the picture that the boxes' pixels are of.

    Raises:
        ScenePlanError: it holds no box, or boxes without words.
    """
    if isinstance(boxes, str):
        try:
            boxes = json.loads(boxes)
        except (ValueError, RecursionError) as error:
            raise ScenePlanError(f"the boxes are not valid JSON: {error}") from error
    boxes = [boxes] if isinstance(boxes, dict) else boxes
    if isinstance(boxes, list) and boxes and isinstance(boxes[0], list):
        boxes = boxes[0]
    if not isinstance(boxes, Sequence) or not boxes or not all(isinstance(box, dict) for box in boxes):
        raise ScenePlanError("the boxes must be a list of BOUNDING_BOX or of elements, with one at least")
    objects = [_entry(box, width, height) for box in boxes]
    document = {"objects": objects, "background": background, "negative": negative}
    return parse_plan(json.dumps(document, default=str))


def _entry(box: dict[str, Any], width: int, height: int) -> dict[str, Any]:
    metadata = box.get("metadata")
    words = metadata if isinstance(metadata, dict) else box
    name, _, rest = str(words.get("desc") or words.get("text") or "").partition(",")
    entry = {"name": name.strip(), "descriptions": [rest.strip()] if rest.strip() else []}
    if isinstance(box.get("bbox"), list):
        return {**entry, "bbox": box["bbox"]}
    try:
        x, y = float(box["x"]) / width, float(box["y"]) / height
        return {
            **entry,
            "box": {"x": x, "y": y, "w": float(box["width"]) / width, "h": float(box["height"]) / height},
        }
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ScenePlanError(
            f"a BOUNDING_BOX must have the numbers x, y, width and height ({error!r})"
        ) from error
