"""Cleaning of model replies: extract the caption or the edit, or reject the reply with a reason.

All are pure functions of the reply, so rules can be changed and applied again without new requests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from types import MappingProxyType

from ..chat.refusal import is_refusal
from ..chat.tags import parse
from .templates import Language

_WORD = re.compile(r"[\u3400-\u9fff]|[^\W\d_\u3400-\u9fff]+(?:['’-][^\W\d_\u3400-\u9fff]+)*|\d+")
_MARKDOWN = re.compile(
    r"[*_]{2,3}|`{1,99}|^[^\S\n]{0,99}#{1,99}\s{0,99}|^[^\S\n]{0,99}(?:[-*•]|\d{1,9}[.)])\s{1,99}",
    re.MULTILINE,
)
_CHATTER = re.compile(
    r"(?:(?:sure|certainly|of course|absolutely|okay|ok)\b[^\n:.!]{0,80}[:.!]\s{0,99})?"
    r"(?:here(?:'s|’s| is| are)\b[^\n:]{0,80}:\s{0,99})?"
    r"(?:(?:detailed |short |image |picture ){0,9}(?:caption|description)\s{0,99}:\s{0,99})?",
    re.IGNORECASE,
)
_FRAMING = re.compile(
    r"(?:the|this) (?:image|picture|photo|photograph|scene) "
    r"(?:shows|depicts|features|captures|displays|presents|portrays|is of)\s{1,99}",
    re.IGNORECASE,
)
# Links, json and mark-up, and a model that talks of itself.
_FOREIGN = re.compile(
    r"https?://|www\.|[{}<>\ufffd]|\bas an ai\b|\blanguage model\b|作为(?:一个)?(?:人工智能|AI)",
    re.IGNORECASE,
)
_EDIT = re.compile(
    r"(?:edit(?:ing)? )?instruction\s{0,99}[:：](?P<instruction>.{1,2000}?)"
    r"(?:(?:target|new|edited) )caption\s{0,99}[:：](?P<caption>.{1,200000})",
    re.IGNORECASE | re.DOTALL,
)


class RejectedError(ValueError):
    """Raised for a reply that is not kept; the message is one of a few fixed reasons."""


@dataclass(frozen=True)
class CaptionRules:
    """Requirements on a detailed caption.

    Args:
        language: in which it is written.
        words: fewest and most; a Chinese character counts as a word. The most is what LLMGA's 300 CLIP tokens
            hold.
        distinct: smallest share of three-word sequences that may be new; a model that loops repeats itself.
    """

    language: Language
    words: tuple[int, int]
    distinct: float = 0.6


RULES: Mapping[Language, CaptionRules] = MappingProxyType(
    {"en": CaptionRules("en", (40, 230)), "zh": CaptionRules("zh", (60, 400))}
)

MAX_INSTRUCTION_WORDS = 30
MIN_OVERLAP = 0.55
"""Share of words that an edit's captions have in common, in order: prompt-to-prompt aligns them."""


def word_list(text: str) -> list[str]:
    """Split into lower-case words and numbers; each Chinese character is a word."""
    return _WORD.findall(text.lower())


def clean_caption(reply: str, rules: CaptionRules) -> str:
    """The caption in a reply, as one paragraph without tags, thinking, markdown or "Here is …:".

    Raises:
        RejectedError: "refusal", "no words", "too short", "too long", "wrong language", "repeats itself", "not a
            caption".
    """
    text = _plain(reply)
    text = _CHATTER.sub("", text, count=1)
    if match := _FRAMING.match(text):
        text = text[match.end() :]
        text = text[:1].upper() + text[1:]
    text = " ".join(text.split()).strip('"“” ')
    _check_text(text, rules.language)
    found = word_list(text)
    if len(found) < rules.words[0]:
        raise RejectedError("too short")
    if len(found) > rules.words[1]:
        raise RejectedError("too long")
    triples = list(zip(found, found[1:], found[2:], strict=False))
    if triples and len(set(triples)) < rules.distinct * len(triples):
        raise RejectedError("repeats itself")
    return text


def clean_edit(reply: str, source: str, language: Language) -> tuple[str, str]:
    """Instruction and target caption of a reply ``Instruction: … Target caption: …`` to a source caption.

    Raises:
        RejectedError: "refusal", "no words", "wrong language", "not a caption" as for captions; "no edit" (the
            form is not kept), "not an instruction", "changes nothing", "changes too much".
    """
    text = _plain(reply)
    match = _EDIT.search(text)
    if not match:
        raise RejectedError("refusal" if is_refusal(text) else "no edit")
    instruction, caption = (
        " ".join(part.split()).strip('"“” ') for part in match.group("instruction", "caption")
    )
    for part in (instruction, caption):
        _check_text(part, language)
    if instruction.endswith(("?", "？")) or len(word_list(instruction)) > MAX_INSTRUCTION_WORDS:
        raise RejectedError("not an instruction")
    before, after = word_list(source), word_list(caption)
    if before == after:
        raise RejectedError("changes nothing")
    # The ratio is below this bound, and costs the product of the lengths.
    if 2 * min(len(before), len(after)) < MIN_OVERLAP * (len(before) + len(after)):
        raise RejectedError("changes too much")
    if SequenceMatcher(None, before, after, autojunk=False).ratio() < MIN_OVERLAP:
        raise RejectedError("changes too much")
    return instruction, caption


def _plain(reply: str) -> str:
    parsed = parse(reply)
    return _MARKDOWN.sub("", parsed.prompt or parsed.text).strip()


def _check_text(text: str, language: Language) -> None:
    found = word_list(text)
    if not found:
        raise RejectedError("no words")
    if is_refusal(text):
        raise RejectedError("refusal")
    if _FOREIGN.search(text):
        raise RejectedError("not a caption")
    letters = [char for char in text if char.isalpha()]
    latin = sum(char.isascii() for char in letters)
    chinese = sum("\u3400" <= char <= "\u9fff" for char in letters)
    # A name may be foreign; a sentence may not.
    if (latin if language == "en" else chinese) < (0.8 if language == "en" else 0.5) * len(letters):
        raise RejectedError("wrong language")
