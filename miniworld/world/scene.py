"""The miniature world: what can be in a picture, said exactly.

A scene is ground truth: captions, edits, questions and pixels all follow from it. Nothing else is random, and every choice
is a keyed hash, so a seed means the same scene on every machine and in every version of Python and numpy (whose own
generators promise no such thing for anything above raw bits).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from typing import Any, Literal, TypeVar, get_args

T = TypeVar("T")
Split = Literal["train", "validation", "unseen_pair"]

SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "ring")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
TEXTURES = ("plain", "striped", "dotted")
BACKGROUNDS = ("grass", "sand", "snow", "water", "brick", "wood", "sky", "night")
TONES = ("warm", "cool")
SIDES = ("left", "right")

UNIT = 128  # every length below is in 1/128 of the picture's side
SIZES = {"small": 18, "medium": 26, "large": 36}  # width of the box around an object
_ROWS, _COLUMNS = ("top", "", "bottom"), ("left", "", "right")
_LINES = (22, 64, 106)
PLACES = {
    (f"{row} {column}".strip() or "centre"): (x, y)
    for row, y in zip(_ROWS, _LINES, strict=True)
    for column, x in zip(_COLUMNS, _LINES, strict=True)
}
BACKDROPS = 256  # variants of each background

_JITTER = 2
_MAX_SHIFT = 15  # keeps the centre of an object in its own third of the picture


@dataclass(frozen=True)
class Thing:
    """One object: what it is, its place, and the shift (right, down) of its centre from the centre of that place."""

    shape: str
    colour: str
    size: str
    texture: str
    place: str
    shift: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        _check("shape", self.shape, SHAPES)
        _check("colour", self.colour, COLOURS)
        _check("size", self.size, SIZES)
        _check("texture", self.texture, TEXTURES)
        _check("place", self.place, PLACES)
        if len(self.shift) != 2 or any(step not in range(-_MAX_SHIFT, _MAX_SHIFT + 1) for step in self.shift):
            raise ValueError(f"an object's shift is two whole numbers within ±{_MAX_SHIFT}, got {self.shift}")

    @property
    def centre(self) -> tuple[int, int]:
        """(x, y) in 1/128 of the side."""
        x, y = PLACES[self.place]
        return x + self.shift[0], y + self.shift[1]


@dataclass(frozen=True)
class Scene:
    """A whole picture: 1 to 8 objects, painted in this order, no two at one place; the background and the light.

    ``light`` is the side that the light comes from, ``backdrop`` the variant of the background.
    """

    objects: tuple[Thing, ...]
    background: str
    tone: str
    light: str
    backdrop: int

    def __post_init__(self) -> None:
        _check("background", self.background, BACKGROUNDS)
        _check("tone", self.tone, TONES)
        _check("light", self.light, SIDES)
        if self.backdrop not in range(BACKDROPS):
            raise ValueError(f"a scene's backdrop is 0 to {BACKDROPS - 1}, got {self.backdrop}")
        places = [thing.place for thing in self.objects]
        if not 1 <= len(places) <= 8 or len(set(places)) < len(places):
            raise ValueError(f"a scene holds 1 to 8 objects at places of their own, got {places}")

    @property
    def free_places(self) -> tuple[str, ...]:
        """The places where nothing stands, in reading order."""
        taken = {thing.place for thing in self.objects}
        return tuple(place for place in PLACES if place not in taken)

    @property
    def behind(self) -> tuple[tuple[Thing, Thing], ...]:
        """The pairs (back, front) in which one object partly hides another."""
        pairs = ((back, front) for i, front in enumerate(self.objects) for back in self.objects[:i])
        return tuple(pair for pair in pairs if _overlap(*pair))

    def to_json(self) -> str:
        """The scene as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Scene:
        """Read what ``to_json`` wrote.

        Raises:
            ValueError: the text is no such document, or describes no possible scene.
        """
        try:
            document = json.loads(text)
            objects = tuple(
                Thing(**{**thing, "shift": tuple(thing["shift"])}) for thing in document["objects"]
            )
            return cls(**{**document, "objects": objects})
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"this is no scene: {type(error).__name__} {error}") from error


def choose(options: Sequence[T], *key: object) -> T:
    """The option that this key always means; another key is an independent choice."""
    return options[_hash(key) % len(options)]


def shuffled(options: Sequence[T], *key: object) -> list[T]:
    """The options in the order that this key always means; leaving some out keeps the order of the rest."""
    return sorted(options, key=lambda option: _hash((*key, option)))


def sample_scene(seed: int, objects: tuple[int, int] = (1, 8), split: Split | None = None) -> Scene:
    """The scene of this seed.

    The number of objects is uniform in ``objects`` (both ends included) whatever the split; one scene in six with
    fitting neighbours has an object that stands partly behind another.

    Args:
        split: draw until the scene belongs to it; None takes what comes.

    Raises:
        ValueError: ``objects`` is no range within 1 to 8, or there is no such split.
    """
    low, high = objects
    if not 1 <= low <= high <= 8:
        raise ValueError(f"objects is a range (low, high) within 1 to 8, got {objects}")
    if split not in (None, *get_args(Split)):
        raise ValueError(f"split must be one of {', '.join(get_args(Split))}, or None, got {split!r}")
    number = choose(range(low, high + 1), seed, "number")
    drawn = (_draw(number, seed, attempt) for attempt in count())
    return next(scene for scene in drawn if split in (None, split_of(scene)))


def split_of(scene: Scene) -> Split:
    """Which part of the data a scene belongs to.

    ``unseen_pair``: some object has one of the eight colour-shape pairs that training never shows (each colour and
    each shape in one of them). ``validation``: one in sixteen of the others, chosen by what every complete caption
    says (colours, shapes, places, background), so that no complete caption of it is ever a training caption.
    """
    if any(is_unseen_pair(thing.colour, thing.shape) for thing in scene.objects):
        return "unseen_pair"
    said = sorted((thing.place, thing.colour, thing.shape) for thing in scene.objects)
    return "validation" if _hash((scene.background, *said)) % 16 == 0 else "train"


def is_unseen_pair(colour: str, shape: str) -> bool:
    """Whether objects of this colour and shape are held out of training."""
    return (COLOURS.index(colour) + 3 * SHAPES.index(shape)) % 8 == 0


def _hash(key: tuple[object, ...]) -> int:
    text = "\n".join(map(str, key))  # str, not repr: a seed may be a numpy integer
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _draw(number: int, *key: object) -> Scene:
    places = shuffled(tuple(PLACES), *key, "places")[:number]
    jitter = range(-_JITTER, _JITTER + 1)
    things = [
        Thing(
            shape=choose(SHAPES, *key, place, "shape"),
            colour=choose(COLOURS, *key, place, "colour"),
            size=choose(tuple(SIZES), *key, place, "size"),
            texture=choose(TEXTURES, *key, place, "texture"),
            place=place,
            shift=(choose(jitter, *key, place, "x"), choose(jitter, *key, place, "y")),
        )
        for place in places
    ]
    if choose(range(6), *key, "behind") == 0:
        things = _with_one_behind(things)
    return Scene(
        objects=tuple(things),
        background=choose(BACKGROUNDS, *key, "background"),
        tone=choose(TONES, *key, "tone"),
        light=choose(SIDES, *key, "light"),
        backdrop=choose(range(BACKDROPS), *key, "backdrop"),
    )


def _with_one_behind(things: list[Thing]) -> list[Thing]:
    """Slide the first fitting neighbours of a row together, until the edge of one meets the centre of the other.

    Of every two shapes this hides a part of the back one that can be seen, and never as much as half. Small objects,
    and ones behind a larger, would lose too little or too much.
    """
    for front in things:
        for back in things:
            (x, y), (other_x, other_y) = PLACES[back.place], PLACES[front.place]
            near = y == other_y and abs(x - other_x) == _LINES[1] - _LINES[0]
            if near and SIZES["small"] < SIZES[front.size] <= SIZES[back.size]:
                step = (abs(x - other_x) - SIZES[front.size] // 2) // 2
                step = step if x < other_x else -step
                pair = [replace(back, shift=(step, 0)), replace(front, shift=(-step, 0))]
                return [thing for thing in things if thing not in (front, back)] + pair
    return things


def _overlap(a: Thing, b: Thing) -> bool:
    reach = (SIZES[a.size] + SIZES[b.size]) / 2
    return all(abs(p - q) < reach for p, q in zip(a.centre, b.centre, strict=True))


def _check(name: str, value: Any, allowed: Any) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
