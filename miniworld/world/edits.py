"""Edits with their ground truth: what to do, both scenes, both captions, and the pixels that may change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

from .captions import (
    Moved,
    Order,
    coming,
    description,
    detailed_caption,
    reference,
    sentence,
    short_caption,
    standing,
    with_article,
)
from .instructions import MORE_INSTRUCTIONS
from .phrases import INSTRUCTIONS, ON, WHERE
from .render import Masks, changed
from .scene import (
    BACKGROUNDS,
    COLOURS,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    Thing,
    choose,
    shuffled,
    split_of,
)

Kind = Literal["recolour", "reshape", "resize", "retexture", "move", "add", "remove", "background"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_ATTRIBUTE = {
    "recolour": ("colour", COLOURS),
    "reshape": ("shape", SHAPES),
    "resize": ("size", tuple(SIZES)),
    "retexture": ("texture", TEXTURES),
}


@dataclass(frozen=True)
class Edit:
    """One edit. Captions are (of the source, of the target), with the same phrasing, so that few words differ."""

    kind: Kind
    instruction: str
    source: Scene
    target: Scene
    short: tuple[str, str]
    detailed: tuple[str, str]

    @property
    def moved(self) -> Moved | None:
        """Where an object that moves goes, and where it was."""
        if self.kind != "move":
            return None
        things = zip(self.source.objects, self.target.objects, strict=True)
        return next((new.place, old.place) for old, new in things if new != old)

    def mask(self, size: int = 128) -> Masks:
        """(size, size): where the two pictures may differ; they are equal to the bit everywhere else."""
        return changed(self.source, self.target, size)


def sample_edit(
    scene: Scene,
    seed: int,
    kind: Kind | None = None,
    *,
    held_out: bool = False,
    order: Order = "any",
) -> Edit:
    """An edit of the scene; of a training scene, one whose target is a training scene too.

    Args:
        kind: None takes any that the scene allows.
        held_out: word the instruction and the captions as training never does.
        order: of the objects in the detailed captions.

    Raises:
        ValueError: ``kind`` is unknown, or the scene allows no such edit (add to 8 objects, remove the only one).
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    for tried in (kind,) if kind else shuffled(KINDS, seed, "kind"):
        for target, words in _targets(scene, seed, tried):
            if split_of(scene) != "train" or split_of(target) == "train":
                template = choose(instructions(tried, held_out), seed, "instruction")
                return _edit(tried, template.format(**words), scene, target, seed, held_out, order)
    raise ValueError(f"this scene of {len(scene.objects)} objects allows no edit of the kind {kind!r}")


def concerned(edit: Edit) -> str:
    """A few sentences on what an edit concerns: which object it changes and where that stands, or that a place is free; then
    what there will be at each place that changes, or the new background."""
    old = next((thing for thing in edit.source.objects if thing not in edit.target.objects), None)
    new = next((thing for thing in edit.target.objects if thing not in edit.source.objects), None)
    said = []
    if old:
        said.append(standing(old))
    elif new:
        said.append(f"Nothing stands {WHERE[new.place]}.")
    if old and not (new and new.place == old.place):
        said.append(f"{sentence(WHERE[old.place])} there will be nothing.")
    if new:
        said.append(coming(new))
    if edit.target.background != edit.source.background:
        said.append(f"The background will be {_name(edit.target.background)}.")
    return " ".join(said)


def instructions(kind: Kind, held_out: bool) -> tuple[str, ...]:
    """The ways to ask for an edit of this kind: those of training, or those that it never shows."""
    shown, unseen = INSTRUCTIONS[kind]
    return unseen if held_out else shown + MORE_INSTRUCTIONS[kind]


def _edit(
    kind: Kind, instruction: str, source: Scene, target: Scene, seed: int, held_out: bool, order: Order
) -> Edit:
    edit = Edit(kind, f"{sentence(instruction)}.", source, target, ("", ""), ("", ""))
    short, detailed = (
        (write(source, seed, held_out=held_out), write(target, seed, held_out=held_out, moved=edit.moved))
        for write in (short_caption, partial(detailed_caption, order=order))
    )
    return replace(edit, short=short, detailed=detailed)


def _targets(scene: Scene, seed: int, kind: Kind) -> Iterator[tuple[Scene, dict[str, str]]]:
    """Possible results in the order of the seed, each with the words that its instruction needs."""
    if kind == "background":
        for background in shuffled(BACKGROUNDS, seed, kind):
            if background != scene.background:
                words = {"on": ON[background], "what": _name(background)}
                yield replace(scene, background=background), words
    elif kind == "add":
        if len(scene.objects) < 8:
            for thing in _additions(scene, seed):
                yield replace(scene, objects=(*scene.objects, thing)), _words(scene, thing, thing)
    else:
        # To resize or move one of two overlapping objects would change what stands behind what.
        fixed = {thing for pair in scene.behind for thing in pair} if kind in ("resize", "move") else set()
        for thing in shuffled(scene.objects, seed, "which"):
            if thing not in fixed:
                for new in _replacements(scene, thing, seed, kind):
                    yield _with(scene, thing, new), _words(scene, thing, new or thing)


def _additions(scene: Scene, seed: int) -> Iterator[Thing]:
    for attempt in range(10):
        for place in shuffled(scene.free_places, seed, "add"):
            key = (seed, "add", place, attempt)
            yield Thing(
                shape=choose(SHAPES, *key, "shape"),
                colour=choose(COLOURS, *key, "colour"),
                size=choose(tuple(SIZES), *key, "size"),
                texture=choose(TEXTURES, *key, "texture"),
                place=place,
            )


def _replacements(scene: Scene, thing: Thing, seed: int, kind: Kind) -> Iterator[Thing | None]:
    """What can stand instead of an object; None for nothing."""
    if kind == "move":
        for place in shuffled(scene.free_places, seed, kind):
            yield replace(thing, place=place)
    elif kind == "remove":
        if len(scene.objects) > 1:
            yield None
    else:
        attribute, values = _ATTRIBUTE[kind]
        for value in shuffled(values, seed, kind):
            if value != getattr(thing, attribute):
                yield replace(thing, **{attribute: value})


def _with(scene: Scene, old: Thing, new: Thing | None) -> Scene:
    things = (new if thing == old else thing for thing in scene.objects)
    return replace(scene, objects=tuple(thing for thing in things if thing))


def _name(background: str) -> str:
    """ "snow", "the night sky"."""
    return ON[background].split(" ", 1)[1]


def _words(scene: Scene, old: Thing, new: Thing) -> dict[str, str]:
    return {
        "it": reference(scene, old),
        "noun": description(new),
        "shape": with_article(new.shape),
        "colour": new.colour,
        "size": new.size,
        "texture": new.texture,
        "where": WHERE[new.place],
        "there": f"the {new.place}",
    }
