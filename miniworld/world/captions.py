"""A scene in words: short, detailed and vague captions that never contradict it.

Each choice of wording depends on the seed and on its own spot in the text alone, so the captions of a scene before
and after an edit differ in the words that the edit concerns.
"""

from __future__ import annotations

from typing import Literal

from .phrases import (
    BACKGROUND,
    EDGES,
    LIGHT,
    NOUN,
    NUMBERS,
    OBJECT,
    ON,
    OPENING,
    RELATION,
    SHORT,
    STYLE,
    WHERE,
    Slot,
)
from .scene import PLACES, SIDES, Scene, Thing, choose, shuffled

Moved = tuple[str, str]  # the new place of an object, and the old one, whose phrasing it keeps
Order = Literal["any", "wish", "reading"] | tuple[str, ...]
"""In which a caption names the objects: any; that of ``vague_caption`` with the same seed; row by row; or that of these
places."""


def short_caption(
    scene: Scene, seed: int, *, held_out: bool = False, moved: Moved | None = None, order: Order = "any"
) -> str:
    """One phrase: size, texture unless plain, colour, shape and place of each object, and the background.

    With ``held_out`` it is a phrasing that training never shows, in words that it does.
    """
    template = _phrasing(SHORT, held_out, seed, "short")
    items = listed(scene, seed, held_out=held_out, moved=moved, order=order)
    return template.format(list=items, on=ON[scene.background])


def caption_of(scene: Scene) -> str:
    """The short caption in one wording, its objects row by row; embeddings are trained on it, as they learn means."""
    return short_caption(scene, 0, order="reading")


def listed(
    scene: Scene, seed: int, *, held_out: bool = False, moved: Moved | None = None, order: Order = "any"
) -> str:
    """The objects of a scene as ``short_caption`` names them; it needs one at least."""
    return enumerated(
        [
            f"{_noun(thing, seed, held_out, spot).replace(' plain', '')} {WHERE[thing.place]}"
            for spot, thing in _in_order(scene, seed, moved, order)
        ]
    )


def places_named(scene: Scene, seed: int, order: Order = "any") -> tuple[str, ...]:
    """The places of a scene's objects as a caption of this seed and order names them."""
    return tuple(place for place, _ in _in_order(scene, seed, order=order))


def overview(begin: str, scene: Scene, seed: int, order: Order = "any", moved: Moved | None = None) -> str:
    """One sentence on the whole picture, its objects in the order and the words of ``detailed_caption``, each behind its
    place: whoever writes it decides where the next one stands, then what stands there."""
    early, late = _early_and_late(scene, seed, moved, order)
    items = [
        f"{WHERE[thing.place]} {_noun(thing, seed, False, spot).replace(' plain', '')}"
        for spot, thing in early + late
    ]
    return f"{begin} {enumerated(items or ['nothing'])} {ON[scene.background]}."


def detailed_caption(
    scene: Scene, seed: int, *, held_out: bool = False, moved: Moved | None = None, order: Order = "any"
) -> str:
    """All that ``facts`` knows of the scene, and a style and a relation, in 80 to 200 CLIP tokens.

    Of two or more objects, one at least is named only after the 77th token, where a plain SD1.5 stops reading.
    In any order but "any", those that are named early are the first ones.
    With ``held_out`` every sentence has a phrasing that training never shows, in words that it does.
    """
    ordered = _in_order(scene, seed, moved, order)
    early, late = (
        [_object(thing, seed, held_out, spot) for spot, thing in part]
        for part in _early_and_late(scene, seed, moved, order)
    )
    middle = [
        _phrasing(BACKGROUND[scene.background], held_out, seed, "background"),
        _phrasing(STYLE, held_out, seed, "style"),
        _phrasing(EDGES, held_out, seed, "edges"),
        _light(scene, seed, held_out),
        _relation(scene, [thing for _, thing in ordered], seed, held_out),
    ]
    sentences = [
        _opening(scene, seed, held_out),
        *early,
        *(middle[i] for i in shuffled(range(len(middle)), seed, "middle")),
        *late,
    ]
    return " ".join(filter(None, sentences))


def vague_caption(scene: Scene, seed: int) -> str:
    """What someone in a hurry would ask for: the shapes, and about half of everything else."""
    items = [_vague_item(thing, seed, spot) for spot, thing in _in_order(scene, seed)]
    background = [ON[scene.background]] if choose((0, 1), seed, "vague") else []
    return " ".join([enumerated(items), *background])


def _vague_item(thing: Thing, seed: int, spot: str) -> str:
    key = (seed, "vague", spot)
    texture = thing.texture if thing.texture != "plain" else ""
    words = [word for word in (thing.size, texture, thing.colour) if word and choose((0, 1), *key, word)]
    place = [WHERE[thing.place]] if _says_where(seed, spot) else []
    return " ".join([with_article(" ".join([*words, thing.shape])), *place])


def _says_where(seed: int, spot: str) -> bool:
    return choose(range(4), seed, "vague", spot, "place") == 0


def places_left_open(scene: Scene, seed: int) -> tuple[str, ...]:
    """The places of those objects of which ``vague_caption`` does not say where they stand, as it names them."""
    return tuple(spot for spot in places_named(scene, seed) if not _says_where(seed, spot))


def object_texts(scene: Scene, seed: int) -> list[tuple[Thing, list[tuple[str, str]]]]:
    """For each object what a detailed, a short and a vague caption of this seed say of it: the whole text, and in it
    the attributes and the shape without their article."""

    def without_article(noun: str) -> str:
        return noun.split(" ", 1)[1]

    result = []
    for spot, thing in _in_order(scene, seed):
        noun = _noun(thing, seed, False, spot)
        short, vague = noun.replace(" plain", ""), _vague_item(thing, seed, spot)
        texts = [
            (_object(thing, seed, False, spot), without_article(noun)),
            (f"{short} {WHERE[thing.place]}", without_article(short)),
            (vague, without_article(vague.split(f" {WHERE[thing.place]}")[0])),
        ]
        result.append((thing, texts))
    return result


def reference(scene: Scene, thing: Thing) -> str:
    """The shortest name that fits no other object: "the star", "the red star", "the red star at the top left"."""
    same_shape = [other for other in scene.objects if other.shape == thing.shape and other != thing]
    if not same_shape:
        return f"the {thing.shape}"
    if thing.colour not in (other.colour for other in same_shape):
        return f"the {thing.colour} {thing.shape}"
    return f"the {thing.colour} {thing.shape} {WHERE[thing.place]}"


def description(thing: Thing) -> str:
    """An object's full name with an article: "a large striped red star"."""
    return NOUN[0][0].format(**vars(thing))


def standing(thing: Thing) -> str:
    """An object and where it is as a sentence: "The large striped red star stands at the top left."."""
    return f"The {description(thing).partition(' ')[2]} stands {WHERE[thing.place]}."


def coming(thing: Thing) -> str:
    """What there will be at a place: "At the top left there will be a large striped red star."."""
    return f"{sentence(WHERE[thing.place])} there will be {description(thing)}."


def relation(a: Thing, b: Thing) -> str:
    """Where ``a`` is, seen from ``b``: "to the left of", or "above" where both stand in one column."""
    (xa, ya), (xb, yb) = PLACES[a.place], PLACES[b.place]
    if xa != xb:
        return "to the left of" if xa < xb else "to the right of"
    return "above" if ya < yb else "below"


def plural(noun: str) -> str:
    """ "stars", "crosses"."""
    return noun + ("es" if noun.endswith("s") else "s")


def counted(number: int, noun: str = "object") -> str:
    """ "one star", "three stars", "no objects"."""
    return f"{NUMBERS[number]} {noun if number == 1 else plural(noun)}"


def enumerated(items: list[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1]]))


def with_article(noun: str) -> str:
    """ "a star", "an orange star"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def sentence(text: str) -> str:
    """The text with a capital at its start; nothing else changes."""
    return text[:1].upper() + text[1:]


def _in_order(
    scene: Scene, seed: int, moved: Moved | None = None, order: Order = "any"
) -> list[tuple[str, Thing]]:
    """The objects as they are named, each with the place that its wording depends on."""
    new, old = moved or ("", "")
    by_spot = {old if thing.place == new else thing.place: thing for thing in scene.objects}
    if isinstance(order, tuple):
        spots = order
    elif order == "reading":
        spots = sorted(by_spot, key=list(PLACES).index)
    else:
        spots = shuffled(tuple(by_spot), seed, "order")
    return [(spot, by_spot[spot]) for spot in spots]


def _early_and_late(
    scene: Scene, seed: int, moved: Moved | None, order: Order
) -> tuple[list[tuple[str, Thing]], list[tuple[str, Thing]]]:
    """The objects that a detailed caption names before all else that it says, and those that it names last."""
    ordered = _in_order(scene, seed, moved, order)
    early = [one for one in ordered if choose((True, False), seed, one[0], "early")]
    if len(ordered) > 1 and len(early) == len(ordered):
        early.pop()
    if order != "any":
        early = ordered[: len(early)]
    return early, [one for one in ordered if one not in early]


def _phrasing(slot: Slot, held_out: bool, *key: object) -> str:
    return choose(slot[held_out], *key)


def _noun(thing: Thing, seed: int, held_out: bool, spot: str) -> str:
    return _phrasing(NOUN, held_out, seed, spot, "noun").format(**vars(thing))


def _opening(scene: Scene, seed: int, held_out: bool) -> str:
    template = _phrasing(OPENING, held_out, seed, "opening")
    on = ON[scene.background]
    return template.format(number=counted(len(scene.objects)), on=on, On=sentence(on))


def _object(thing: Thing, seed: int, held_out: bool, spot: str) -> str:
    noun, where = _noun(thing, seed, held_out, spot), WHERE[thing.place]
    template = _phrasing(OBJECT, held_out, seed, spot, "object")
    return template.format(noun=noun, Noun=sentence(noun), where=where, Where=sentence(where))


def _light(scene: Scene, seed: int, held_out: bool) -> str:
    shade = SIDES[1 - SIDES.index(scene.light)]
    template = _phrasing(LIGHT, held_out, seed, "light")
    return template.format(tone=scene.tone, Tone=sentence(scene.tone), light=scene.light, shade=shade)


def _relation(scene: Scene, ordered: list[Thing], seed: int, held_out: bool) -> str:
    """What stands behind what, else how the first two objects stand to each other; of one object, nothing."""
    if len(ordered) == 1:
        return ""
    a, b = scene.behind[0] if scene.behind else ordered[:2]
    how = "partly behind" if scene.behind else relation(a, b)
    template = _phrasing(RELATION, held_out, seed, "relation")
    return template.format(A=sentence(reference(scene, a)), relation=how, b=reference(scene, b))
