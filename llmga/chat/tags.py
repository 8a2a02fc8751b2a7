"""What a reply says to the person, and what it says to the painter: the ``<gen_image>`` blocks.

The tag is plain text that a language model writes token by token, so it comes in every shape: another case,
another spelling, missing, doubled, encoded for a web page, inside a code fence, cut off by the token limit. A
reply is split at its tags once, left to right; what follows an opener is a prompt, up to whichever tag comes
next.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from .thinking import split_reply

# A tag takes the backticks on either side with it, and the stars of a bold tag, so that they end up in no prompt. Every
# repetition is bounded and followed by what it cannot match itself, and a fence is three backticks: hostile input costs
# linear time.
_TAG = re.compile(
    r"(?:```[\w+-]{0,40}\s{0,99}|`|(?<!\S)\*\*)?"
    r"<\s{0,99}(?P<close>/\s{0,99})?gen_im(?:g|age)\s{0,99}>"
    r"(?:\s{0,99}```(?:[\w+-]{0,40}[ \t]{0,99}(?:\n|\Z))?|`|\*\*(?!\S))?",
    re.IGNORECASE,
)
# html.unescape hands the digits to int(), which raises beyond 4,300 of them.
_HUGE_REFERENCE = re.compile(r"&#[0-9]{9,}")
_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’", "«": "»", "「": "」", "『": "』"}


@dataclass(frozen=True)
class ParsedReply:
    """A reply taken apart.

    Args:
        text: the reply for a person, without tags and thinking; the prompts stay readable in it.
        prompts: the content of each block in order, trimmed; empty blocks are left out.
        passages: for each prompt the text since the one before; the last prompt also has what follows it.
    """

    text: str
    prompts: tuple[str, ...]
    passages: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """The first prompt, or ``""``."""
        return self.prompts[0] if self.prompts else ""


def parse(reply: str) -> ParsedReply:
    """Split a reply at its tags; never raises, whatever the string holds.

    HTML entities are unescaped once. An unclosed block ends at the next opener or with the text. Neither
    ``text`` nor any prompt holds a tag, nor anything that one more unescape would make a tag.

    Source: LLMGA 7e32eb6, ``llava/constants.py`` (``<gen_image> caption </gen_image>``). Deviation: its
    command lines assume one space after the tag, read the first block only, and take a closer that precedes
    the opener.
    """
    reply = _without_unfinished_tag(_unescape(without_thinking(reply)))
    tags = list(_TAG.finditer(reply))
    starts = [0, *(tag.end() for tag in tags)]
    ends = [*(tag.start() for tag in tags), len(reply)]
    gaps = [reply[start:end].strip() for start, end in zip(starts, ends, strict=True)]
    prompts, passages, before = [], [], [gaps[0]]
    for tag, gap in zip(tags, gaps[1:], strict=True):
        prompt = "" if tag["close"] else _disarmed(_bare(gap))
        if prompt:
            prompts.append(prompt)
            passages.append(_joined(before))
            before = []
        elif tag["close"]:
            before.append(gap)
    if passages:
        passages[-1] = _joined([passages[-1], *before])
    return ParsedReply(_joined(gaps), tuple(prompts), tuple(passages))


def _joined(gaps: list[str]) -> str:
    return _disarmed("\n\n".join(filter(None, gaps)))


def count_closed(reply: str) -> int:
    """How many ``<gen_image>`` blocks that hold something are closed already."""
    reply = _unescape(without_thinking(reply))
    opened, count = None, 0
    for tag in _TAG.finditer(reply):
        if not tag["close"]:
            opened = tag.end()
        elif opened is not None:
            count += bool(_disarmed(_bare(reply[opened : tag.start()].strip())))
            opened = None
    return count


def open_block(reply: str) -> str | None:
    """What stands behind the last ``<gen_image>`` that is not closed, or None if there is none."""
    reply = _unescape(without_thinking(reply))
    tags = list(_TAG.finditer(reply))
    return reply[tags[-1].end() :] if tags and not tags[-1]["close"] else None


def without_thinking(reply: str) -> str:
    """The answer alone, as a history keeps it: tags and entities as they were written."""
    return split_reply(reply).answer


def _unescape(text: str) -> str:
    return html.unescape(_HUGE_REFERENCE.sub(" ", text))


def _without_unfinished_tag(text: str) -> str:
    """Cut what the token limit, or a stream that still runs, left of a last tag: ``"a cat </gen_im"``."""
    head, bracket, tail = text.rpartition("<")
    name = "".join(tail.split()).removeprefix("/").lower()
    return head if bracket and any(tag.startswith(name) for tag in ("gen_image", "gen_img")) else text


def _bare(block: str) -> str:
    """The prompt itself: no end of a fence around an unclosed block, no quotes around the whole."""
    if block.endswith("```"):
        block = block.rstrip("`").strip()
    first, inner, last = block[:1], block[1:-1], block[-1:]
    wrapped = len(block) > 1 and _QUOTES.get(first) == last and last not in inner
    return inner.strip() if wrapped else block


def _disarmed(text: str) -> str:
    # Joining gaps ("<", "gen_image>") or double encoding ("&amp;lt;") can still spell a tag. Nobody writes
    # that by accident: what matters is that nothing is left to spell it with, and that one pass does it.
    return re.sub("[<&]", "", text).strip() if _TAG.search(_unescape(text)) else text
