"""Split a prompt into spans of text by weights, sentence ends and BREAK."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

Boundary = Literal["", "sentence", "break"]
BreakAt = Literal["hard", "sentence"]

MAX_PROMPT_LENGTH = 200_000
MAX_WEIGHT = 100.0
MAX_NESTING = 100

_BREAK = re.compile(r"\bBREAK\b")
# Never inside a run of punctuation, which CLIP reads as one word: cutting there would change the tokens.
_SENTENCE_END = re.compile(
    r"""[.!?…]["'”’)\]]*(?=[ \t\r\n]|$)|[。！？]["'”’」』）]*(?=[^\W_]|[ \t\r\n]|$)|\n"""
)
_ATTENTION = re.compile(
    r"""\\[()\[\]\\]        # an escaped bracket or backslash is text
      | :[+-]?(?:\d+\.?\d*|\.\d+)\)
      | [()\[\]]
      | [^\\()\[\]:]+ | [\\:]""",
    re.VERBOSE,
)


class Span(NamedTuple):
    """A stretch of a prompt with one weight."""

    text: str
    weight: float
    after: Boundary
    """The boundary at its end: none, a sentence end, or (with empty text) BREAK, which ends a chunk."""


def has_break(text: str) -> bool:
    """Whether the word ``BREAK`` stands in a text as A1111 reads it: in capitals, and a word by itself."""
    return _BREAK.search(text) is not None


def spans(
    text: str, *, weights: bool = False, break_at: BreakAt = "hard", break_word: bool = False
) -> list[Span]:
    """Split a prompt into spans that are tokenised one by one.

    ``weights`` reads A1111 brackets; off, they are text, which is what a language model means by them.
    ``break_at`` "sentence" marks sentence ends: ``. ! ? …`` before white space, their CJK forms, and line
    ends. With ``break_word`` the word ``BREAK`` (capitals, split at the word's edges as A1111 does, so that
    ``fox, BREAK, owl`` is two chunks) ends a chunk; without, it is a word, as for LLMGA's encoders.

    Raises:
        ValueError: the text is longer than ``MAX_PROMPT_LENGTH`` characters, brackets are nested deeper than
            ``MAX_NESTING``, or a weight is beyond ±``MAX_WEIGHT``.
    """
    if len(text) > MAX_PROMPT_LENGTH:
        raise ValueError(f"text holds {len(text)} characters, at most {MAX_PROMPT_LENGTH} are allowed")
    if break_at not in get_args(BreakAt):
        raise ValueError(f"break_at must be one of {', '.join(get_args(BreakAt))}; got {break_at!r}")
    out: list[Span] = []
    for part, weight in parse_weights(text) if weights else [(text, 1.0)]:
        for i, section in enumerate(_BREAK.split(part) if break_word else [part]):
            if i:
                out.append(Span("", weight, "break"))
            if break_at == "hard":
                out.append(Span(section, weight, ""))
            else:
                out.extend(Span(piece, weight, after) for piece, after in _sentences(section))
    return out


def parse_weights(text: str) -> list[tuple[str, float]]:
    """A1111 brackets as (text, weight) runs, equal neighbours merged.

    ``(a)`` × 1.1, ``[a]`` ÷ 1.1, ``(a:1.3)`` × 1.3, nested they multiply, an open bracket reaches to the end,
    ``\\(`` is a bracket, ``\\\\`` a backslash, a lone backslash is dropped.

    Source: ``parse_prompt_attention`` in LLMGA's llmga/diffusers/my_utils/util.py (commit 7e32eb6), by
    AUTOMATIC1111. There a weight that is not a number (``(a:1.2.3)``) crashes; here the colon and what follows
    it are text.
    """
    runs: list[tuple[str, float]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def scale(start: int, factor: float) -> None:
        runs[start:] = [(part, weight * factor) for part, weight in runs[start:]]

    for found in _ATTENTION.finditer(text):
        piece = found.group()
        if piece in opened:
            opened[piece].append(len(runs))
            # The cost of a prompt is its length times the nesting, so nesting must have an end.
            if len(opened[piece]) > MAX_NESTING:
                raise ValueError(
                    f"weights: brackets are nested deeper than {MAX_NESTING}; escape them as \\( or turn "
                    "weights off"
                )
        elif piece == ")" and opened["("]:
            scale(opened["("].pop(), 1.1)
        elif piece == "]" and opened["["]:
            scale(opened["["].pop(), 1 / 1.1)
        elif len(piece) > 2 and piece[0] == ":" and piece[-1] == ")" and opened["("]:
            scale(opened["("].pop(), float(piece[1:-1]))
        else:
            runs.append((piece.removeprefix("\\"), 1.0))
    for start in opened["("]:
        scale(start, 1.1)
    for start in opened["["]:
        scale(start, 1 / 1.1)
    return _merged(runs)


def _merged(runs: list[tuple[str, float]]) -> list[tuple[str, float]]:
    texts: list[list[str]] = []
    weights: list[float] = []
    for part, weight in runs:
        if not abs(weight) <= MAX_WEIGHT:
            raise ValueError(
                f"weights: {part[:40]!r} has weight {weight:g}, allowed is -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}"
            )
        if not weights or weights[-1] != weight:
            texts.append([])
            weights.append(weight)
        texts[-1].append(part)
    return [("".join(parts), weight) for parts, weight in zip(texts, weights, strict=True)]


def _sentences(text: str) -> Iterator[tuple[str, Boundary]]:
    start = 0
    for end in _SENTENCE_END.finditer(text):
        yield text[start : end.end()], "sentence"
        start = end.end()
    if start < len(text):
        yield text[start:], ""
