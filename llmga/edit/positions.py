"""Positions of a planned prompt's tokens in its encoded sequence (see ``text.chunks.join_chunks``)."""

from __future__ import annotations

from dataclasses import dataclass

from ..text.chunks import CONTENT, JoinLayout, Plan


@dataclass(frozen=True)
class TokenPositions:
    """The positions of one encoded prompt."""

    text: list[int]
    """The tokens of the text, chunk after chunk."""
    bos: list[int]
    """Each BOS: one in ``llmga``, one for each chunk in ``llmga_lpw``."""
    after: list[list[int]]
    """For each chunk the padding and EOS that follow its text."""
    length: int
    """T: how many positions there are."""

    @classmethod
    def of(cls, plan: Plan, layout: JoinLayout) -> TokenPositions:
        count = len(plan.chunks)
        if layout == "llmga":  # BOS, 75 tokens of each chunk, EOS
            stride, bos, length = CONTENT, [0], CONTENT * count + 2
        else:  # BOS, 75 tokens and EOS of each chunk
            stride = CONTENT + 2
            bos, length = [stride * i for i in range(count)], stride * count
        text: list[int] = []
        after: list[list[int]] = []
        for i, chunk in enumerate(plan.chunks):
            start = 1 + stride * i
            has_eos = layout == "llmga_lpw" or i == count - 1
            end = start + CONTENT + (1 if has_eos else 0)
            text += range(start, start + len(chunk))
            after.append(list(range(start + len(chunk), end)))
        return cls(text, bos, after, length)


def text_positions(plan: Plan, layout: JoinLayout) -> list[int]:
    """The position of each of a plan's tokens, chunk after chunk."""
    return TokenPositions.of(plan, layout).text
