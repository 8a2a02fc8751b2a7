"""The task *scene*: ask a chat engine for the plan of a scene, and once more if its reply cannot be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..chat.conversation import Conversation, Picture
from ..chat.engines.base import ChatEngine, HasStructuredOutput, OnText, Said, Sampling
from ..chat.refusal import is_refusal
from ..chat.tasks import render
from .parse import ParsedPlan, ScenePlanError, parse_plan
from .plan import MAX_DESCRIPTION, MAX_DESCRIPTIONS, MAX_OBJECT_NAME, MAX_OBJECTS, MAX_SCENE_TEXT, ScenePlan

SCENE_SYSTEM_PROMPT = """\
You plan pictures. For a sentence about a picture you answer with one JSON object and nothing else:
{"objects": [{"name": ..., "box": [x, y, width, height], "descriptions": [..., ..., ...]}, ...], \
"background": ..., "negative": ...}

- objects: the things that must be seen, at most eight, with their articles. Actions and places are not objects.
- box: where the object stands, in parts of the picture from 0 to 1; 0, 0 is the top left corner. Boxes overlap as \
little as the scene allows, none covers the whole picture, and sizes tell what is near and far.
- descriptions: three different ones for each object, each short enough to follow its name: looks, posture, what it \
does to the others. Think of what the sentence implies: why it is strange, old, brave, dangerous. The first \
descriptions of all objects belong together, and so do the second and the third.
- background: the place and the light, without any of the objects.
- negative: what a painter would wrongly add; empty if there is nothing.

Write in English. Write nothing before or after the JSON object.
"""

_EXAMPLES: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "a snail overtaking a racing car",
        {
            "objects": [
                {
                    "name": "a snail",
                    "box": [0.48, 0.42, 0.46, 0.4],
                    "descriptions": [
                        "racing ahead at full speed, its shell tilted into the curve, dust behind it",
                        "stretched forward in a sprint, eyes narrowed, a number on its shell",
                        "calm and far in front, leaving a glittering trail on the asphalt",
                    ],
                },
                {
                    "name": "a racing car",
                    "box": [0.04, 0.5, 0.4, 0.3],
                    "descriptions": [
                        "falling behind, its wheels smoking, the driver looking up in disbelief",
                        "straining to keep up, nose down, exhaust glowing",
                        "small and beaten in the distance of the track",
                    ],
                },
            ],
            "background": "a race track in bright noon light, blurred stands, skid marks on the asphalt",
            "negative": "snail on a leaf, parked car",
        },
    ),
    (
        "the grandfather clock that nobody has wound since 1920",
        {
            "objects": [
                {
                    "name": "a grandfather clock",
                    "box": [0.32, 0.1, 0.36, 0.82],
                    "descriptions": [
                        "stopped, thick with dust and cobwebs, its brass face dull and its glass cracked",
                        "leaning slightly, the varnish peeled, the pendulum hanging still",
                        "abandoned, moths on its door, the hands fallen to half past six",
                    ],
                }
            ],
            "background": "the hall of a deserted house, grey daylight through a dirty window, faded wallpaper",
            "negative": "polished, new, modern furniture",
        },
    ),
)

PLAN_SCHEMA: Mapping[str, Any] = {
    "title": "scene",
    "type": "object",
    "properties": {
        "objects": {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_OBJECTS,
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "maxLength": MAX_OBJECT_NAME},
                    "box": {
                        "type": "array",
                        "items": {"type": "number", "minimum": 0, "maximum": 1},
                        "minItems": 4,
                        "maxItems": 4,
                    },
                    "descriptions": {
                        "type": "array",
                        "items": {"type": "string", "maxLength": MAX_DESCRIPTION},
                        "minItems": MAX_DESCRIPTIONS,
                        "maxItems": MAX_DESCRIPTIONS,
                    },
                },
                "required": ["name", "box", "descriptions"],
                "additionalProperties": False,
            },
        },
        "background": {"type": "string", "maxLength": MAX_SCENE_TEXT},
        "negative": {"type": "string", "maxLength": MAX_SCENE_TEXT},
    },
    "required": ["objects", "background", "negative"],
    "additionalProperties": False,
}
"""The JSON schema of a reply, for engines that can be held to one."""

_REPAIR = (
    'That plan cannot be used: {fault}. Write the whole plan again as one JSON object, with "objects" (each with "name", '
    '"box" as [x, y, width, height] from 0 to 1, and three "descriptions"), "background" and "negative".'
)
_SECOND_SEED = 0x9E3779B97F4A7C15  # far from the seeds next to the first, which a batch uses
_QUOTED = 200  # characters of a reply in an error


@dataclass(frozen=True)
class PlannedScene:
    """The outcome of ``plan_scene``."""

    plan: ScenePlan
    notes: tuple[str, ...]
    """How the reply was read, and what was clamped or left out."""
    conversation: Conversation
    """The request and the reply that was taken, for the next change of the plan."""
    asked_again: bool = False


def plan_scene(
    engine: ChatEngine,
    prompt: str,
    *,
    sampling: Sampling,
    on_text: OnText,
    conversation: Conversation | None = None,
    picture: Picture | None = None,
) -> PlannedScene:
    """Ask for the plan of a scene.

    An engine that ``HasStructuredOutput`` is held to ``PLAN_SCHEMA``. A reply that cannot be read, or that refuses, is
    answered once with what is wrong with it, under another seed.

    Args:
        prompt: the user's sentence.
        sampling: its seed picks the wording of the request too.
        on_text: as in ``chat.respond``.
        conversation: an earlier plan to be changed: its system prompt and turns stay, and no examples are shown.
        picture: a photograph that the objects are added to.

    Raises:
        ValueError: there is no sentence, or the reply to the second request cannot be read either (``ScenePlanError``).
    """
    asked = (conversation or _examples()).say(
        "user", render("scene", prompt, sampling.seed), () if picture is None else (picture,)
    )
    said, parsed, fault = _ask(engine, asked, sampling, on_text, prompt)
    asked_again = parsed is None
    if parsed is None:
        again = asked.say("assistant", said.answer or "{}").say("user", _REPAIR.format(fault=fault))
        second = replace(sampling, seed=sampling.seed ^ _SECOND_SEED)
        said, parsed, fault = _ask(engine, again, second, on_text, prompt)
    if parsed is None:
        raise ScenePlanError(
            f"the task 'scene' needs a plan, but the reply of {engine.name!r} cannot be read, even when asked again: "
            f"{fault}; change 'prompt' or 'seed', raise 'max_new_tokens', or write the plan by hand. It says: "
            f"{said.answer[:_QUOTED]}"
        )
    return PlannedScene(parsed.plan, parsed.notes, asked.say("assistant", said.answer), asked_again)


def _ask(
    engine: ChatEngine, conversation: Conversation, sampling: Sampling, on_text: OnText, prompt: str
) -> tuple[Said, ParsedPlan | None, str]:
    if isinstance(engine, HasStructuredOutput):
        said = engine.generate_json(conversation, sampling, on_text, PLAN_SCHEMA)
    else:
        said = engine.generate(conversation, sampling, on_text)
    if not isinstance(said, Said):
        raise ValueError(f"the engine {engine.name!r} replied with {type(said).__name__} instead of a Said")
    said = replace(said, answer=said.answer.encode("utf-8", "replace").decode())
    try:
        return said, parse_plan(said.answer, prompt.strip()), ""
    except ScenePlanError as error:
        fault = "it refuses" if is_refusal(said.answer) else str(error)
        return said, None, "it ends inside the model's thinking" if said.unfinished else fault


def _examples() -> Conversation:
    conversation = Conversation(system=SCENE_SYSTEM_PROMPT)
    for number, (sentence, plan) in enumerate(_EXAMPLES):
        conversation = conversation.say("user", render("scene", sentence, number))
        conversation = conversation.say("assistant", json.dumps(plan))
    return conversation
