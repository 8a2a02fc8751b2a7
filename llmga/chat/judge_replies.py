"""Reads the replies of a judge: its questions, its answers, and a yes or no, as language models write them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from ..files.lenient_json import read_lenient

_STARTS = 20  # opening brackets of a reply that are tried
_MOST_LETTERS = 400
_YES = re.compile(r"(?:yes\b|yep\b|yeah\b|true\b|correct\b|是的?|有|对|對|正确)", re.IGNORECASE)
_NO = re.compile(
    r"(?:no\b|not\b|nope\b|false\b|incorrect\b|there (?:is|are) no\b|不|没|沒|否|无|無)", re.IGNORECASE
)
_OPENING = re.compile(r"[\s\W_]{0,40}(?:(?:the )?answer(?: is)?[\s\W_]{0,40})?", re.IGNORECASE)
_CHINESE = "[一二三四五六七八九十]{1,3}"
_NUMBERED = re.compile(
    r"[\s>#*•·-]{0,20}(?:"
    rf"[(（\[【]\s?(?:[Qq]?\d{{1,3}}|{_CHINESE}|[A-Za-z])\s?[)）\]】]|"  # (5) （五）
    rf"(?:\d{{1,3}}|{_CHINESE})\s?[.)）:：、．。](?!\d)|"  # 5. 5、 五、
    r"(?:[A-Za-z]|[ivx]{2,4})\)(?=\s)|"  # a) ii)
    rf"(?:[Qq](?:uestion)?|问题|問題|第)\s?(?:\d{{1,3}}|{_CHINESE})?\s?[题題问問]?\s?[.)）:：、]|"  # Q5: 第五题：
    "[\u2460-\u249b\u24ea-\u24ff\u2776-\u2793\u3220-\u3229]\ufe0f?[.:：、]?"  # ⑤ ⑸ ⒌ ❺ ㈤
    r")?[\s*]{0,20}"
)
"""How an item of a list begins, in English and Chinese; not "1.5 m" or "12:30"."""
_DIGITS = re.compile(r"[\s#*(\[]{0,20}(?:[Qq](?:uestion)?|第|问题|問題)?\s?(\d{1,3})(?!\d)")
_QUOTES = ' \t"“”*'


def read_yes_no(text: Any) -> bool | None:
    """The yes or no that a text begins with, in English or Chinese; None where it begins with neither."""
    if isinstance(text, bool):
        return text
    opening = _OPENING.match(str(text))
    rest = str(text)[opening.end() if opening else 0 :]
    if _NO.match(rest):
        return False
    return True if _YES.match(rest) else None


def without_number(line: str) -> str:
    """A line without the number or the sign that an item of a list begins with."""
    return _NUMBERED.sub("", line, count=1).strip() or line.strip()


def read_questions(reply: str) -> list[tuple[str, str]]:
    """(claim, question) of each question in a reply: from its JSON, else every line that ends in a question mark.

    A claim is "" where the reply has none; a question that comes twice is taken once.
    """
    found: dict[str, str] = {}
    for value in _values(reply):
        entries = value.get("questions") if isinstance(value, Mapping) else value
        for entry in entries if isinstance(entries, list) else ():
            claim, question = _claim_of(entry)
            if question:
                found.setdefault(question, claim)
        if found:
            break
    if not found:
        lines = (without_number(line).strip(_QUOTES) for line in reply.splitlines())
        found = {line[:_MOST_LETTERS]: "" for line in lines if line.endswith(("?", "？"))}
    return [(claim, question) for question, claim in found.items()]


def read_answers(reply: str, count: int) -> dict[int, tuple[bool | None, str]]:
    """(met, why) by the index of the question, for those that a reply answers.

    Entries are {"number": 1, "answer": "yes", "why": …}, or a yes or no each in the order of the questions.
    """
    for value in _values(reply):
        entries: Any = value.get("answers", value) if isinstance(value, Mapping) else value
        if isinstance(entries, Mapping):  # {"1": "yes", "2": "no"}
            entries = [{"number": number, "answer": answer} for number, answer in entries.items()]
        found: dict[int, tuple[bool | None, str]] = {}
        for i, entry in enumerate(entries if isinstance(entries, list) else ()):
            numbered = entry if isinstance(entry, Mapping) else {"answer": entry}
            number = _number(numbered.get("number", i + 1))
            met = read_yes_no(numbered.get("answer", ""))
            if number is not None and 1 <= number <= count and met is not None:
                found.setdefault(number - 1, (met, str(numbered.get("why") or "")[:_MOST_LETTERS].strip()))
        if found:
            return found
    return {}


def _claim_of(entry: Any) -> tuple[str, str]:
    if isinstance(entry, str):
        return "", without_number(entry)[:_MOST_LETTERS]
    if not isinstance(entry, Mapping):
        return "", ""
    claim, question = (entry.get(name) for name in ("claim", "question"))
    texts = [without_number(one)[:_MOST_LETTERS] if isinstance(one, str) else "" for one in (claim, question)]
    return texts[0], texts[1]


def _number(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    digits = _DIGITS.match(unicodedata.normalize("NFKC", str(value)))  # ⑤ and （5） as 5 and (5)
    return int(digits[1]) if digits else None


def _values(reply: str) -> Iterator[Any]:
    """Every value of JSON that a reply may hold, from its first brackets on."""
    starts = [match.start() for match in re.finditer(r"[{\[]", reply)]
    for start in starts[:_STARTS]:
        try:
            yield read_lenient(reply, start)[0]
        except ValueError:
            continue
