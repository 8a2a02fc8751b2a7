"""One exchange with a chat engine: the request, the reply, the prompts in it, and the policy for a reply without one.

It is written against the ``ChatEngine`` protocol, so that every engine follows the same rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from .conversation import Conversation, Picture
from .engines.base import CUT_REASONS, ChatEngine, CutAt, OnText, Said, Sampling
from .refusal import is_refusal
from .tags import parse
from .task_files import PromptStyle
from .tasks import PROMPT_RULES, SYSTEM_PROMPT, Task, check_pictures, get_task, render

Policy = Literal["ask_again", "whole_reply", "keep_previous", "error"]

_REMINDERS = {
    "one": "Please write the prompt of the image, in exactly this form: <gen_image> the prompt </gen_image>",
    "several": (
        "Please tell it again with one prompt per image, each in exactly this form: "
        "<gen_image> the prompt </gen_image>"
    ),
    "pages": (
        "Please tell it again with exactly {pages} pages: the words of a page, then its prompt in exactly this form: "
        "<gen_image> the prompt </gen_image>"
    ),
}
_SECOND_SEED = 0x9E3779B97F4A7C15  # any odd pattern: far from the seeds next to the first, which a batch uses
_QUOTED = 200  # characters of a reply in an error


@dataclass(frozen=True)
class Reply:
    """The result of one exchange.

    Args:
        text: the reply for a person, without tags and thinking.
        prompts: what can be painted, in order; empty if this turn has nothing to paint.
        conversation: the conversation with this exchange, to be passed in next time.
        refused: the (last) reply was a refusal; its words are in ``text`` and never in ``prompts``.
        asked_again: the first reply had no prompt, or too few pages, and this is the second.
        passages: the text before each prompt, ``""`` where there are none; as many as prompts.
        thought: what the model thought before this reply; neither the conversation nor a prompt holds any of it.
        remarks: what a person should know of it, a sentence each: prompts that were left out, pages too few or too many, a
            reply that was cut off.
        cut: what ended the reply before the model did; its last prompt may be half a sentence.
    """

    text: str
    prompts: tuple[str, ...]
    conversation: Conversation
    refused: bool = False
    asked_again: bool = False
    passages: tuple[str, ...] = ()
    thought: str = ""
    remarks: tuple[str, ...] = ()
    cut: CutAt = ""

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
    task: str | Task,
    instruction: str,
    pictures: Sequence[Picture] = (),
    sampling: Sampling,
    policy: Policy,
    on_text: OnText,
    system: str | None = None,
    language: str = "en",
    pages: int = 4,
    style: PromptStyle | None = None,
) -> Reply:
    """Ask the engine for one reply and find its prompts.

    All tasks but ``describe`` and ``chat`` must bring a prompt. Under ``ask_again`` and ``error`` an engine that can be held
    to the format is. A reply
    without one, or with a refusal, goes by the policy: ``ask_again`` reminds of the format once, with another
    seed; ``whole_reply`` takes the text as the prompt, but never that of a refusal; ``keep_previous`` takes
    the prompts of the latest reply in the conversation that has some; ``error`` stops. ``chat`` brings the
    prompts it happens to hold. ``describe`` brings a caption, which is a prompt: the whole text unless the
    reply holds tags. ``picture_book`` brings ``pages`` prompts: more are dropped, fewer are asked for again under
    ``ask_again``, an error under ``error``, and else taken as they are; the remarks say so. A prompt that is a refusal is
    left out with a remark, and the reply is one only if no other prompt is in it. A prompt that is cut off in the middle
    is used, with a remark.

    The conversation keeps the reply with its tags, for a model follows the format it sees itself use, and
    without its thinking. When it was asked again it keeps the request and the good reply only.

    Args:
        engine: continues the conversation.
        conversation: what was said before; its own system prompt stays.
        task: a key of ``TASKS``, or a task of one's own (``read_tasks``).
        instruction: the user's words.
        pictures: shown with this turn; a hole is black already.
        sampling: its seed picks the phrasing too.
        policy: for a reply without a prompt.
        on_text: gets the text while it is written, a thought first, anew when asked again; may raise anything.
        system: the system prompt of a conversation without one; ``None`` is ``SYSTEM_PROMPT``, or that of its training
            for an engine that ``knows_tags``.
        language: the language of the request, ``"en"`` or ``"zh"``.
        pages: 1 to 12, of a picture book.
        style: how prompts are written; ``None`` leaves the system prompt and the request as they are.

    Raises:
        ValueError: the inputs do not fit the task, the reply is empty or ends inside a thought, or there is no prompt and
            the policy finds none.
    """
    if policy not in get_args(Policy):
        raise ValueError(f"'policy' must be one of {', '.join(get_args(Policy))}, got {policy!r}")
    expects = get_task(task).expects
    check_pictures(task, image=bool(pictures or conversation.pictures))
    if not conversation.system:
        usual = "" if getattr(engine, "knows_tags", False) else SYSTEM_PROMPT
        conversation = replace(conversation, system=usual if system is None else system)
    if style is not None:
        conversation = replace(conversation, system=conversation.system.replace(PROMPT_RULES, style.text))
    trained = getattr(engine, "trained_phrases", False)
    request = render(task, instruction, sampling.seed, language=language, pages=pages, trained=trained)
    if style is not None and style.reminder:
        request = f"{request}\n{style.reminder}"
    asked = conversation.say("user", request, tuple(pictures))

    wanted = {"caption": 0, "anything": 0, "pages": pages}.get(expects, 1)
    # The other policies have a use for a reply without tags.
    held = wanted if policy in ("ask_again", "error") else 0
    sampling = replace(sampling, stop_after=wanted if expects in ("one", "pages") else 0, min_prompts=held)
    parsed = _generate(engine, asked, sampling, on_text)
    asked_again = len(parsed.prompts) < wanted and policy == "ask_again"
    if asked_again:
        reminder = _REMINDERS[expects].format(pages=pages)
        reminded = asked.say("assistant", parsed.raw).say("user", reminder)
        second = _generate(engine, reminded, replace(sampling, seed=sampling.seed ^ _SECOND_SEED), on_text)
        parsed = max(second, parsed, key=lambda one: len(one.prompts))  # the second, unless it has fewer

    missing = len(parsed.prompts) < (wanted if policy == "error" else min(wanted, 1))
    prompts = parsed.prompts[:pages] if expects == "pages" else parsed.prompts
    if (expects == "caption" and not prompts) or (missing and policy == "whole_reply"):
        prompts = () if parsed.refused else (parsed.text,)
    elif missing:
        prompts = _latest_prompts(conversation) if policy == "keep_previous" else ()
    if missing and not prompts:
        raise ValueError(_complaint(engine.name, get_task(task).name, parsed, policy))
    passages = parsed.passages if parsed.prompts and not missing else ()
    passages = (passages + ("",) * len(prompts))[: len(prompts)]
    paged = _pages_remark(len(parsed.prompts), pages) if expects == "pages" else ()
    return Reply(
        parsed.text,
        prompts,
        asked.say("assistant", parsed.raw),
        parsed.refused,
        asked_again,
        passages,
        parsed.thought,
        (*parsed.remarks, *paged),
        parsed.cut,
    )


@dataclass(frozen=True)
class _CheckedReply:
    raw: str
    text: str
    prompts: tuple[str, ...]
    passages: tuple[str, ...]
    refused: bool
    thought: str
    remarks: tuple[str, ...]
    cut: CutAt


def _generate(
    engine: ChatEngine, conversation: Conversation, sampling: Sampling, on_text: OnText
) -> _CheckedReply:
    said = engine.generate(conversation, sampling, on_text)
    if not isinstance(said, Said):
        raise ValueError(f"the engine {engine.name!r} replied with {type(said).__name__} instead of a Said")
    raw, thought = _sendable(said.answer), _sendable(said.thought)
    found = parse(raw)
    if said.unfinished and not found.prompts:
        raise ValueError(
            f"the reply of {engine.name!r} ends inside the model's thinking, before an answer; raise 'thought_tokens' "
            "(of an endpoint with 'thinking' off: 'max_new_tokens'), or turn 'thinking' off"
        )
    if not found.text:
        raise ValueError(
            f"the reply of {engine.name!r} is empty (thinking and bare tags do not count); raise "
            "'max_new_tokens', or change 'seed' or 'instruction'"
        )
    declined = [prompt for prompt in found.prompts if is_refusal(prompt)]
    kept = [i for i, prompt in enumerate(found.prompts) if prompt not in declined]
    refused = not kept if found.prompts else is_refusal(found.text)
    prompts, passages = (tuple(each[i] for i in kept) for each in (found.prompts, found.passages))
    remarks = _refusal_remark(declined, len(found.prompts)) if kept else ()
    if said.cut:
        remarks += (f"{CUT_REASONS[said.cut].capitalize()}.",)
    return _CheckedReply(raw, found.text, prompts, passages, refused, thought, remarks, said.cut)


def _refusal_remark(declined: Sequence[str], count: int) -> tuple[str, ...]:
    if not declined:
        return ()
    what = "is a refusal" if len(declined) == 1 else "are refusals"
    return (
        f"{len(declined)} of the reply's {count} prompts {what} and left out, with the text before: {_quoted(declined[0])}",
    )


def _pages_remark(count: int, pages: int) -> tuple[str, ...]:
    if count < pages:
        return (f"The reply has {count} of the {pages} pages that 'pages' asks for.",)
    more = f"The reply has {count} pages, and 'pages' asks for {pages}: what is beyond is left out."
    return (more,) if count > pages else ()


def _quoted(text: str) -> str:
    return text[:_QUOTED] + ("…" if len(text) > _QUOTED else "")


def _sendable(text: str) -> str:
    """The text without halves of surrogate pairs, which can be neither saved nor sent."""
    return text.encode("utf-8", "replace").decode()


def _latest_prompts(conversation: Conversation) -> tuple[str, ...]:
    earlier = (parse(turn.text).prompts for turn in reversed(conversation.turns) if turn.role == "assistant")
    kept = (tuple(prompt for prompt in prompts if not is_refusal(prompt)) for prompts in earlier)
    return next(filter(None, kept), ())


def _complaint(name: str, task: str, parsed: _CheckedReply, policy: Policy) -> str:
    found = (
        f"holds only {len(parsed.prompts)} of the pages" if parsed.prompts else "holds no <gen_image> prompt"
    )
    what = "refuses" if parsed.refused else found
    longer = "raise 'max_new_tokens', where the reply ended, " if parsed.cut == "max_new_tokens" else ""
    tried = {"ask_again": ", even when asked again", "keep_previous": ", and 'history' has no earlier prompt"}
    return (
        f"the task {task!r} needs a prompt, but the reply of {name!r} {what}{tried.get(policy, '')}; {longer}change "
        f"'instruction' or 'seed', or set 'policy' to another way out. It says: {_quoted(parsed.text)}"
    )
