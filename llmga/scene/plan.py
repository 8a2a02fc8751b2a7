"""ScenePlan: the objects of a picture, where they are and how they look, between a language model and the synthesis."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..files.json_files import read_object
from ..files.writing import write_text
from ..text.alike import visible

PLAN_FORMAT = "llmga-scene"
PLAN_VERSION = 1
MAX_OBJECTS = 12
"""More objects than a latent of 64 × 64 has room for."""
MAX_DESCRIPTIONS = 3
MAX_OBJECT_NAME = 120
MAX_DESCRIPTION = 1000
MAX_SCENE_TEXT = 4000
"""Characters of the background, the negative prompt and the user's sentence."""
SMALLEST_SIDE = 0.01
"""A side of a box, in parts of the picture's: below it the box covers no cell at any size that is painted."""


@dataclass(frozen=True)
class SceneBox:
    """A rectangle in parts of the picture's width and height; 0, 0 is its top left corner.

    Raises:
        ValueError: a number is not finite, a side is below ``SMALLEST_SIDE``, or the box leaves the picture.
    """

    x: float
    y: float
    width: float
    height: float

    def __post_init__(self) -> None:
        numbers = (self.x, self.y, self.width, self.height)
        if not all(
            isinstance(n, (int, float)) and not isinstance(n, bool) and math.isfinite(n) for n in numbers
        ):
            raise ValueError(f"a box must be four finite numbers (x, y, width, height), got {numbers!r}")
        if min(self.width, self.height) < SMALLEST_SIDE - 1e-9:
            raise ValueError(
                f"a box must be at least {SMALLEST_SIDE:g} wide and high (1 is the whole picture), got width "
                f"{self.width:g} and height {self.height:g}"
            )
        if min(self.x, self.y) < 0 or max(self.right, self.bottom) > 1 + 1e-9:
            raise ValueError(
                f"a box must lie in the picture (x, y, x + width and y + height from 0 to 1), got x {self.x:g}, "
                f"y {self.y:g}, width {self.width:g}, height {self.height:g}"
            )

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y)."""
        return self.x + self.width / 2, self.y + self.height / 2

    @classmethod
    def clamped(cls, x: float, y: float, width: float, height: float) -> SceneBox:
        """The part of any rectangle that lies in the picture, grown to ``SMALLEST_SIDE`` where it is thinner.

        Raises:
            ValueError: a number is not finite.
        """
        if not all(map(math.isfinite, (x, y, width, height))):
            raise ValueError(f"a box must be four finite numbers, got {(x, y, width, height)}")
        left, right = sorted((x, x + width))
        top, bottom = sorted((y, y + height))
        left, right = _held(left, right)
        top, bottom = _held(top, bottom)
        # Six digits: a person reads and edits them, and no picture has a million cells.
        left, top = round(left, 6), round(top, 6)
        return cls(left, top, min(round(right - left, 6), 1 - left), min(round(bottom - top, 6), 1 - top))

    def overlap(self, other: SceneBox) -> tuple[float, float]:
        """Width and height of what two boxes share; one is 0 or below where they share nothing."""
        return (
            min(self.right, other.right) - max(self.x, other.x),
            min(self.bottom, other.bottom) - max(self.y, other.y),
        )


def _held(low: float, high: float) -> tuple[float, float]:
    low, high = (min(max(value, 0.0), 1.0) for value in (low, high))
    if high - low < SMALLEST_SIDE:
        low = min(max((low + high - SMALLEST_SIDE) / 2, 0.0), 1.0 - SMALLEST_SIDE)
        high = low + SMALLEST_SIDE
    return low, high


@dataclass(frozen=True)
class SceneObject:
    """One thing in a scene.

    Args:
        name: a noun with its article, such as "a red fox"; the words whose attention is guided.
        box: where it stands.
        descriptions: up to three, each what could follow the name; ``assess`` chooses among them.

    Raises:
        ValueError: the name is empty, a text is too long, or there are too many descriptions.
    """

    name: str
    box: SceneBox
    descriptions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_text("an object's name", self.name, MAX_OBJECT_NAME)
        if not visible(self.name).strip():
            raise ValueError("an object's name must not be empty; write what it is, such as 'a red fox'")
        if len(self.descriptions) > MAX_DESCRIPTIONS:
            raise ValueError(
                f"an object has at most {MAX_DESCRIPTIONS} descriptions, {self.name!r} has {len(self.descriptions)}"
            )
        for text in self.descriptions:
            _check_text(f"a description of {self.name!r}", text, MAX_DESCRIPTION)


@dataclass(frozen=True)
class ScenePlan:
    """A planned scene.

    Args:
        objects: in the order in which the prompt names them; ``MAX_OBJECTS`` at most, none for a scene without any.
        background: the place, without the objects.
        negative: what must not be seen.
        prompt: the sentence that it was planned from.

    Raises:
        ValueError: there are too many objects, or a text is too long.
    """

    objects: tuple[SceneObject, ...] = ()
    background: str = ""
    negative: str = ""
    prompt: str = ""

    def __post_init__(self) -> None:
        if len(self.objects) > MAX_OBJECTS:
            raise ValueError(f"a scene has at most {MAX_OBJECTS} objects, got {len(self.objects)}")
        for name in ("background", "negative", "prompt"):
            _check_text(f"the {name}", getattr(self, name), MAX_SCENE_TEXT)

    def to_dict(self) -> dict[str, Any]:
        """The plan in what JSON knows; a box is [x, y, width, height]."""
        return {
            "format": PLAN_FORMAT,
            "version": PLAN_VERSION,
            "prompt": self.prompt,
            "objects": [
                {
                    "name": one.name,
                    "box": [one.box.x, one.box.y, one.box.width, one.box.height],
                    "descriptions": list(one.descriptions),
                }
                for one in self.objects
            ],
            "background": self.background,
            "negative": self.negative,
        }

    def to_json(self) -> str:
        """The plan as JSON text that a person can edit; ``from_json`` reads exactly this plan again."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=1)

    @classmethod
    def from_dict(cls, document: Any) -> ScenePlan:
        """The plan of ``to_dict``.

        Raises:
            ValueError: it is another document, of a later version, or holds values that a plan cannot have.
        """
        if not isinstance(document, dict) or document.get("format") != PLAN_FORMAT:
            raise ValueError(
                f'it is not a scene plan: a JSON object with "format": "{PLAN_FORMAT}" is expected'
            )
        if document.get("version") != PLAN_VERSION:
            raise ValueError(
                f"its scene plan has version {document.get('version')!r}, and this reads version {PLAN_VERSION}; update "
                "LLMGA"
            )
        objects = document.get("objects", [])
        if not isinstance(objects, list):
            raise ValueError(f'"objects" of a scene plan must be a list, got {type(objects).__name__}')
        return cls(
            tuple(_object_of(one, number) for number, one in enumerate(objects, 1)),
            *(document.get(name, "") for name in ("background", "negative", "prompt")),
        )

    @classmethod
    def from_json(cls, text: str) -> ScenePlan:
        """The plan of ``to_json``; a language model's reply is read by ``parse_plan``.

        Raises:
            ValueError: see ``from_dict``, or the text is not valid JSON.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the scene plan is not valid JSON: {error}") from error
        return cls.from_dict(document)

    def save(self, path: Path) -> None:
        """Write the plan to a file in one move."""
        write_text(path, self.to_json() + "\n")

    @classmethod
    def load(cls, path: Path) -> ScenePlan:
        """
        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it does not hold a scene plan.
        """
        try:
            return cls.from_dict(read_object(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def separated(plan: ScenePlan) -> tuple[ScenePlan, tuple[str, ...]]:
    """Move boxes apart that overlap, and cut where there is no room.

    Each overlapping pair is first pushed apart along the axis on which the overlap is thinner, half each and within the
    picture; what still overlaps after ``_ROUNDS`` rounds is cut in the middle of the overlap (but never below
    ``SMALLEST_SIDE``).

    Returns:
        The plan, and a line for each object whose box became smaller, or still overlaps others: a dozen boxes in one place
        have no room.
    """
    boxes = [one.box for one in plan.objects]
    for _ in range(_ROUNDS):
        pairs = [(i, j) for i in range(len(boxes)) for j in range(i) if _touching(boxes[i], boxes[j])]
        if not pairs:
            break
        for i, j in pairs:
            boxes[i], boxes[j] = _pushed(boxes[i], boxes[j])
    for i in range(len(boxes)):
        for j in range(i):
            if _touching(boxes[i], boxes[j]):
                boxes[i], boxes[j] = _cut(boxes[i], boxes[j])
    objects = tuple(replace(one, box=box) for one, box in zip(plan.objects, boxes, strict=True))
    notes = []
    for before, after in zip(plan.objects, objects, strict=True):
        share = after.box.width * after.box.height / (before.box.width * before.box.height)
        if share < _NOTICED:
            notes.append(f"{after.name}: its box was cut to {share:.0%} of its area, so that no two overlap")
    for i, one in enumerate(objects):
        others = [other.name for other in objects[:i] if _touching(one.box, other.box)]
        if others:
            notes.append(f"{one.name}: its box still overlaps that of {', '.join(others)}; draw it elsewhere")
    return replace(plan, objects=objects), tuple(notes)


_ROUNDS = 40
_NOTICED = 0.995  # of the area: what is cut less needs no line
_SLACK = 1e-6  # of the picture: what is nearer than this counts as touching, not as overlapping


def _touching(a: SceneBox, b: SceneBox) -> bool:
    width, height = a.overlap(b)
    return width > _SLACK and height > _SLACK


def _pushed(a: SceneBox, b: SceneBox) -> tuple[SceneBox, SceneBox]:
    width, height = a.overlap(b)
    if width <= height:
        first, second = sorted((a, b), key=lambda box: box.centre[0])
        moved = replace(first, x=max(first.x - width / 2, 0.0))
        other = replace(second, x=min(second.x + width / 2, 1 - second.width))
    else:
        first, second = sorted((a, b), key=lambda box: box.centre[1])
        moved = replace(first, y=max(first.y - height / 2, 0.0))
        other = replace(second, y=min(second.y + height / 2, 1 - second.height))
    return (moved, other) if first is a else (other, moved)


def _cut(a: SceneBox, b: SceneBox) -> tuple[SceneBox, SceneBox]:
    """Cut both in the middle of what they share, along the axis on which they share less of the narrower box."""
    width, height = a.overlap(b)
    if width / min(a.width, b.width) <= height / min(a.height, b.height):
        first, second = sorted((a, b), key=lambda box: box.centre[0])
        middle = max(first.x, second.x) + width / 2
        if min(middle - first.x, second.right - middle) < SMALLEST_SIDE:
            return a, b
        moved = replace(first, width=middle - first.x)
        other = replace(second, x=middle, width=second.right - middle)
    else:
        first, second = sorted((a, b), key=lambda box: box.centre[1])
        middle = max(first.y, second.y) + height / 2
        if min(middle - first.y, second.bottom - middle) < SMALLEST_SIDE:
            return a, b
        moved = replace(first, height=middle - first.y)
        other = replace(second, y=middle, height=second.bottom - middle)
    return (moved, other) if first is a else (other, moved)


def _object_of(document: Any, number: int) -> SceneObject:
    if not isinstance(document, dict):
        raise ValueError(
            f"object {number} of a scene plan must be a JSON object, got {type(document).__name__}"
        )
    box, descriptions = document.get("box"), document.get("descriptions", [])
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"the box of object {number} must be [x, y, width, height], got {str(box)[:80]}")
    if not isinstance(descriptions, list):
        raise ValueError(f"the descriptions of object {number} must be a list of texts")
    return SceneObject(document.get("name", ""), SceneBox(*box), tuple(descriptions))


def _check_text(what: str, value: Any, limit: int) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{what} must be text, got {type(value).__name__}")
    if len(value) > limit:
        raise ValueError(f"{what} holds {len(value)} characters, at most {limit} are allowed")
