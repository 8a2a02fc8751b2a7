"""Which word of the edited prompt is which word of the source prompt, for prompts of any number of chunks.

Prompt-to-prompt gives each target word the attention that its source word had. With ``matrix`` S and ``own`` d that is
``P_new = P_source · S + P_target · diag(d)``: linear in the attention, so it never has to be held as a matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch

from ..text.chunks import Layout, Plan
from .phrases import Pieces, clip_pieces, words
from .positions import Places

Mode = Literal["refine", "replace"]
MINIMUM_RATIO = 0.5
"""Below this aligned ratio two prompts are different texts: what still aligns is mostly articles and commas."""

_RUN = 1
"""What a matched pair is worth more when the pair before it is matched too; a match itself is worth 1."""


@dataclass(frozen=True)
class Alignment:
    """Where the attention of T_src source positions goes among T_tgt target positions.

    Both lengths are those of the same number of chunks: encode both prompts with ``min_chunks=chunks``.
    """

    matrix: torch.Tensor
    """(T_src, T_tgt) float32; a row adds up to 1, or to 0 for a word that is gone."""
    own: torch.Tensor
    """(T_tgt,) float32: 1 for a new word, which attends as it likes, else 0."""
    aligned_ratio: float
    """The part of the target's text tokens that take attention from the source; 1 for an empty target."""
    removed: tuple[int, ...]
    """Source positions of the words that the target does not keep."""
    added: tuple[int, ...]
    """Target positions of the words that the source does not have."""
    chunks: int


def align(
    source: Plan,
    target: Plan,
    layout: Layout,
    mode: Mode = "refine",
    pieces: Pieces = clip_pieces,
) -> Alignment:
    """Align two prompts; the one with fewer chunks counts as padded to the other's number.

    ``refine`` pairs equal tokens, in order, text flowing over chunk borders freely. It takes the pairs with the highest
    score: 1 for a pair and 1 more if the tokens before are a pair as well. So "a cat" is found as a whole rather than its
    article at one place and the noun at another, and a long run beats single articles and commas that happen to be in
    order. Of alignments that score alike, the one whose pairs come earliest, first in the target, then in the source.
    ``replace`` pairs the words one by one, equal or not; a word's tokens share the attention of all tokens of the other's
    where their numbers differ.

    A chunk's BOS takes its counterpart's attention. The positions of a chunk that follow its text (padding and EOS) keep
    all their attention too: resampled in order if there are fewer or more of them in the target, given to the last
    chunk's if there are none.

    Raises:
        ValueError: unknown layout or mode, or ``replace`` for prompts of different word counts.

    Source: Hertz et al., Prompt-to-Prompt (ICLR 2023), and its ``seq_aligner.py`` (google/prompt-to-prompt 9c472e4).
    Deviations: any number of tokens (theirs ends at 77); runs are preferred (theirs takes any longest subsequence);
    padding gets padding (behind a target shorter than the source, theirs takes the source position of the same number,
    which is often a word; before a longer one it loses padding's attention); in ``replace``, what follows the last
    swapped word moves with it (theirs stays at the same number, which is another word once token counts differ).
    """
    _check(layout, mode)
    count = max(len(source.chunks), len(target.chunks))
    rows, columns = (Places.of(plan.padded(count), layout) for plan in (source, target))
    if mode == "refine":
        pairs = [
            (rows.text[i], columns.text[j], 1.0)
            for i, j in common_runs(*(_codes(plan) for plan in (source, target)))
        ]
    else:
        pairs = _word_by_word(source, target, rows, columns, pieces)
    matrix = torch.zeros(rows.length, columns.length)
    for i, j, part in [*pairs, *_around_text(rows, columns)]:
        matrix[i, j] += part
    own = torch.zeros(columns.length)
    kept = {j for _, j, _ in pairs}
    own[[j for j in columns.text if j not in kept]] = 1
    tokens = [dict(zip(p.text, _codes(plan), strict=True)) for p, plan in ((rows, source), (columns, target))]
    same = [(i, j) for i, j, _ in pairs if tokens[0][i] == tokens[1][j]]
    removed, added = (
        tuple(sorted(set(places.text) - {pair[k] for pair in same}))
        for k, places in enumerate((rows, columns))
    )
    ratio = len(kept) / len(columns.text) if columns.text else 1.0
    return Alignment(matrix, own, ratio, removed, added, count)


def common_runs(source: Sequence[int], target: Sequence[int]) -> list[tuple[int, int]]:
    """The best ordered pairs (i, j) with ``source[i] == target[j]``, as ``align`` scores them."""
    a, b = np.asarray(source, dtype=np.int64), np.asarray(target, dtype=np.int64)
    n, m = len(a), len(b)
    best = np.zeros((n + 1, m + 1), dtype=np.int32)  # of the first i and j tokens
    ending = np.full((n + 1, m + 1), -1, dtype=np.int32)  # of those, with the last two of them a pair
    for i in range(1, n + 1):
        before = np.maximum(best[i - 1, :-1], np.where(ending[i - 1, :-1] > 0, ending[i - 1, :-1] + _RUN, 0))
        ending[i, 1:] = np.where(a[i - 1] == b, 1 + before, -1)
        best[i] = np.maximum.accumulate(np.maximum(best[i - 1], ending[i]))
    pairs = []
    i, j, running = n, m, False
    while i and j:
        if not running and best[i, j] == best[i, j - 1]:
            j -= 1
        elif not running and best[i, j] == best[i - 1, j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
            running = ending[i, j] > 0 and ending[i, j] + _RUN >= best[i, j]
    return pairs[::-1]


_Pairs = list[tuple[int, int, float]]


def _around_text(source: Places, target: Places) -> _Pairs:
    pairs: _Pairs = [(i, j, 1.0) for i, j in zip(source.bos, target.bos, strict=True)]
    for rows, columns in zip(source.after, target.after, strict=True):
        columns = columns or target.after[-1]
        n, m = len(rows), len(columns)
        # Row k is the interval k/n .. (k+1)/n, column l the interval l/m .. (l+1)/m; counted in 1/(n·m).
        for k, i in enumerate(rows):
            for at in range(k * m // n, -(-(k + 1) * m // n)):
                shared = min((k + 1) * m, (at + 1) * n) - max(k * m, at * n)
                pairs.append((i, columns[at], shared / m))
    return pairs


def _word_by_word(
    source: Plan, target: Plan, rows: Places, columns: Places, pieces: Callable[..., list[str]]
) -> _Pairs:
    ours, theirs = words(source, pieces), words(target, pieces)
    if len(ours) != len(theirs):
        raise ValueError(
            f"mode replace needs prompts of as many words, punctuation included; source has {len(ours)}, target "
            f"{len(theirs)}; take mode refine"
        )
    pairs: _Pairs = []
    for old, new in zip(ours, theirs, strict=True):
        if len(old) == len(new):
            pairs += [(rows.text[i], columns.text[j], 1.0) for i, j in zip(old, new, strict=True)]
        else:
            pairs += [(rows.text[i], columns.text[j], 1 / len(new)) for i in old for j in new]
    return pairs


def _codes(plan: Plan) -> list[int]:
    """A number for each token, the same for the same token; weights do not count."""
    return [_code(token.id) for chunk in plan.chunks for token in chunk]


def _code(token: Any) -> int:
    # On the host a textual inversion is a vector; equal vectors are one word. Vocabulary indices are small.
    if isinstance(token, torch.Tensor):
        return (1 << 40) + (hash(token.detach().float().cpu().numpy().tobytes()) & 0xFFFFFFFF)
    return int(token)


def _check(layout: str, mode: str) -> None:
    for name, value, known in (("layout", layout, get_args(Layout)), ("mode", mode, get_args(Mode))):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")
