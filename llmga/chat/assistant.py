"""One step of a chat: say it, hear the reply, find its prompt, and know what to do when there is none.

Written once against ``ChatEngine``, so that every engine keeps the same rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from .conversation import Conversation, Picture
from .engines.base import ChatEngine, OnText, Sampling
from .refusal import is_refusal
from .tags import parse, without_thinking
from .tasks import SYSTEM_PROMPT, check_pictures, get_task, render

Policy = Literal["ask_again", "whole_reply", "keep_previous", "error"]

_REMINDERS = {
    "one": "Please write the prompt of the image, in exactly this form: <gen_image> the prompt </gen_image>",
    "several": (
        "Please tell it again with one prompt per image, each in exactly this form: "
        "<gen_image> the prompt </gen_image>"
    ),
}
_SECOND_SEED = 0x9E3779B97F4A7C15  # any odd pattern: far from the seeds next to the first, which a batch uses
_QUOTED = 200  # characters of a reply in an error


@dataclass(frozen=True)
class Reply:
    """What came of one step.

    Args:
        text: the reply for a person, without tags and thinking.
        prompts: what can be painted, in order; empty if this turn has nothing to paint.
        conversation: the conversation with this exchange, to be passed in next time.
        refused: the (last) reply was a refusal; its words are in ``text`` and never in ``prompts``.
        asked_again: the first reply had no prompt, and this is the second.
    """

    text: str
    prompts: tuple[str, ...]
    conversation: Conversation
    refused: bool = False
    asked_again: bool = False

    @property
    def prompt(self) -> str:
        """The first prompt, or ``""``."""
        return self.prompts[0] if self.prompts else ""

    @property
    def has_prompt(self) -> bool:
        return bool(self.prompts)


def respond(
    engine: ChatEngine,
    conversation: Conversation,
    *,
    task: str,
    instruction: str,
    pictures: Sequence[Picture] = (),
    sampling: Sampling,
    policy: Policy,
    on_text: OnText,
    system: str | None = None,
) -> Reply:
    """Ask the engine for one reply and find its prompts.

    ``refine``, ``similar``, ``inpaint``, ``outpaint``, ``edit`` and ``story`` must bring a prompt. A reply
    without one, or with a refusal, goes by the policy: ``ask_again`` reminds of the format once, with another
    seed; ``whole_reply`` takes the text as the prompt, but never that of a refusal; ``keep_previous`` takes
    the prompts of the latest reply in the conversation that has some; ``error`` stops. ``chat`` brings the
    prompts it happens to hold. ``describe`` brings a caption, which is a prompt: the whole text unless the
    reply holds tags.

    The conversation keeps the reply with its tags, for a model follows the format it sees itself use, and
    without its thinking. When it was asked again it keeps the request and the good reply only.

    Args:
        engine: continues the conversation.
        conversation: what was said before; its own system prompt stays.
        task: a key of ``TASKS``.
        instruction: the user's words.
        pictures: shown with this turn; a hole is black already.
        sampling: its seed picks the phrasing too.
        policy: for a reply without a prompt.
        on_text: gets the raw text while it is written, anew when asked again; may raise anything.
        system: the system prompt of a conversation without one; ``None`` is ``SYSTEM_PROMPT``.

    Raises:
        ValueError: the inputs do not fit the task, the reply is empty, or there is no prompt and the policy
            finds none.
    """
    if policy not in get_args(Policy):
        raise ValueError(f"'policy' must be one of {', '.join(get_args(Policy))}, got {policy!r}")
    expects = get_task(task).expects
    check_pictures(task, image=bool(pictures or conversation.pictures))
    if not conversation.system:
        conversation = replace(conversation, system=SYSTEM_PROMPT if system is None else system)
    asked = conversation.say("user", render(task, instruction, sampling.seed), tuple(pictures))

    heard = _hear(engine, asked, sampling, on_text)
    missing = expects in _REMINDERS and not heard.prompts
    asked_again = missing and policy == "ask_again"
    if asked_again:
        reminded = asked.say("assistant", heard.raw).say("user", _REMINDERS[expects])
        heard = _hear(engine, reminded, replace(sampling, seed=sampling.seed ^ _SECOND_SEED), on_text)

    prompts = heard.prompts
    if (expects == "caption" and not prompts) or (missing and policy == "whole_reply"):
        prompts = () if heard.refused else (heard.text,)
    elif missing and policy == "keep_previous":
        prompts = _latest_prompts(conversation)
    if missing and not prompts:
        raise ValueError(_complaint(engine.name, task, heard, policy))
    return Reply(heard.text, prompts, asked.say("assistant", heard.raw), heard.refused, asked_again)


@dataclass(frozen=True)
class _Heard:
    raw: str
    text: str
    prompts: tuple[str, ...]
    refused: bool


def _hear(engine: ChatEngine, conversation: Conversation, sampling: Sampling, on_text: OnText) -> _Heard:
    raw = engine.generate(conversation, sampling, on_text)
    if not isinstance(raw, str):
        raise ValueError(f"the engine {engine.name!r} replied with {type(raw).__name__} instead of text")
    raw = raw.encode("utf-8", "replace").decode()  # half a surrogate pair can be neither saved nor sent
    parsed = parse(raw)
    if not parsed.text:
        raise ValueError(
            f"the reply of {engine.name!r} is empty (thinking and bare tags do not count); raise "
            "'max_new_tokens', or change 'seed' or 'instruction'"
        )
    refused = any(map(is_refusal, parsed.prompts or (parsed.text,)))
    return _Heard(without_thinking(raw), parsed.text, () if refused else parsed.prompts, refused)


def _latest_prompts(conversation: Conversation) -> tuple[str, ...]:
    said = (parse(turn.text).prompts for turn in reversed(conversation.turns) if turn.role == "assistant")
    return next((prompts for prompts in said if prompts and not any(map(is_refusal, prompts))), ())


def _complaint(name: str, task: str, heard: _Heard, policy: Policy) -> str:
    what = "refuses" if heard.refused else "holds no <gen_image> prompt"
    tried = {"ask_again": ", even when asked again", "keep_previous": ", and 'history' has no earlier prompt"}
    quoted = heard.text[:_QUOTED] + ("…" if len(heard.text) > _QUOTED else "")
    return (
        f"the task {task!r} needs a prompt, but the reply of {name!r} {what}{tried.get(policy, '')}; change "
        f"'instruction' or 'seed', or set 'policy' to another way out. It says: {quoted}"
    )
