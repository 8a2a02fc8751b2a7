"""Texts that look the same to a person: characters that are not seen, and spellings of spaces, quotes, dashes and case."""

from __future__ import annotations

import unicodedata

_SAME = str.maketrans({
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u00b4`", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
    "ı": "i",
})  # fmt: skip


def visible(text: str) -> str:
    """A text in Unicode's form NFC, without format characters: zero-width joiners and spaces, soft hyphens, byte order
    marks, marks of direction."""
    return "".join(c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c) != "Cf")


def letters(text: str) -> str:
    """A visible text in small letters, without marks that no letter has taken up, such as the dot of a small Turkish İ."""
    return "".join(c for c in visible(text).lower() if unicodedata.category(c) != "Mn")


def folded(text: str) -> str:
    """What texts that look the same have in common, to be compared and not shown: case, the width of letters, and the kinds
    of spaces, quotes and dashes do not count."""
    return " ".join(letters(unicodedata.normalize("NFKC", text)).casefold().translate(_SAME).split())
