"""Find words and phrases in a planned prompt: from characters to token positions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ..text.alike import folded, letters
from ..text.chunks import JoinLayout, Plan
from ..text.tokenizer import byte_alphabet, clip_tokenizer
from .positions import text_positions

Pieces = Callable[[Sequence[Any]], list[str]]
"""A function from token ids to their pieces of words in the vocabulary's spelling: ``</w>`` ends a word, and each
character is one byte of UTF-8 in CLIP's alphabet. The empty string is a token without text."""

_END = "</w>"
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
# As CLIP splits text, but for punctuation, which does not count here, and scripts without spaces, taken by character.
_UNIT = re.compile(rf"[{_CJK}]|(?:(?![{_CJK}])[^\W\d_])+|\d")


def clip_pieces(ids: Sequence[Any]) -> list[str]:
    """CLIP's own pieces; an id that is the vector of a textual inversion is a token without text."""
    known = [i for i in ids if isinstance(i, int)]
    pieces = iter(_tokenizer().convert_ids_to_tokens(known))
    return [next(pieces) if isinstance(i, int) else "" for i in ids]


def split_words(plan: Plan, pieces: Pieces = clip_pieces) -> list[list[int]]:
    """Split a plan into words, punctuation included, each as the numbers of its tokens within the plan's text."""
    found: list[list[int]] = []
    in_word = False
    for number, piece in enumerate(pieces(_ids(plan))):
        if not in_word:
            found.append([])
        found[-1].append(number)
        in_word = bool(piece) and not piece.endswith(_END)
    return found


def locate(
    plan: Plan, phrase: str, layout: JoinLayout, pieces: Pieces = clip_pieces
) -> list[tuple[int, ...]]:
    """Every occurrence of a phrase in a planned prompt, each as the positions of its tokens in the encoded prompt.

    Case, punctuation, number and what is not seen do not matter: "red fox" is found in "Red foxes," in "a red (fox)", and
    with a soft hyphen in it; a phrase never begins or ends within a word. The positions are those of the words alone,
    without punctuation between them. Tokens beyond the plan's last chunk are not found.

    Returns:
        An empty list for a phrase that does not occur, or that has neither letters nor digits.

    Raises:
        ValueError: unknown layout.
    """
    wanted = [_forms(unit) for unit in _UNIT.findall(letters(phrase))]
    if not wanted:
        return []
    where = text_positions(plan, layout)
    units = list(_units(plan, pieces))
    found = []
    for start in range(len(units) - len(wanted) + 1):
        part = units[start : start + len(wanted)]
        if all(unit.forms & forms for unit, forms in zip(part, wanted, strict=True)):
            found.append(tuple(sorted({where[i] for unit in part for i in unit.tokens})))
    return found


class _Unit(NamedTuple):
    forms: frozenset[str]
    """The word in small letters, and its possible singulars."""
    tokens: tuple[int, ...]


def _units(plan: Plan, pieces: Pieces) -> Iterator[_Unit]:
    ids = _ids(plan)
    spelled = pieces(ids)
    text, tokens, joined = "", [], False
    for word in split_words(plan, pieces):
        own, held = _spell([(i, spelled[i].removesuffix(_END)) for i in word])
        if own and not letters(own):
            joined = True  # CLIP splits a word at what is not seen, such as a soft hyphen
            continue
        if not joined:
            yield from _units_of(text, tokens)
            text, tokens = "", []
        text, tokens, joined = text + own, tokens + held, False
        if not any(spelled[i] for i in word):
            yield from _units_of(text, tokens)
            text, tokens = "", []
            yield _Unit(frozenset(), tuple(word))  # a word that no phrase can name
    yield from _units_of(text, tokens)


def _units_of(text: str, tokens: Sequence[set[int]]) -> Iterator[_Unit]:
    for match in _UNIT.finditer(text):
        yield _Unit(_forms(match[0]), tuple(sorted(set().union(*tokens[match.start() : match.end()]))))


def _spell(pieces: Sequence[tuple[int, str]]) -> tuple[str, list[set[int]]]:
    """The text of one word, and for each of its characters the tokens that hold its bytes."""
    alphabet = byte_alphabet()
    bytes_ = []  # (byte, token)
    for token, piece in pieces:
        bytes_ += [(alphabet[letter], token) for letter in piece if letter in alphabet]
    text, tokens, at = "", [], 0
    for character in bytes(byte for byte, _ in bytes_).decode("utf-8", errors="replace"):
        width = 1 if character == "\ufffd" else len(character.encode())
        text += character
        tokens.append({token for _, token in bytes_[at : at + width]})
        at += width
    return text, tokens


def _forms(word: str) -> frozenset[str]:
    """A word and its possible singulars: "foxes" may be of "foxe" or "fox"."""
    word = folded(word)
    forms = {word}
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        forms.add(word[:-1])
        if word.endswith("es"):
            forms.add(word[:-2])
        if word.endswith("ies"):
            forms.add(word[:-3] + "y")
    return frozenset(forms)


def _ids(plan: Plan) -> list[Any]:
    return [token.id for chunk in plan.chunks for token in chunk]


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    return clip_tokenizer()
