"""The alignment of Prompt-to-Prompt as published, for comparing edits with the paper's.

``align`` of ``alignment`` differs from it where prompts have unequal length, by as much as the edit itself; its docstring
says how, and why it is what an edit takes unless this one is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..text.chunks import EOS, JoinLayout, Plan, chunk_ids
from .alignment import Alignment, AlignmentMode, check_options, token_codes
from .phrases import Pieces, clip_pieces, split_words
from .positions import TokenPositions


def align_as_published(
    source: Plan,
    target: Plan,
    layout: JoinLayout,
    mode: AlignmentMode = "refine",
    pieces: Pieces = clip_pieces,
) -> Alignment:
    """Align two prompts as ``seq_aligner.py`` does.

    ``refine`` aligns the token sequences, BOS and the first EOS included, globally (Needleman and Wunsch; gap 0, match 1,
    mismatch -1). A target position behind its EOS takes the attention of the source position of the same number, which
    is a word's where the source is longer. ``replace`` swaps the words that differ; what stands before the last of them
    moves along, and what follows it stays at the same number.

    Both lengths are those of the longer prompt's chunks; the original ends at 77 positions, and further ones go on by the
    same rule. In ``replace`` a word is what CLIP reads as one, so that punctuation is a word of its own; the original
    splits at spaces.

    Raises:
        ValueError: unknown layout or mode, or ``replace`` for prompts of different word counts.

    Source: google/prompt-to-prompt 9c472e4 (Apache-2.0), ``seq_aligner.py``: ``get_mapper`` and
    ``get_replacement_mapper_``; PnPInversion aligns by ``refine`` always.
    """
    check_options(layout, mode)
    chunks = max(len(source.chunks), len(target.chunks))
    rows = TokenPositions.of(source.padded(chunks), layout)
    columns = TokenPositions.of(target.padded(chunks), layout)
    if mode == "refine":
        mapper = _refinement(_sequence(source, rows), _sequence(target, columns), columns.length)
        matrix = torch.zeros(rows.length, columns.length)  # (T_src, T_tgt)
        taken = torch.tensor(mapper) >= 0
        matrix[torch.tensor(mapper)[taken], taken.nonzero().flatten()] = 1
        own = (~taken).float()  # (T_tgt,)
    else:
        matrix = _replacement(source, target, rows, columns, pieces)
        own = torch.zeros(columns.length)
    return _described(matrix, own, source, target, rows, columns, chunks)


def _described(
    matrix: torch.Tensor,
    own: torch.Tensor,
    source: Plan,
    target: Plan,
    rows: TokenPositions,
    columns: TokenPositions,
    chunks: int,
) -> Alignment:
    """The alignment, with the words that it keeps, which is where a token is paired with the same token."""
    source_at = dict(zip(rows.text, token_codes(source), strict=True))
    target_at = dict(zip(columns.text, token_codes(target), strict=True))
    pairs = [(i, j) for i, j in matrix.nonzero().tolist() if j in target_at]
    same = [(i, j) for i, j in pairs if source_at.get(i) == target_at[j]]
    paired = {j for _, j in pairs}
    return Alignment(
        matrix,
        own,
        aligned_ratio=len(paired) / len(columns.text) if columns.text else 1.0,
        removed=tuple(sorted(set(rows.text) - {i for i, _ in same})),
        added=tuple(sorted(set(columns.text) - {j for _, j in same})),
        chunks=chunks,
    )


def _sequence(plan: Plan, positions: TokenPositions) -> list[int]:
    """The ids from the first BOS to the first position behind the last token, which is an EOS or padding."""
    codes = dict(zip(positions.text, token_codes(plan), strict=True))
    end = positions.text[-1] + 1 if positions.text else 1
    bos = chunk_ids((), EOS)[0]
    starts = set(positions.bos)
    return [bos if at in starts else codes.get(at, EOS) for at in range(end + 1)]


def _refinement(source: Sequence[int], target: Sequence[int], length: int) -> list[int]:
    """The source position of each of ``length`` target positions; -1 for one that keeps its own attention."""
    a, b = np.asarray(source, dtype=np.int64), np.asarray(target, dtype=np.int64)
    # score[i, j] of the first i and j ids; a gap costs nothing, so it never falls along a row or a column.
    score = np.zeros((len(a) + 1, len(b) + 1), dtype=np.int32)
    for i in range(1, len(a) + 1):
        diagonal = score[i - 1, :-1] + np.where(a[i - 1] == b, 1, -1)
        score[i, 1:] = np.maximum.accumulate(np.maximum(score[i - 1, 1:], diagonal))
    mapper = [*[-1] * len(b), *range(len(b), length)]
    i, j = len(a), len(b)
    while i and j:
        if score[i, j] == score[i, j - 1]:
            j -= 1
        elif score[i, j] == score[i - 1, j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            mapper[j] = i
    return mapper


def _replacement(
    source: Plan, target: Plan, rows: TokenPositions, columns: TokenPositions, pieces: Pieces
) -> torch.Tensor:
    """(T_src, T_tgt) of prompts of as many words."""
    source_words, target_words = split_words(source, pieces), split_words(target, pieces)
    if len(source_words) != len(target_words):
        raise ValueError(
            f"mode replace needs prompts of as many words, punctuation included; source has {len(source_words)}, target "
            f"{len(target_words)}; change target_prompt, or take mode refine"
        )
    source_codes, target_codes = token_codes(source), token_codes(target)
    swapped = [
        ([rows.text[k] for k in old], [columns.text[k] for k in new])
        for old, new in zip(source_words, target_words, strict=True)
        if [source_codes[k] for k in old] != [target_codes[k] for k in new]
    ]
    matrix = torch.zeros(rows.length, columns.length)
    i = j = 0
    while i < rows.length and j < columns.length:
        if not swapped:
            matrix[j, j] = 1
            i, j = i + 1, j + 1
        elif i == swapped[0][0][0]:
            old, new = swapped.pop(0)
            if len(old) == len(new):
                matrix[old, new] = 1
            else:
                for column in new:
                    matrix[old, column] = 1 / len(new)
            i, j = i + len(old), j + len(new)
        else:
            matrix[i, j] = 1
            i, j = i + 1, j + 1
    return matrix
