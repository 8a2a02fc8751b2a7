"""Facts that a text states about a scene, and how many of them another text keeps."""

from __future__ import annotations

import re
from dataclasses import astuple, dataclass, replace
from functools import cache

from .phrases import NUMBERS
from .scene import BACKGROUNDS, COLOURS, PLACES, SHAPES, SIDES, SIZES, TEXTURES, TONES, Scene

_ATTRIBUTES = {"size": tuple(SIZES), "texture": TEXTURES, "colour": COLOURS}
_WORDS = "|".join(word for words in _ATTRIBUTES.values() for word in words)
_MENTION = re.compile(
    rf"\b(?:an?|one|another) (?P<words>(?:(?:{_WORDS}),? )*)(?P<shape>{'|'.join(SHAPES)})\b"
    rf"|\b(?:at|in|on) the (?P<place>{'|'.join(sorted(PLACES, key=len, reverse=True))}|center)\b"
)
_BACKGROUND = re.compile(rf"\b({'|'.join(BACKGROUNDS)})\b")
_TONE = re.compile(r"\b(warm|cool)\b")
_LIGHT = re.compile(r"\bfrom the (left|right)\b")

WORDS = frozenset(
    word
    for said in (SHAPES, *_ATTRIBUTES.values(), BACKGROUNDS, TONES, PLACES, SIDES, NUMBERS, ("yes", "no"))
    for name in said
    for word in name.split()
)
"""Every word that states a fact, in lower case."""


@dataclass(frozen=True)
class Mention:
    """One object as a text names it; None where the text leaves it open."""

    shape: str
    colour: str | None = None
    size: str | None = None
    texture: str | None = None
    place: str | None = None


@dataclass(frozen=True)
class Facts:
    """What is said: objects in reading order (those without a place last), background and light."""

    objects: tuple[Mention, ...]
    background: str | None = None
    tone: str | None = None
    light: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "objects", tuple(sorted(self.objects, key=_reading_order)))


def facts(scene: Scene) -> Facts:
    """Everything that a detailed caption of the scene says, relations aside."""
    things = (
        Mention(thing.shape, thing.colour, thing.size, thing.texture, thing.place) for thing in scene.objects
    )
    return Facts(tuple(things), scene.background, scene.tone, scene.light)


def caption_facts(text: str) -> Facts:
    """Read a caption, ours or a language model's; what does not follow our grammar is passed over.

    An object is a shape after "a", "an", "one" or "another", with any attributes between; "the star" refers to
    one that was named before. Within a sentence, places follow their objects, or precede them if one comes first.
    """
    text = " ".join(text.lower().split())
    objects = [mention for part in re.split(r"[.;:!?]", text) for mention in _mentions(part)]
    # The first background word counts: the night sky is "night".
    found = (pattern.search(text) for pattern in (_BACKGROUND, _TONE, _LIGHT))
    background, tone, light = (match and match[1] for match in found)
    return Facts(tuple(objects), background, tone, light)


def kept(given: Facts, found: Facts) -> tuple[int, int]:
    """How many of the given facts the found ones repeat, and how many were given.

    A fact is an attribute of an object (its shape, colour, size, texture, place), the background, the tone of the
    light or its side. Objects are matched one to one, in the way that repeats most. What else was found costs
    nothing; ask the other way round for that.
    """
    agreement = [[_agreement(mention, other) for other in found.objects] for mention in given.objects]

    @cache
    def best(i: int, free: frozenset[int]) -> int:
        if i == len(agreement):
            return 0
        return max(best(i + 1, free), *(agreement[i][j] + best(i + 1, free - {j}) for j in free), 0)

    rest = [(getattr(given, name), getattr(found, name)) for name in ("background", "tone", "light")]
    repeated = best(0, frozenset(range(len(found.objects)))) + sum(a is not None and a == b for a, b in rest)
    stated = sum(value is not None for mention in given.objects for value in astuple(mention))
    return repeated, stated + sum(value is not None for value, _ in rest)


def _mentions(part: str) -> list[Mention]:
    matches = list(_MENTION.finditer(part))
    places_first = bool(matches) and matches[0]["place"] is not None
    mentions: list[Mention] = []
    place = None
    for match in matches:
        if match["shape"]:
            mentions.append(_mention(match["shape"], match["words"], place))
            place = None
        elif places_first:
            place = _place(match)
        elif mentions and mentions[-1].place is None:
            mentions[-1] = replace(mentions[-1], place=_place(match))
    return mentions


def _mention(shape: str, words: str, place: str | None) -> Mention:
    named = words.replace(",", " ").split()
    attributes = {
        name: next((word for word in named if word in values), None) for name, values in _ATTRIBUTES.items()
    }
    return Mention(shape, place=place, **attributes)


def _place(match: re.Match[str]) -> str:
    return match["place"].replace("center", "centre")


def _agreement(given: Mention, found: Mention) -> int:
    return sum(a is not None and a == b for a, b in zip(astuple(given), astuple(found), strict=True))


def _reading_order(mention: Mention) -> tuple[int, str]:
    places = list(PLACES)
    return (places.index(mention.place) if mention.place else len(places), repr(mention))
