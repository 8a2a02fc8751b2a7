"""A reply taken apart into the model's thought and its answer.

Reasoning models write what they think before they answer, between marks of many spellings. A thought may quote the format
that was asked for, so nothing in it is ever taken for a prompt.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_NAME = r"(?:[a-z]{1,16}[:_])?(?:think(?:ing)?|thoughts?|reasoning)(?::[a-z]{1,16})?"
_MARK = re.compile(
    # <think>, <seed:think>, <think:opensource>, <thought>, <reasoning>, also encoded for a web page; Kimi's ◁think▷
    rf"(?:<|&lt;|◁)\s{{0,9}}(?P<tag_close>/\s{{0,9}})?{_NAME}\s{{0,9}}(?:>|&gt;|▷)"
    # Mistral's [THINK]; capitals alone, for "[thinking]" may be a word of the answer
    r"|(?-i:\[(?P<bracket_close>/)?THINK\])"
    # <|begin_of_thought|>, Cohere's <|START_THINKING|>, <|thinking|>
    r"|<\|(?P<word_close>/|end_of_|end_)?(?:begin_of_|start_)?(?:think(?:ing)?|thought)\|>"
    # gpt-oss: <|channel|>analysis<|message|> and <|channel|>final<|message|>; Gemma 4: <|channel>thought and <channel|>
    r"|(?:<\|start\|>assistant)?<\|channel\|?>\s{0,9}(?P<channel>[a-z_]{1,20})(?:[^<\n]{0,80}<\|(?:constrain|message)\|>(?:json<\|message\|>)?)?"
    r"|(?P<channel_close><channel\|>)"
    # Apertus
    r"|<\|inner_(?:prefix|(?P<inner_close>suffix))\|>"
    # Muse: " to=self<|message|>" and " to=user<|message|>"
    r"|(?:<\|start\|>assistant)?\s{0,9}\bto=(?P<recipient>[a-z_.]{1,40})<\|message\|>"
    # Solar: <|think|>, and the message after it
    r"|(?P<message_close><\|begin\|>assistant(?!<\|think\|>)(?:<\|content\|>)?)"
    # Apriel, whose template writes the first line of the thought; only its end is marked
    r"|(?:\A|<\|begin_assistant\|>)\s{0,9}Here are my reasoning steps:\n|(?P<final_close>\[BEGIN FINAL RESPONSE\])",
    re.IGNORECASE,
)
# The same marks as tokens of a vocabulary, each by itself: what has to be seen of a reply to tell its thought.
_MARK_TOKEN = re.compile(
    rf"[<◁]/?{_NAME}[>▷]|\[/?THINK\]|<\|(?:channel|message|constrain|start|end)\|>|<\|channel>|<channel\|>"
    r"|<\|/?(?:begin_of_|end_of_|start_|end_)?(?:think(?:ing)?|thought)\|>"
    r"|<\|inner_(?:prefix|suffix)\|>|<\|(?:begin|content)\|>|\[BEGIN FINAL RESPONSE\]",
    re.IGNORECASE,
)
_CLOSERS = tuple(name for name in _MARK.groupindex if name.endswith("_close"))
_CHANNELS_OF_ANSWERS = frozenset({"final", "response", "answer", "text", "user"})
# gpt-oss with its special tokens dropped in decoding: "analysisThe user wants…assistantfinalHere it is".
_BARE_ANALYSIS = re.compile(r"\s{0,20}(?:assistant)?analysis(?=[A-Z0-9\"'“<(\[])")
_BARE_FINAL = "assistantfinal"
# Marks that end a turn; what a model writes after one is another turn.
_TURN_END = re.compile(
    r"<\|(?:im_end|eot_id|endoftext|end|return|call|eom_id|eot|eom|end_of_turn|END_OF_TURN_TOKEN)\|>"
    r"|<end_of_turn>|<turn\|>|</s>|<eos>|<｜end▁of▁sentence｜>|\[END FINAL RESPONSE\]"
)
_OTHER_MARKS = re.compile(
    r"<\|(?:begin_of_box|end_of_box|start|message|im_start|start_header_id|end_header_id|START_RESPONSE|END_RESPONSE)\|>"
    r"|<start_of_turn>|<\|turn>|<\|(?:begin|content)\|>"
    r"|</?response>"  # Granite 3.3, with its thinking
)
_QUOTES = {"`": "`", '"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "「": "」", "『": "』"}


class SplitReply(NamedTuple):
    """The two halves of a reply."""

    thought: str
    """What the model thought, without the marks; "" if nothing is marked as thought."""
    answer: str
    """What it answers, stripped, without marks that belong to the chat format; the ``<gen_image>`` tags stay."""
    unfinished: bool
    """The reply ends inside a thought."""


def split_reply(reply: str, thinking: bool = False) -> SplitReply:
    """Tell thought from answer.

    A thought that is not closed runs to the end. A closer without an opener ends a thought that the chat template had
    opened in the request: everything before it is thought. A mark between quotes or backticks of its own is talked about
    and stays a word.

    Args:
        reply: the raw text of a model.
        thinking: the request ended inside a thought, so that the reply begins in one.
    """
    bare = _BARE_ANALYSIS.match(reply)
    if bare:
        thought, final, answer = reply[bare.end() :].partition(_BARE_FINAL)
        return SplitReply(thought.strip(), _without_marks(answer), not final)
    thoughts: list[str] = []
    answers: list[str] = []
    start = 0
    for mark in _MARK.finditer(reply):
        if is_quoted(mark):
            continue
        opens = _opens(mark)
        piece = reply[start : mark.start()]
        if thinking:
            thoughts.append(piece)
        elif opens:
            answers.append(piece)
        else:  # the request had opened the thought
            thoughts += [*answers, piece]
            answers.clear()
        thinking, start = opens, mark.end()
    (thoughts if thinking else answers).append(reply[start:])
    thought = _without_marks("".join(thoughts), cut=False)
    return SplitReply(thought, _without_marks("".join(answers)), thinking)


def is_quoted(mark: re.Match[str]) -> bool:
    """Whether a mark stands between quotes or backticks of its own, so that a model talks about it."""
    text, start, end = mark.string, mark.start(), mark.end()
    return start > 0 and _QUOTES.get(text[start - 1]) == text[end : end + 1]


def is_mark_token(token: str) -> bool:
    """Whether a token of a vocabulary is a mark of thinking, or a part of one."""
    return _MARK_TOKEN.fullmatch(token) is not None


def _opens(mark: re.Match[str]) -> bool:
    if channel := mark["channel"] or mark["recipient"]:
        return channel.lower() not in _CHANNELS_OF_ANSWERS
    return not any(mark[name] for name in _CLOSERS)


def _without_marks(text: str, cut: bool = True) -> str:
    """The text without marks of the chat format; ``cut`` ends it at the first mark that ends a turn."""
    if cut and (end := _first_end(text)) is not None:
        text = text[:end]
    return _unmarked(_OTHER_MARKS, _unmarked(_TURN_END, text)).strip()


def _unmarked(marks: re.Pattern[str], text: str) -> str:
    return marks.sub(lambda mark: mark[0] if is_quoted(mark) else "", text)


def _first_end(text: str) -> int | None:
    """Where the first turn ends that holds something."""
    start = 0
    for end in _TURN_END.finditer(text):
        if is_quoted(end):
            continue
        if _OTHER_MARKS.sub("", text[start : end.start()]).strip():
            return end.start()
        start = end.end()
    return None
