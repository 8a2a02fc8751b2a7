"""An instruction becomes two prompts: a caption of the picture as it is, and the same caption after the edit.

Prompt-to-prompt carries over what the words of both prompts share, so the second must be the first with as few words
changed as the instruction asks. The model first writes the prompt of the picture, then rewrites it in the same
conversation, which is how LLMGA's own editing asks it; the next edit rewrites what the last one wrote.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Literal, get_args

from ..chat import ChatEngine, Conversation, OnText, Picture, Reply, Sampling, parse, render, respond
from ..text.alike import folded

EditPolicy = Literal["ask_again", "whole_reply", "error"]

ENOUGH = 0.5
"""Share of words that a rewrite keeps at least; below it there is little for prompt-to-prompt to carry over."""

_REMINDER = (
    "Copy this prompt word for word, change only the words that the edit concerns, and write the result in exactly "
    "this form: <gen_image> the prompt </gen_image>\n\n{source}"
)
_SECOND_SEED = 0x9E3779B97F4A7C15  # far from the seeds next to the first, which a batch uses
_QUOTED = 200  # characters of a reply in an error
_WORD = re.compile(r"\w+", re.UNICODE)
_COMPARED = 1000


@dataclass(frozen=True)
class Rewrite:
    """Both prompts of an edit.

    Args:
        source: what the picture shows now.
        target: what it shall show.
        kept: the share of the target's words that stand in the source, in order; 0 .. 1.
        conversation: with this edit at its end; pass it in for the next one.
        asked_again: the first rewrite held no prompt, changed nothing or too much, and the model was asked once more.
        thought: what the model thought before its replies, a paragraph for each; no prompt holds any of it.
    """

    source: str
    target: str
    kept: float
    conversation: Conversation
    asked_again: bool = False
    thought: str = ""

    def report(self) -> str:
        """What a person should know about the rewrite, in one line or two."""
        line = f"{self.kept:.0%} of the target prompt's words stand in the source prompt"
        if self.target == self.source:
            return (
                "the target prompt is the source prompt: the edit will change nothing; reword the instruction"
            )
        if self.kept < ENOUGH:
            return f"{line}: this is a new caption rather than a rewrite, so the edit will keep little of the picture"
        return line


def rewrite(
    engine: ChatEngine,
    conversation: Conversation,
    instruction: str,
    *,
    picture: Picture | None = None,
    source: str = "",
    sampling: Sampling,
    policy: EditPolicy = "ask_again",
    on_text: OnText,
) -> Rewrite:
    """Ask for the prompt of a picture before and after an edit.

    The source prompt is, in this order: ``source``; the last prompt in the conversation; what the engine writes about
    the picture. Only the last looks at the picture.

    Args:
        engine: continues the conversation.
        conversation: earlier edits, or an empty one.
        instruction: what to change, in the user's words.
        picture: needed where neither ``source`` nor the conversation says what it shows.
        source: the prompt of the picture, if it is known.
        sampling: its seed picks the phrasings too.
        policy: for a rewrite without a prompt. ``ask_again`` asks once more, also where the rewrite changes nothing or
            keeps less than ``ENOUGH``; ``whole_reply`` takes the text of the reply; ``error`` stops.
        on_text: as in ``chat.respond``.

    Raises:
        ValueError: there is no instruction, nothing to know the picture by, or no prompt in the reply.

    Source: LLMGA 7e32eb6, llmga/serve/cli-sd15-editing.py:121-201 (a similar image first, then the instruction in the
    same conversation). LLMGA's own models get both requests as they were trained to: a phrase of the training, then the
    bare instruction. Deviations: the model sees the whole picture, theirs the square in its middle; a known prompt is not
    asked for again, and a rewrite that keeps too little is.
    """
    if policy not in get_args(EditPolicy):
        raise ValueError(f"'policy' must be one of {', '.join(get_args(EditPolicy))}, got {policy!r}")
    request = render("edit", instruction, sampling.seed, trained=getattr(engine, "trained_phrases", False))
    source, earlier, thought = source.strip(), _last_prompt(conversation, policy), ""
    if not source and not earlier:
        if picture is None:
            raise ValueError(
                "nothing says what the picture shows: connect it to 'image', write its caption into 'source_prompt', "
                "or connect the 'history' of an earlier edit"
            )
        seen = respond(
            engine,
            conversation,
            task="similar",
            instruction="",
            pictures=(picture,),
            sampling=sampling,
            policy=policy,
            on_text=on_text,
        )
        source, conversation, thought = seen.prompt, seen.conversation, seen.thought
    elif source and source != earlier:
        request = f"{source}\n{request}"
    edit = _rewritten(engine, conversation, request, source or earlier, sampling, policy, on_text)
    return replace(edit, thought="\n\n".join(filter(None, (thought, edit.thought))))


def kept_share(source: str, target: str) -> float:
    """The share of the target's words that stand in the source in the same order, whatever their case; 0 .. 1.

    The first ``_COMPARED`` words of each are compared, for the work is the product of both lengths.
    """
    before, after = (_WORD.findall(folded(text))[:_COMPARED] for text in (source, target))
    if not after:
        return 0.0
    blocks = SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) / len(after)


def _rewritten(
    engine: ChatEngine,
    conversation: Conversation,
    request: str,
    source: str,
    sampling: Sampling,
    policy: EditPolicy,
    on_text: OnText,
) -> Rewrite:
    def ask(to: Conversation, text: str, seed: int) -> Reply:
        return respond(
            engine,
            to,
            task="chat",
            instruction=text,
            sampling=replace(sampling, seed=seed),
            policy="error",
            on_text=on_text,
        )

    replies = [ask(conversation, request, sampling.seed)]
    if policy == "ask_again" and not _is_rewrite(source, replies[0]):
        reminder = _REMINDER.format(source=source)
        replies.append(ask(replies[0].conversation, reminder, sampling.seed ^ _SECOND_SEED))
    best = max(replies, key=lambda reply: _merit(source, reply))
    target = best.prompt or (best.text if policy == "whole_reply" and not best.refused else "")
    if not target:
        what = "refuses" if best.refused else "holds no <gen_image> prompt"
        again = ", even when asked again" if len(replies) > 1 else ""
        raise ValueError(
            f"the edit needs a rewritten prompt, but the reply of {engine.name!r} {what}{again}; change 'instruction' "
            f"or 'seed', or set 'policy' to another way out. It says: {best.text[:_QUOTED]}"
        )
    # As one exchange: the request and the reply that was taken, so that the model sees a clean history.
    said = best.conversation.turns[-1]
    kept = replace(replies[0].conversation, turns=(*replies[0].conversation.turns[:-1], said))
    thought = "\n\n".join(filter(None, (reply.thought for reply in replies)))
    return Rewrite(source, target, kept_share(source, target), kept, len(replies) > 1, thought)


def _is_rewrite(source: str, reply: Reply) -> bool:
    return reply.has_prompt and reply.prompt != source and kept_share(source, reply.prompt) >= ENOUGH


def _merit(source: str, reply: Reply) -> tuple[bool, bool, float]:
    return reply.has_prompt, reply.prompt != source, kept_share(source, reply.prompt)


def _last_prompt(conversation: Conversation, policy: str) -> str:
    """What the last reply with a prompt says; under ``whole_reply`` any reply is one."""
    replies = [parse(turn.text) for turn in reversed(conversation.turns) if turn.role == "assistant"]
    whole = replies[0].text if replies and policy == "whole_reply" else ""
    return next(filter(None, (reply.prompt for reply in replies)), whole.strip())
