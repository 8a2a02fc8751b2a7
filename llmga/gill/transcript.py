"""A conversation as what GILL reads: text and pictures in their order."""

from __future__ import annotations

import re
from typing import Literal, get_args

from ..chat.conversation import Conversation
from ..chat.formats import break_control, control_tokens
from .model import GILL, PromptPart

TranscriptStyle = Literal["questions", "plain"]
TRANSCRIPT_STYLES: tuple[TranscriptStyle, ...] = get_args(TranscriptStyle)
_IMG = re.compile(r"\[IMG\d{1,2}\]")


def prompt_of(
    gill: GILL, conversation: Conversation, style: TranscriptStyle = "questions"
) -> list[PromptPart]:
    """The pieces of a conversation; a turn's pictures come before its words.

    What the user writes is data: where it spells a control token or ``[IMG0]``, a space breaks it.

    Args:
        style: "questions" puts "Q:" before what the user says and "A:" behind, as the demonstration of the released code
            does; "plain" sets the words one behind the other, for stories and captions.

    Source: kohjingyu/gill 4600b71, demo/app_gradio.py:96-140.
    """
    control = control_tokens(gill.language.tokenizer)
    parts: list[PromptPart] = []
    for turn in conversation.turns:
        text = break_control(control, turn.text)
        if turn.role == "assistant":
            parts.append(f"{text}\n")
            continue
        parts += [picture.to_pil() for picture in turn.pictures]
        text = break_control(_IMG, text)
        if text:
            parts.append(f"Q: {text}\nA:" if style == "questions" else f"{text} ")
    if parts and isinstance(last := parts[-1], str) and style == "plain":
        parts[-1] = last.rstrip(" ")
    return [part for part in parts if part != ""]
