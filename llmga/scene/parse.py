"""Read a scene plan out of a language model's reply: whatever the model wrote around it, and however it counts boxes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..chat.thinking import split_reply
from ..files.lenient_json import read_lenient_cut
from ..text.alike import folded, visible
from .boxes import read_boxes
from .plan import (
    MAX_DESCRIPTION,
    MAX_DESCRIPTIONS,
    MAX_OBJECT_NAME,
    MAX_OBJECTS,
    MAX_SCENE_TEXT,
    SceneObject,
    ScenePlan,
)

MAX_PLAN_REPLY = 100_000
"""Characters of a reply that are looked at."""
_MAX_STARTS = 40
_SECTIONS = re.compile(
    r"^[ \t*#>-]{0,40}(objects?|descriptions?|more descriptions?|background(?: prompt)?|negative(?: prompt)?)"
    r"[ \t*]{0,8}:",
    re.IGNORECASE | re.MULTILINE,
)
_OBJECTS = ("objects", "object", "elements", "items", "boxes", "regions")
_NAMES = ("name", "object", "label", "phrase", "category", "class", "title")
_TEXTS = ("descriptions", "description", "desc", "details", "detail", "text", "prompt", "attributes")
_BACKGROUND = ("background", "background_prompt", "background prompt", "scene", "setting", "backdrop")
_NEGATIVE = ("negative", "negative_prompt", "negative prompt", "avoid")


class ScenePlanError(ValueError):
    """A reply holds no scene plan; the message says what is missing, in words that a language model can act on."""


@dataclass(frozen=True)
class ParsedPlan:
    """A plan out of a reply, and what was changed or left out in reading it."""

    plan: ScenePlan
    notes: tuple[str, ...] = ()


def parse_plan(reply: str, prompt: str = "") -> ParsedPlan:
    """Read the scene plan in a reply.

    JSON may be fenced, wrapped in prose, written as Python or cut off at its end, which a note says; RFNet's own lines
    (``Objects:``, ``Descriptions:``, ``More Description:``, ``Background prompt:``, ``Negative prompt:``) and a list of
    ComfyUI's elements are read too. Boxes may be in parts of the picture, percent, or pixels of any grid; they are clamped
    into the picture. Thinking is not looked at.

    Args:
        reply: anything.
        prompt: the user's sentence, which the plan keeps.

    Raises:
        ScenePlanError: there is no object with a box, or no number of a box can be used.
    """
    if not isinstance(reply, str):
        raise ScenePlanError(f"the reply must be text, got {type(reply).__name__}")
    answer = split_reply(reply[:MAX_PLAN_REPLY], False).answer
    notes = [f"only the first {MAX_PLAN_REPLY} characters of the reply were read"] * (
        len(reply) > MAX_PLAN_REPLY
    )
    if len(prompt) > MAX_SCENE_TEXT:
        notes.append(f"the plan keeps the first {MAX_SCENE_TEXT} characters of the sentence")
    document, is_cut, count = _document(answer)
    if document is None:
        raise ScenePlanError('there is no JSON object with "objects", "background" and "negative"')
    notes += [f"the reply holds {count} plans, of which the first was taken"] * (count > 1)
    notes += [_cut_note(document)] * is_cut
    return _plan_of(document, prompt[:MAX_SCENE_TEXT], notes)


def _document(text: str) -> tuple[Mapping[str, Any] | None, bool, int]:
    """The value that looks most like a plan: an object with a list of objects, else a bare list of them; whether the
    text's end cuts it off; and how many such objects there are."""
    starts = [match.start() for match in re.finditer(r"[{\[]", text)][:_MAX_STARTS]
    sections = _sections(text)
    end, bare, bare_cut = 0, None, False
    plans: list[tuple[Mapping[str, Any], bool]] = []
    for start in starts:
        if start < end:
            continue
        try:
            value, end, is_cut = read_lenient_cut(text, start)
        except ValueError:
            continue
        if isinstance(value, Mapping):
            inner = _unwrapped(value)
            if _list_of(inner, _OBJECTS):
                plans.append((inner, is_cut))
        elif bare is None and any(isinstance(one, Mapping) for one in value):
            bare, bare_cut = {"objects": value}, is_cut
    if plans:
        return *plans[0], len(plans)
    return *(sections if sections[0] else (bare, bare_cut)), 1


def _cut_note(document: Mapping[str, Any]) -> str:
    parts = {"background": _BACKGROUND, "negative prompt": _NEGATIVE}
    absent = [name for name, keys in parts.items() if all(_field(document, key) is None for key in keys)]
    without = f", and it has no {' and no '.join(absent)}" if absent else ""
    return (
        "the reply was cut off: its last words or numbers may be incomplete, objects may be missing"
        f"{without}; raise max_new_tokens if a language model wrote it"
    )


def _unwrapped(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The plan inside an object with one key, such as {"scene": {…}}."""
    inner = [each for each in value.values() if isinstance(each, Mapping)]
    return (
        inner[0]
        if len(inner) == 1 and not _list_of(value, _OBJECTS) and _list_of(inner[0], _OBJECTS)
        else value
    )


def _sections(text: str) -> tuple[dict[str, Any] | None, bool]:
    """RFNet's own format: a line for each field, lists of (name, box) and (name, description); and whether the text's
    end cuts the list of its last field off."""
    found: dict[str, str] = {}
    marks = list(_SECTIONS.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    for mark, end in zip(marks, ends, strict=False):
        found.setdefault(mark[1].lower().rstrip("s"), text[mark.end() : end].strip())
    last = marks[-1][1].lower().rstrip("s") if marks else ""
    names = ("object", "description", "more description")
    lists, cut = zip(*(_read_list(found.get(name, "")) for name in names), strict=True)
    objects, described = _pairs(lists[0]), [_pairs(lists[1]), *_nested_pairs(lists[2])]
    if not objects:
        return None, False
    texts = [{_key(name): value for name, value in pairs} for pairs in described]
    document = {
        "objects": [
            {
                "name": name,
                "box": box,
                "descriptions": [each[_key(name)] for each in texts if _key(name) in each],
            }
            for name, box in objects
        ],
        **{
            name: found.get(f"{name} prompt", found.get(name, "")).split("\n\n")[0]
            for name in ("background", "negative")
            if found.keys() & {name, f"{name} prompt"}
        },
    }
    return document, last in names and cut[names.index(last)]


def _pairs(value: list[Any]) -> list[tuple[str, Any]]:
    return [
        (one[0], one[1])
        for one in value
        if isinstance(one, list) and len(one) == 2 and isinstance(one[0], str)
    ]


def _nested_pairs(value: list[Any]) -> list[list[tuple[str, Any]]]:
    sets = [one for one in value if isinstance(one, list)]
    return [
        [(p[0], p[1]) for p in pairs if isinstance(p, list) and len(p) == 2 and isinstance(p[0], str)]
        for pairs in sets
    ]


def _read_list(text: str) -> tuple[list[Any], bool]:
    """The first list in a text, and whether the text's end cuts it off."""
    start = text.find("[")
    if start < 0:
        return [], False
    try:
        value, _, is_cut = read_lenient_cut(text, start)
    except ValueError:
        return [], False
    return (value, is_cut) if isinstance(value, list) else ([], False)


def _plan_of(document: Mapping[str, Any], prompt: str, notes: list[str]) -> ParsedPlan:
    given = _list_of(document, _OBJECTS)
    entries = [one for one in given if isinstance(one, Mapping)]
    if len(entries) < len(given):
        others = ", ".join(repr(one)[:40] for one in given if not isinstance(one, Mapping))
        notes.append(f"objects without a box were left out: {others[:200]}")
    if not entries:
        raise ScenePlanError('"objects" holds no object with a "name" and a "box"')
    if len(entries) > MAX_OBJECTS:
        left_out = ", ".join(
            filter(None, (_name(one)[:40] for one in entries[MAX_OBJECTS : MAX_OBJECTS + 5]))
        )
        notes.append(
            f"only the first {MAX_OBJECTS} of {len(entries)} objects were taken; left out: {left_out}, …"
        )
        entries = entries[:MAX_OBJECTS]
    boxes, box_notes = read_boxes(entries)
    notes += box_notes
    objects, faults = [], []
    for number, (entry, box) in enumerate(zip(entries, boxes, strict=True), 1):
        name = _cut(_name(entry), MAX_OBJECT_NAME, f"the name of object {number}", notes)
        if not name:
            faults.append(f'object {number} has no "name"')
        elif isinstance(box, str):
            faults.append(f"object {number} ({name}): {box}")
        else:
            objects.append(SceneObject(name, box, _descriptions(entry, name, notes)))
    if not objects:
        raise ScenePlanError("; ".join(faults[:3]))
    notes += [f"{fault}; it was left out" for fault in faults]
    background = _cut(_first_text(document, _BACKGROUND), MAX_SCENE_TEXT, "the background", notes)
    negative = _cut(_first_text(document, _NEGATIVE), MAX_SCENE_TEXT, "the negative prompt", notes)
    if negative.casefold().strip(". ") in ("none", "n/a", "null"):
        negative = ""
    return ParsedPlan(ScenePlan(tuple(objects), background, negative, prompt), tuple(notes))


def _name(entry: Mapping[str, Any]) -> str:
    name = _first_text(entry, _NAMES)
    if name or "desc" not in entry:
        return name
    # An element of ComfyUI's has its words in "desc"; the noun phrase stands before the first comma.
    return name_and_description(_plain(entry["desc"]))[0]


def name_and_description(text: str) -> tuple[str, str]:
    """A box's words as its object's name and a description: what stands before the first comma, and the rest."""
    name, *rest = re.split("[,，、]", text, maxsplit=1)
    return name.strip(), "".join(rest).strip()


def _descriptions(entry: Mapping[str, Any], name: str, notes: list[str]) -> tuple[str, ...]:
    texts: list[str] = []
    for key in _TEXTS:
        value = _field(entry, key)
        for each in value if isinstance(value, list) else [value]:
            text = _plain(each)
            if folded(text[: len(name)]) == folded(name):
                text = text[len(name) :]
            text = text.strip(" ,")
            if text and text not in texts:
                texts.append(_cut(text, MAX_DESCRIPTION, f"a description of {name}", notes))
    if len(texts) > MAX_DESCRIPTIONS:
        notes.append(f"{name}: only the first {MAX_DESCRIPTIONS} of {len(texts)} descriptions were taken")
    return tuple(texts[:MAX_DESCRIPTIONS])


def _list_of(document: Mapping[str, Any], keys: Sequence[str]) -> list[Any]:
    for key in keys:
        value = _field(document, key)
        if isinstance(value, Mapping):  # {"a fox": {"box": …}}: names as keys
            value = [{"name": name, **each} for name, each in value.items() if isinstance(each, Mapping)]
        if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
            return value
    return []


def _field(document: Mapping[str, Any], key: str) -> Any:
    if key in document:
        return document[key]
    return next((value for name, value in document.items() if _key(name) == key), None)


def _key(name: Any) -> str:
    return folded(str(name))


def _first_text(document: Mapping[str, Any], keys: Sequence[str]) -> str:
    for key in keys:
        value = _field(document, key)
        if isinstance(value, Mapping):
            value = _first_text(value, _TEXTS)
        if isinstance(value, list):
            value = ", ".join(filter(None, map(_plain, value)))
        text = _plain(value)
        if text:
            return text
    return ""


def _plain(value: Any) -> str:
    """One line of text; numbers are names too ("7"), anything else is not."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    sendable = str(value).encode("utf-8", "replace").decode()
    return " ".join("".join(c if c.isprintable() or c.isspace() else " " for c in visible(sendable)).split())


def _cut(text: str, limit: int, what: str, notes: list[str]) -> str:
    if len(text) > limit:
        notes.append(f"{what} was cut from {len(text)} to {limit} characters")
    return text[:limit].strip()
