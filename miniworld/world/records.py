"""What the assistant is taught: requests about scenes, with the right replies.

A record is text and pictures only; which tokenizer or model reads it is the trainer's business. Requests of the
tasks that ``llmga.chat.tasks`` knows come in its phrasings and in some of our own, held-out ones in new phrasings.
Replies to a wish name the objects in its order, those to a picture row by row: whoever learns it has less to guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from PIL import Image

from llmga.chat.tasks import TASKS

from .captions import (
    WHERE,
    Moved,
    Order,
    coming,
    detailed_caption,
    enumerated,
    overview,
    places_left_open,
    places_named,
    short_caption,
    vague_caption,
)
from .edits import Edit, concerned, sample_edit
from .facts import Facts, caption_facts, facts
from .instructions import EDIT_REQUESTS
from .phrases import REQUESTS, Slot
from .questions import sample_existence, sample_find, sample_question
from .render import Masks, Rendering, render
from .scene import PLACES, UNIT, Scene, Thing, choose

Kind = Literal[
    "refine",
    "imagine",
    "complete",
    "similar",
    "brief",
    "describe",
    "inpaint",
    "outpaint",
    "edit",
    "question",
    "exists",
    "find",
    "changes",
    "outcome",
    "reading",
]
RECORD_KINDS: tuple[Kind, ...] = get_args(Kind)

# Not in ``phrases``: the painter's table is drawn for the words of that file, and would be another one.
ONE_LINE: dict[str, Slot] = {
    "complete": (
        (
            "In one line, complete this picture: {instruction}",
            "Say {instruction} in one line, with all that is open.",
        ),
        ("Complete {instruction} in one line.",),
    ),
    "brief": (
        ("Say in one line what you see.", "Describe this picture in one line."),
        ("In one line, what does this picture show?",),
    ),
}
"""Requests for a reply of one line."""

MORE_REQUESTS: dict[str, tuple[str, ...]] = {
    "similar": (
        "Please paint this picture once more.",
        "Show me a new image of what you see here.",
        "Please create an image of all that this picture shows.",
        "What you can see in this image, paint it again.",
        "I want a second picture with all of this. Please generate it.",
        "Write the prompt of an image like this one.",
    ),
    "describe": (
        "Please describe this picture.",
        "Please describe the image, from left to right.",
        "Please tell me what you can see here.",
        "Please say in words what this picture shows.",
        "Please write what is in this image.",
        "Write down what this image shows.",
        "Write all that you see.",
        "Write a description of this picture for me.",
        "Describe what can be seen in this image.",
        "Describe what this is a picture of.",
        "What do you see?",
        "What does the image show, in detail?",
        "Tell me all about this picture.",
        "I would like to know what is in this picture.",
    ),
    "inpaint": ("Please paint the black area of this image.", "Complete the piece that is black."),
    "outpaint": ("Please paint beyond the black border.", "Please make this image go on at its edges."),
    "edit": EDIT_REQUESTS,
}
"""More requests in training, so that no single word tells them apart: plain text or tags is what the sentence asks."""

_OUTCOME: Slot = (
    (
        "Only say what the new picture will show. {instruction}",
        "{instruction} What will the new picture show?",
        "{instruction} Say what will be where.",
    ),
    ("What will there be in the new picture? {instruction}",),
)

_CHANGES: Slot = (
    (
        "{instruction} What will change?",
        "{instruction} Only say what will be different.",
        "Say what changes. {instruction}",
        "What will be where, and what will not? {instruction}",
    ),
    ("What will be different? {instruction}",),
)

# The parts of an object that have to show beside a hole: to recognise it, and to see that something stands there.
_RECOGNISABLE, _TRACE = 0.8, 0.1


@dataclass(frozen=True)
class Record:
    """One request and its reply.

    ``reply`` holds a prompt in ``<gen_image>`` tags where a picture is asked for. ``given`` is what a good reply has to
    keep: what the words ask for, what the picture shows, what the edit leads to; nothing for questions, whose
    replies have one wording each and can be compared as they are.
    """

    kind: Kind
    instruction: str
    pictures: tuple[Image.Image, ...]
    reply: str
    given: Facts = Facts(())
    wish: str = ""
    """The user's own words in ``instruction`` where a hole is to be filled, often none, or an outcome told."""


def sample_record(kind: Kind, scene: Scene, seed: int, *, held_out: bool = False, size: int = 128) -> Record:
    """A request about the scene, and the reply to it.

    "refine" expands a few words to a prompt in tags, "imagine" to plain text, "complete" to one line; "similar" turns
    a picture into a prompt, "describe" into plain text, "brief" into one line; "inpaint" and "outpaint" turn a picture
    with a black hole, at times with words on what is missing or on all, into the prompt of the whole; "edit" turns an
    instruction and a picture, or the picture's caption, into the prompt of the result, "changes" into what will change
    alone, "outcome" an edit or a hole into all of the reply but its prompt; "question", "exists" and "find" are about a
    picture, "reading" about a caption.

    Args:
        held_out: word the request, and any caption in it, as training never does.
        size: of the pictures, in pixels.

    Raises:
        ValueError: ``kind`` is not in ``RECORD_KINDS``.
    """
    match kind:
        case "refine" | "imagine":
            wish, reply = vague_caption(scene, seed), detailed_caption(scene, seed, order="wish")
            request = _request(kind, seed, held_out, wish)
            return Record(
                kind, request, (), reply if kind == "imagine" else _tagged(reply), caption_facts(wish)
            )
        case "complete":
            wish = vague_caption(scene, seed)
            request = _request(kind, seed, held_out, wish)
            return Record(kind, request, (), short_caption(scene, seed), caption_facts(wish))
        case "brief":
            said = short_caption(scene, seed, order="reading")
            picture = render(scene, size).image
            return Record(kind, _request(kind, seed, held_out), (picture,), said, caption_facts(said))
        case "similar" | "describe":
            reply, picture = detailed_caption(scene, seed, order="reading"), render(scene, size).image
            request = _request(kind, seed, held_out)
            return Record(
                kind, request, (picture,), reply if kind == "describe" else _tagged(reply), facts(scene)
            )
        case "inpaint" | "outpaint":
            return _with_hole(kind, scene, seed, held_out, size)
        case "outcome":
            return _outcome(scene, seed, held_out, size)
        case "edit":
            return _edited(scene, seed, held_out, size)
        case "question":
            question, answer = sample_question(scene, seed, held_out=held_out)
            return Record(kind, question, (render(scene, size).image,), answer)
        case "exists":
            question, answer = sample_existence(scene, seed, held_out=held_out)
            return Record(kind, question, (render(scene, size).image,), answer)
        case "find":
            request, found = sample_find(scene, seed, held_out=held_out)
            return Record(kind, request, (render(scene, size).image,), found)
        case "changes":
            edit = sample_edit(scene, seed, held_out=held_out)
            request = choose(_CHANGES[held_out], seed, "request").format(instruction=edit.instruction)
            return Record(kind, request, (render(scene, size).image,), concerned(edit))
        case "reading":
            ask = choose((sample_question, sample_existence), seed, "reading")
            question, answer = ask(scene, seed, held_out=held_out)
            return Record(kind, f"{detailed_caption(scene, seed, held_out=held_out)}\n{question}", (), answer)
    raise ValueError(f"kind must be one of {', '.join(RECORD_KINDS)}, got {kind!r}")


def sample_hole(kind: Literal["inpaint", "outpaint"], seed: int, size: int = 128) -> Masks:
    """(size, size), True where the picture is missing.

    "inpaint": one or two boxes around places of the grid. "outpaint": a quarter to two fifths at one to three sides.
    """
    unit = size / UNIT
    hole = np.zeros((size, size), dtype=bool)
    if kind == "inpaint":
        for i in range(choose((1, 2), seed, "boxes")):
            x, y = PLACES[choose(tuple(PLACES), seed, "box", i)]
            width, height = (choose(range(36, 61), seed, axis, i) / 2 for axis in ("width", "height"))
            left, right, top, bottom = (
                max(0, round(edge * unit)) for edge in (x - width, x + width, y - height, y + height)
            )
            hole[top:bottom, left:right] = True
    else:
        sides = [side for side in range(4) if choose((True, False), seed, "side", side)]
        for side in sides[:3] or [choose(range(4), seed, "only side")]:
            # Turning the picture makes every side its top.
            depth = round(choose(range(32, 52), seed, "depth", side) * unit)
            np.rot90(hole, side)[:depth] = True
    return hole


def outcome_of(seed: int) -> Literal["inpaint", "outpaint", "edit"]:
    """What an "outcome" record tells the outcome of."""
    return choose(("inpaint", "outpaint", "edit"), seed, "outcome")


def hidden(
    scene: Scene, rendering: Rendering, hole: Masks, enough: float = _RECOGNISABLE
) -> tuple[Thing, ...]:
    """The objects of which too little shows beside a hole; by default, to recognise them.

    Args:
        hole: (H, W), as large as ``rendering``.
        enough: the part of an object that has to show.
    """
    left = (rendering.visible & ~hole).sum(axis=(1, 2)) / rendering.amodal.sum(axis=(1, 2))
    return tuple(thing for thing, part in zip(scene.objects, left, strict=True) if part < enough)


def covered(hole: Masks) -> tuple[str, ...]:
    """The places whose middle a hole (H, W) covers."""
    scale = len(hole) / UNIT
    return tuple(place for place, (x, y) in PLACES.items() if hole[int(y * scale), int(x * scale)])


def _with_hole(
    kind: Literal["inpaint", "outpaint"], scene: Scene, seed: int, held_out: bool, size: int
) -> Record:
    rendering, hole = render(scene, size), sample_hole(kind, seed, size)
    picture = Image.fromarray(np.where(hole[..., None], 0, np.asarray(rendering.image)).astype(np.uint8))
    missing = hidden(scene, rendering, hole)
    wish, named, new = "", places_named(scene, seed, "reading"), {}
    match choose(("nothing", "missing", "missing", "all"), seed, "wish"):
        case "missing" if missing:
            asked = replace(scene, objects=missing)
            wish, named = vague_caption(asked, seed), places_named(asked, seed)
            unseen = {thing.place for thing in hidden(scene, rendering, hole, _TRACE)}
            unsettled = [spot for spot in places_left_open(asked, seed) if spot in unseen]
            new = room_for(unsettled, scene, hole)
        case "all":
            wish, named = short_caption(scene, seed, held_out=held_out), places_named(scene, seed)
        case _:
            pass
    complete, stated = facts(scene), caption_facts(wish)
    places = {thing.place for thing in missing}
    objects = [mention for mention in complete.objects if mention.place not in places]
    objects += [mention for mention in stated.objects if mention.place is None or mention.place in places]
    area = [place for place in PLACES if place in places.union(covered(hole))]
    reply = _filled_reply(scene, area, [place for place in named if place in places], new, seed)
    request = _request(kind, seed, held_out, wish)
    return Record(kind, request, (picture,), reply, replace(complete, objects=tuple(objects)), wish)


def _filled_reply(
    scene: Scene, area: Sequence[str], missing: Sequence[str], new: Mapping[str, str], seed: int
) -> str:
    """The prompt of a picture with a hole behind an overview of what it shows, where the hole is, what there will be in it,
    as it was named, and an overview of the whole: so the chat decides one thing at a time, and then only repeats.

    Args:
        area: the places in the hole; ``sample_hole`` covers the middle of one at least.
        missing: the places of the objects that it hides.
        new: the places to which some of them go.
    """
    whole = _moved(scene, new)
    added = {thing.place: thing for thing in whole.objects}
    shown = tuple(place for place in places_named(scene, seed, "reading") if place not in missing)
    said = [coming(added[new.get(place, place)]) for place in missing]
    seen = overview("The picture shows", scene, seed, shown)
    where = f"The missing area is {enumerated([WHERE[place] for place in area])}."
    then = overview("The new picture will show", whole, seed, "reading")
    return " ".join((seen, where, *said, then, _tagged(detailed_caption(whole, seed, order="reading"))))


def _outcome(scene: Scene, seed: int, held_out: bool, size: int) -> Record:
    """A picture with a hole, or one to edit, and all of the reply but its prompt."""
    of = outcome_of(seed)
    if of == "edit":
        edit = sample_edit(scene, seed, held_out=held_out)
        wish, pictures = edit.instruction, (render(scene, size).image,)
        reply = edited_reply(edit, seed, order="reading")
    else:
        record = _with_hole(of, scene, seed, held_out, size)
        wish, pictures, reply = record.wish, record.pictures, record.reply
    request = choose(_OUTCOME[held_out], seed, "request").format(instruction=wish).strip()
    return Record("outcome", request, pictures, reply.partition(" <gen_image>")[0], wish=wish)


def room_for(unsettled: Sequence[str], scene: Scene, hole: Masks) -> dict[str, str]:
    """For the objects at some places, in this order, the places where a hole (H, W) leaves room, row by row.

    Where nothing says and nothing shows where an object stands, any place in the hole is as right as that of the scene;
    but a reply that is to be learned follows from its request.
    """
    taken = {thing.place for thing in scene.objects}.difference(unsettled)
    room = [place for place in PLACES if place in (*covered(hole), *unsettled) and place not in taken]
    return dict(zip(unsettled, room, strict=False))


def _moved(scene: Scene, new: Mapping[str, str]) -> Scene:
    """The scene with each object whose place is a key of ``new`` in the middle of the place that it names."""
    things = (
        replace(thing, place=new[thing.place], shift=(0, 0)) if thing.place in new else thing
        for thing in scene.objects
    )
    return replace(scene, objects=tuple(things))


def _edited(scene: Scene, seed: int, held_out: bool, size: int) -> Record:
    edit = sample_edit(scene, seed, held_out=held_out)
    request = _request("edit", seed, held_out, edit.instruction)
    given = facts(edit.target)
    if choose(("picture", "picture", "picture", "caption"), seed, "edited") == "caption":
        reply = edited_reply(edit, seed, order="any", moved=edit.moved)
        return Record("edit", f"{edit.detailed[0]}\n{request}", (), reply, given)
    return Record(
        "edit", request, (render(scene, size).image,), edited_reply(edit, seed, order="reading"), given
    )


def edited_reply(edit: Edit, seed: int, *, order: Order, moved: Moved | None = None) -> str:
    """The prompt of an edited picture behind an overview of what is there, what the edit concerns, and an overview of what
    there will be: so the chat looks at the picture once, finds the object in words, and changes words."""
    seen = overview("The picture shows", edit.source, seed, order)
    then = overview("The new picture will show", edit.target, seed, order, moved)
    prompt = _tagged(detailed_caption(edit.target, seed, order=order, moved=moved))
    return f"{seen} {concerned(edit)} {then} {prompt}"


def _request(kind: Kind, seed: int, held_out: bool, instruction: str = "") -> str:
    shown, unseen = (REQUESTS | ONE_LINE)[kind]
    shown += MORE_REQUESTS.get(kind, ()) + (TASKS[kind].phrasings if kind in TASKS else ())
    template = choose(unseen if held_out else shown, seed, "request")
    if "{instruction}" not in template:
        template += " {instruction}"
    return template.format(instruction=instruction).strip()


def _tagged(prompt: str) -> str:
    return f"<gen_image> {prompt} </gen_image>"
