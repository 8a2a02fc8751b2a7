"""Token alignment of two prompts of any number of chunks, for prompt-to-prompt.

Prompt-to-prompt gives each target word the attention that its source word had. With ``matrix`` S and ``own`` d that is
``P_new = P_source · S + P_target · diag(d)``: linear in the attention, so it never has to be held as a matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch

from ..text.chunks import JoinLayout, Plan
from .phrases import Pieces, clip_pieces, split_words
from .positions import TokenPositions

AlignmentMode = Literal["refine", "replace"]
MINIMUM_RATIO = 0.5
"""Below this aligned ratio two prompts are different texts: mostly articles and commas still align."""

_RUN = 1
"""The score of a pair is 1, and so much more if the tokens before are a pair too."""


@dataclass(frozen=True)
class Alignment:
    """How the attention of T_src source positions is distributed over T_tgt target positions.

    Both lengths are those of the same number of chunks: encode both prompts with ``chunks`` chunks.
    """

    matrix: torch.Tensor
    """(T_src, T_tgt) float32; a row adds up to 1, or to 0 for a removed word."""
    own: torch.Tensor
    """(T_tgt,) float32: 1 for an added word, which keeps its own attention, else 0."""
    aligned_ratio: float
    """The part of the target's text tokens that are paired with source tokens, 0 .. 1; 1 for an empty target."""
    removed: tuple[int, ...]
    """Source positions of the words that the target does not keep."""
    added: tuple[int, ...]
    """Target positions of the words that the source does not have."""
    chunks: int
    """How many chunks both prompts are encoded with."""


def align(
    source: Plan,
    target: Plan,
    layout: JoinLayout,
    mode: AlignmentMode = "refine",
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
    check_options(layout, mode)
    chunks = max(len(source.chunks), len(target.chunks))
    rows = TokenPositions.of(source.padded(chunks), layout)
    columns = TokenPositions.of(target.padded(chunks), layout)
    source_codes, target_codes = token_codes(source), token_codes(target)
    if mode == "refine":
        pairs = [(rows.text[i], columns.text[j], 1.0) for i, j in common_runs(source_codes, target_codes)]
    else:
        pairs = _word_by_word(source, target, rows, columns, pieces)
    matrix = torch.zeros(rows.length, columns.length)  # (T_src, T_tgt)
    for i, j, part in [*pairs, *_around_text(rows, columns)]:
        matrix[i, j] += part
    paired = {j for _, j, _ in pairs}
    own = torch.zeros(columns.length)  # (T_tgt,)
    own[[j for j in columns.text if j not in paired]] = 1
    # Words are kept where a token is paired with the same token; `replace` pairs others too.
    source_at = dict(zip(rows.text, source_codes, strict=True))
    target_at = dict(zip(columns.text, target_codes, strict=True))
    same = [(i, j) for i, j, _ in pairs if source_at[i] == target_at[j]]
    removed = set(rows.text) - {i for i, _ in same}
    added = set(columns.text) - {j for _, j in same}
    return Alignment(
        matrix,
        own,
        aligned_ratio=len(paired) / len(columns.text) if columns.text else 1.0,
        removed=tuple(sorted(removed)),
        added=tuple(sorted(added)),
        chunks=chunks,
    )


def common_runs(source: Sequence[int], target: Sequence[int]) -> list[tuple[int, int]]:
    """The ordered pairs (i, j) with ``source[i] == target[j]`` of the highest score, as ``align`` scores them.

    Dynamic programming over prefixes, as for the longest common subsequence; time and memory are O(len · len).
    """
    a, b = np.asarray(source, dtype=np.int64), np.asarray(target, dtype=np.int64)
    n, m = len(a), len(b)
    # best[i, j] is the score of the first i and j tokens; ending[i, j] is that score if the last two of them are a
    # pair, -1 if they cannot be.
    best = np.zeros((n + 1, m + 1), dtype=np.int32)
    ending = np.full((n + 1, m + 1), -1, dtype=np.int32)
    for i in range(1, n + 1):
        continued = np.where(ending[i - 1, :-1] > 0, ending[i - 1, :-1] + _RUN, 0)
        before = np.maximum(best[i - 1, :-1], continued)
        ending[i, 1:] = np.where(a[i - 1] == b, 1 + before, -1)
        best[i] = np.maximum.accumulate(np.maximum(best[i - 1], ending[i]))
    return _trace_back(best, ending)


def _trace_back(best: np.ndarray, ending: np.ndarray) -> list[tuple[int, int]]:
    """The pairs that lead to the score of all tokens; of equal ways the one whose pairs come earliest."""
    pairs = []
    i, j = best.shape[0] - 1, best.shape[1] - 1
    in_run = False
    while i and j:
        if not in_run and best[i, j] == best[i, j - 1]:
            j -= 1
        elif not in_run and best[i, j] == best[i - 1, j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
            in_run = bool(ending[i, j] > 0 and ending[i, j] + _RUN >= best[i, j])
    return pairs[::-1]


_Pairs = list[tuple[int, int, float]]


def _around_text(source: TokenPositions, target: TokenPositions) -> _Pairs:
    """The pairs of BOS, and of the padding and EOS after each chunk's text, resampled where their numbers differ."""
    pairs: _Pairs = [(i, j, 1.0) for i, j in zip(source.bos, target.bos, strict=True)]
    for rows, columns in zip(source.after, target.after, strict=True):
        columns = columns or target.after[-1]
        n, m = len(rows), len(columns)
        # Both are spread over the same length n · m: row k covers k·m .. (k+1)·m, column c covers c·n .. (c+1)·n.
        # A row gives each column the part of itself that they share.
        for k, i in enumerate(rows):
            first, end = k * m // n, -(-(k + 1) * m // n)
            for c in range(first, end):
                shared = min((k + 1) * m, (c + 1) * n) - max(k * m, c * n)
                pairs.append((i, columns[c], shared / m))
    return pairs


def _word_by_word(
    source: Plan, target: Plan, rows: TokenPositions, columns: TokenPositions, pieces: Pieces
) -> _Pairs:
    """The pairs of tokens of words that stand at the same place; a word's tokens share where their numbers differ."""
    source_words, target_words = split_words(source, pieces), split_words(target, pieces)
    if len(source_words) != len(target_words):
        raise ValueError(
            f"mode replace needs prompts of as many words, punctuation included; source has {len(source_words)}, target "
            f"{len(target_words)}; change target_prompt, or take mode refine"
        )
    pairs: _Pairs = []
    for old, new in zip(source_words, target_words, strict=True):
        if len(old) == len(new):
            pairs += [(rows.text[i], columns.text[j], 1.0) for i, j in zip(old, new, strict=True)]
        else:
            pairs += [(rows.text[i], columns.text[j], 1 / len(new)) for i in old for j in new]
    return pairs


def token_codes(plan: Plan) -> list[int]:
    """A number for each token, the same for the same token; weights do not count."""
    return [_code(token.id) for chunk in plan.chunks for token in chunk]


def _code(token: Any) -> int:
    # On the host a textual inversion is a vector; equal vectors are one word. Vocabulary indices are small.
    if isinstance(token, torch.Tensor):
        return (1 << 40) + (hash(token.detach().float().cpu().numpy().tobytes()) & 0xFFFFFFFF)
    return int(token)


def check_options(layout: str, mode: str) -> None:
    """
    Raises:
        ValueError: unknown layout or mode.
    """
    for name, value, known in (
        ("layout", layout, get_args(JoinLayout)),
        ("mode", mode, get_args(AlignmentMode)),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")
