"""The prompts of a scene, each with the places of its objects' words in the encoded prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..edit.positions import text_positions
from ..text.alike import visible
from ..text.chunks import CONTENT, Plan, count_tokens
from ..text.encoder import Plans, PromptEncoder, longest
from ..text.readout import dropped_line
from .plan import SceneObject, ScenePlan

ALONE_NEGATIVE = "two, many, group, duplicate, occluded, cropped, border, collage, blurry, distorted"
"""Added to the negative prompt of an object that is painted alone: it must be a single, complete object."""


@dataclass(frozen=True)
class ScenePrompt:
    """A planned prompt, and the positions of the phrases in it that are guided."""

    text: str
    plans: Plans
    phrases: tuple[tuple[int, ...], ...]
    """For each object the positions of its name's tokens, in order."""

    @property
    def chunks(self) -> int:
        return longest(self.plans)


def object_prompt(encoder: PromptEncoder[Any], plan: ScenePlan, number: int) -> ScenePrompt:
    """The prompt of one object alone: "<background> with <name> <descriptions>"."""
    return _prompt(encoder, plan.background, [plan.objects[number]])


def scene_prompt(encoder: PromptEncoder[Any], plan: ScenePlan) -> ScenePrompt:
    """The prompt of the whole scene: "<background> with <name> <descriptions>, <name> <descriptions>".

    Raises:
        ValueError: an object's name lies beyond the tokens that are read.

    Source: RFNet's overall prompt. Deviations: objects of one name are named one by one, each with its own tokens, and are
    not counted in a plural; descriptions are put where they belong, and not found again by splitting at commas.
    """
    return _prompt(encoder, plan.background, plan.objects)


def long_prompt(plan: ScenePlan) -> str:
    """The whole plan as one prompt for a model without any guidance: places are said in words."""
    objects = [f"{_clean(_object_text(one))} {_place(one)}" for one in plan.objects]
    return ", ".join(filter(None, [*objects, _clean(plan.background)]))


def all_text(plan: ScenePlan) -> str:
    """Every text of a plan that is encoded, each on a line of its own, the negative prompt last."""
    objects = [text for one in plan.objects for text in (one.name, *one.descriptions)]
    return "\n".join([*map(_clean, [plan.background, *objects]), plan.negative])


def alone_negative(plan: ScenePlan, added: str) -> str:
    """The negative prompt of an object that is painted alone: the plan's, and what is added to it."""
    return ", ".join(filter(None, (text.strip(" ,.") for text in (plan.negative, added))))


def dropped_notes(
    encoder: PromptEncoder[Any],
    plan: ScenePlan,
    prompts: Sequence[ScenePrompt],
    whole: ScenePrompt,
    added: str,
) -> list[str]:
    """A line for each prompt of which tokens are left out, and for what is left out of negative prompts, which are encoded
    in as many chunks as the prompt that they stand beside.

    Args:
        prompts, whole: of the objects, and of the scene.
        added: to the negative prompt of each object.
    """
    names = [one.name for one in plan.objects] + ["the scene"]
    named = list(zip(names, [*prompts, whole], strict=True))
    notes = [
        f"the prompt of {name} is cut: {len(prompt.plans['l'].dropped)} tokens beyond its last chunk are not read"
        for name, prompt in named
        if prompt.plans["l"].dropped
    ]
    lines: dict[str, list[str]] = {}
    for name, prompt in named:
        text = plan.negative if prompt is whole else alone_negative(plan, added)
        negative = encoder.plan_negative(text, prompt.chunks)["l"]
        if negative.dropped:
            limit = f"the {prompt.chunks} × {CONTENT} tokens of its prompt"
            lines.setdefault(dropped_line(negative, limit), []).append(name)
    return notes + [f"the negative prompt of {', '.join(of)}: {line}" for line, of in lines.items()]


def _prompt(encoder: PromptEncoder[Any], background: str, objects: Sequence[SceneObject]) -> ScenePrompt:
    """Every piece is tokenised on its own: CLIP's words do not reach over spaces, so the pieces' tokens are the text's."""
    text, spans = _clean(background), []
    for number, one in enumerate(objects):
        joint = ("" if not text else " with ") if number == 0 else ", "
        before, name = count_tokens(encoder.tokenize("l", text + joint)), _clean(one.name)
        spans.append((before, before + count_tokens(encoder.tokenize("l", name))))
        text += joint + _clean(_object_text(one))
    plans = encoder.plan(text)
    where = text_positions(plans["l"], encoder.layout)
    phrases = []
    for one, (start, end) in zip(objects, spans, strict=True):
        if end > len(where) or start == end:
            raise ValueError(_beyond(one, plans["l"], encoder.max_chunks))
        phrases.append(tuple(where[start:end]))
    return ScenePrompt(text, plans, tuple(phrases))


def _beyond(one: SceneObject, plan: Plan, max_chunks: int) -> str:
    count = sum(map(len, plan.chunks)) + len(plan.dropped)
    if not plan.dropped:
        return f"the object {one.name!r} has no word that the text encoder knows; rename it"
    return (
        f"the object {one.name!r} lies beyond the {max_chunks} × {CONTENT} tokens of the prompt that are read (it has "
        f"{count}); shorten the background or the descriptions, or leave objects out"
    )


def _object_text(one: SceneObject) -> str:
    return " ".join([one.name, ", ".join(one.descriptions)]).strip()


def _clean(text: str) -> str:
    """One line of what is seen, without the full stop at its end; a lone BREAK is not a command here."""
    return " ".join(word for word in visible(text).split() if word != "BREAK").rstrip(" .,;")


def _place(one: SceneObject) -> str:
    """ "at the top left", "at the right", "in the centre"."""
    x, y = one.box.centre
    down = ("top", "", "bottom")[min(int(y * 3), 2)]
    across = ("left", "", "right")[min(int(x * 3), 2)]
    where = " ".join(filter(None, (down, across)))
    return f"at the {where}" if where else "in the centre"
