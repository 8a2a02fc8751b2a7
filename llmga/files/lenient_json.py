"""A lenient reader of JSON as language models write it: Python's quotes and tuples, trailing commas, comments, Chinese
commas and colons, a cut end.

What a strict reader takes is read the same. No text makes it raise anything but ``ValueError``, and it takes time
proportional to the text's length.
"""

from __future__ import annotations

import re
from typing import Any

MAX_DEPTH = 32
_SPACE = re.compile(r"(?:\s|//[^\n]*|#[^\n]*|/\*.*?(?:\*/|\Z))*", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?%?")
_WORD = re.compile(r"[^\s,:，：；{}\[\]()\"'`]+")
_CLOSE = {"{": "}", "[": "]", "(": ")"}
_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’"}
_CONSTANTS = {"true": True, "false": False, "null": None, "none": None}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_MAX_DIGITS = 400


def read_lenient(text: str, start: int = 0) -> tuple[Any, int]:
    """The value that begins at ``start``, and where it ends.

    A list or object that the text's end cuts off holds what stood before. NaN and Infinity are floats.

    Raises:
        ValueError: nothing that can be read begins there, or it is nested deeper than ``MAX_DEPTH``.
    """
    value, end, _ = read_lenient_cut(text, start)
    return value, end


def read_lenient_cut(text: str, start: int = 0) -> tuple[Any, int, bool]:
    """``read_lenient``, and whether the text's end cuts the value off: a list or an object of it is not closed.

    Raises:
        ValueError: see ``read_lenient``.
    """
    reader = _Reader(text, start)
    return reader.value(0), reader.at, reader.cut


class _Reader:
    def __init__(self, text: str, at: int) -> None:
        self.text, self.at, self.cut = text, at, False

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        self._skip()
        mark = self._peek()
        if mark == "{":
            return self._object(depth)
        if mark in ("[", "("):
            return self._list(_CLOSE[mark], depth)
        if mark in _QUOTES:
            return self._string(_QUOTES[mark])
        return self._scalar()

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self.at += 1
        while not self._closed("}"):
            key = self.value(depth + 1)
            self._skip()
            if self._peek() in (":", "：", "="):
                self.at += 1
                if self._ended():
                    self.cut = True
                    break
                found[str(key)] = self.value(depth + 1)
            self._comma()
        return found

    def _list(self, close: str, depth: int) -> list[Any]:
        found: list[Any] = []
        self.at += 1
        while not self._closed(close):
            found.append(self.value(depth + 1))
            self._comma()
        return found

    def _closed(self, close: str) -> bool:
        """Whether the container ends here, by its own bracket, another one, or the end of the text."""
        self._skip()
        mark = self._peek()
        if mark == close:
            self.at += 1
        self.cut |= not mark
        return not mark or mark in "}])"

    def _string(self, close: str) -> str:
        letters: list[str] = []
        at = self.at + 1
        while at < len(self.text):
            letter = self.text[at]
            if letter == "\\" and at + 1 < len(self.text):
                escaped, at = self._escape(at + 1)
                letters.append(escaped)
            elif letter == close and self._ends_string(at):
                at += 1
                break
            else:
                letters.append(letter)
                at += 1
        self.at = at
        # Both halves of an escaped surrogate pair are one character, such as an emoji; a lone half stays what it is.
        return "".join(letters).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")

    def _escape(self, at: int) -> tuple[str, int]:
        letter = self.text[at]
        if letter == "u":
            digits = self.text[at + 1 : at + 5]
            if re.fullmatch("[0-9a-fA-F]{4}", digits):
                return chr(int(digits, 16)), at + 5
        return _ESCAPES.get(letter, letter), at + 1

    def _ends_string(self, at: int) -> bool:
        """Whether a quote ends its string: an apostrophe within a word of a single-quoted string does not."""
        if self.text[at] not in "'’":
            return True
        after = self.text[at + 1 : at + 2]
        return not (after.isalnum() and self.text[at - 1].isalnum())

    def _scalar(self) -> Any:
        number = _NUMBER.match(self.text, self.at)
        word = _WORD.match(self.text, self.at)
        if number and (not word or number.end() >= word.end()):
            self.at = number.end()
            return _number(number[0])
        if not word:
            raise ValueError(f"nothing that can be read stands at character {self.at + 1}")
        self.at = word.end()
        lower = word[0].lower()
        if lower.lstrip("+-") in ("nan", "inf", "infinity"):
            return float(lower)
        return _CONSTANTS.get(lower, word[0])

    def _comma(self) -> None:
        """Step over what parts two items; two items with nothing between them are taken as two."""
        self._skip()
        if self._peek() in (",", ";", ":", "，", "；", "："):
            self.at += 1

    def _skip(self) -> None:
        match = _SPACE.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def _ended(self) -> bool:
        self._skip()
        return self.at >= len(self.text)

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]


def _number(text: str) -> float | int:
    percent, digits = text.endswith("%"), text.rstrip("%").replace("_", "")[:_MAX_DIGITS]
    value = float(digits)  # infinite for an exponent that no float holds
    if percent:
        return value / 100
    return int(digits) if digits.lstrip("+-").isdigit() and len(digits) < 20 else value
