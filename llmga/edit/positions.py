"""Where the tokens of a planned prompt stand among the rows that ``chunks.join`` makes."""

from __future__ import annotations

from dataclasses import dataclass

from ..text.chunks import CONTENT, Layout, Plan


@dataclass(frozen=True)
class Places:
    """The positions of one encoded prompt: its text, each chunk's BOS, and what follows the text in each chunk."""

    text: list[int]
    bos: list[int]
    after: list[list[int]]
    length: int

    @classmethod
    def of(cls, plan: Plan, layout: Layout) -> Places:
        stride = CONTENT if layout == "llmga" else CONTENT + 2
        last = len(plan.chunks) - 1
        text: list[int] = []
        after: list[list[int]] = []
        for c, chunk in enumerate(plan.chunks):
            start = 1 + stride * c
            ends = start + CONTENT + (1 if layout == "llmga_lpw" or c == last else 0)  # with EOS
            text += range(start, start + len(chunk))
            after.append(list(range(start + len(chunk), ends)))
        bos = [0] if layout == "llmga" else [stride * c for c in range(last + 1)]
        return cls(text, bos, after, stride * (last + 1) + (2 if layout == "llmga" else 0))


def text_positions(plan: Plan, layout: Layout) -> list[int]:
    """The position of each of a plan's tokens, chunk after chunk."""
    return Places.of(plan, layout).text
