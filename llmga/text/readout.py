"""A report on a planned prompt: tokens, chunks, where it was cut, what was left out."""

from __future__ import annotations

from collections.abc import Sequence

from .chunks import CONTENT, TRAINED_CHUNKS, Plan, Token
from .tokenizer import decode

_WHY = {
    "hard": f"at {CONTENT} tokens",
    "sentence": "at a sentence end",
    "break": "at BREAK",
    "whole": "before an embedding, which stays whole",
}
_EDGE = 6
"""Tokens shown on each side of a cut."""
_DROPPED = 75
"""Dropped tokens shown."""


def readout(plan: Plan) -> str:
    """Describe a plan: a line for the counts, one for each cut, one for what was dropped, none of them long."""
    sizes = [len(chunk) for chunk in plan.chunks[: len(plan.cuts) + 1]]
    padding = len(plan.chunks) - len(sizes)
    lines = [
        f"{_count(sum(sizes), 'token')} in {_count(len(sizes), 'chunk')} ({' + '.join(map(str, sizes))})"
    ]
    if padding:
        lines[0] += f", {_count(padding, 'chunk')} of padding"
    for i, why in enumerate(plan.cuts):
        lines.append(
            f"cut {i + 1}, {_WHY[why]}: …{_text(plan.chunks[i][-_EDGE:])} | "
            f"{_text(plan.chunks[i + 1][:_EDGE])}…"
        )
    if plan.dropped:
        lines.append(dropped_line(plan, f"max_chunks ({len(sizes)} × {CONTENT} tokens)"))
    if len(plan.chunks) > TRAINED_CHUNKS:
        lines.append(f"LLMGA was trained on at most {TRAINED_CHUNKS} chunks")
    return "\n".join(lines)


def dropped_line(plan: Plan, limit: str) -> str:
    """Say which tokens of a plan are left out, and beyond which limit."""
    more = "" if len(plan.dropped) <= _DROPPED else " …"
    return (
        f"DROPPED {_count(len(plan.dropped), 'token')} beyond {limit}: {_text(plan.dropped[:_DROPPED])}{more}"
    )


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _text(tokens: Sequence[Token]) -> str:
    return decode(token.id for token in tokens)
