"""Plan long prompts as chunks of 75 tokens, and join CLIP's outputs for the chunks into one sequence.

CLIP reads 77 positions: BOS, 75 tokens, EOS. LLMGA gives it a longer prompt chunk by chunk and joins the
outputs in one of two layouts: ``llmga``, in which its UNets were trained, keeps a single BOS and a single EOS
(75·n + 2 rows); ``llmga_lpw``, in which its SD1.5 pipelines run, keeps them all (77·n rows).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal, NamedTuple, get_args

import torch

from .prompt import Boundary, BreakAt, spans

BOS, EOS = 49406, 49407
CONTENT = 75
"""Tokens of text in one chunk."""
MAX_CHUNKS = 64
TRAINED_CHUNKS = 4
"""LLMGA was trained on up to 300 tokens."""

JoinLayout = Literal["llmga", "llmga_lpw"]
Cut = Literal["hard", "sentence", "break", "whole"]
MAX_WHOLE = 7
"""Tokens of a ``Whole`` that no cut parts; ComfyUI's ``max_word_length`` of 8 parts longer ones."""


class Whole(tuple[Any, ...]):
    """Ids that mean something only together: the vectors of one textual inversion."""


class Token(NamedTuple):
    id: Any
    """A vocabulary index; on the host also the vector of a textual inversion."""
    weight: float = 1.0
    rest: int = 0
    """How many tokens after this one belong to the same ``Whole``, where no cut may part them."""


@dataclass(frozen=True)
class Plan:
    """The tokens of a prompt's chunks.

    Args:
        chunks: up to 75 tokens each; an empty chunk is all padding.
        cuts: why chunk ``i`` ended, for each chunk but the last.
        dropped: the tokens beyond the last chunk allowed.
    """

    chunks: tuple[tuple[Token, ...], ...]
    cuts: tuple[Cut, ...] = ()
    dropped: tuple[Token, ...] = ()

    def padded(self, count: int) -> Plan:
        """Append chunks of padding up to ``count`` chunks; a longer plan stays as it is."""
        return replace(self, chunks=self.chunks + ((),) * (count - len(self.chunks)))


def plan_prompt(
    text: str,
    tokenize: Callable[[str], Sequence[Any]],
    *,
    weights: bool = False,
    break_at: BreakAt = "hard",
    max_chunks: int = TRAINED_CHUNKS,
    break_word: bool = False,
) -> Plan:
    """Tokenise a prompt and distribute its tokens over chunks.

    Args:
        tokenize: gives the ids of a text, without BOS, EOS and padding; a ``Whole`` of ids stands for its ids.

    Raises:
        ValueError: see ``prompt.spans`` and ``plan_chunks``.
    """
    parts = []
    for span in spans(text, weights=weights, break_at=break_at, break_word=break_word):
        parts.append((list(_tokens(tokenize(span.text), span.weight)), span.after))
    return plan_chunks(parts, max_chunks)


def count_tokens(ids: Iterable[Any]) -> int:
    """How many tokens the ids of ``plan_prompt``'s ``tokenize`` are; a ``Whole`` counts as all of its ids."""
    return sum(len(each) if isinstance(each, Whole) else 1 for each in ids)


def _tokens(ids: Iterable[Any], weight: float) -> Iterable[Token]:
    for each in ids:
        if not isinstance(each, Whole):
            yield Token(each, weight)
            continue
        kept = len(each) <= MAX_WHOLE
        for i, part in enumerate(each, 1):
            yield Token(part, weight, len(each) - i if kept else 0)


def plan_chunks(parts: Iterable[tuple[Sequence[Token], Boundary]], max_chunks: int = TRAINED_CHUNKS) -> Plan:
    """Fill chunks of 75 tokens, greedily and in order.

    A sentence that fits a chunk is not split: it moves to the next one. A longer one is cut where the chunk
    is full, and so is text in which no sentence ends are marked. A ``Whole`` of at most ``MAX_WHOLE`` tokens
    is never cut.

    Raises:
        ValueError: ``max_chunks`` is not 1 to ``MAX_CHUNKS``.
    """
    check_count("max_chunks", max_chunks)
    chunks: list[list[Token]] = [[]]
    cuts: list[Cut] = []

    def cut(why: Cut) -> None:
        chunks.append([])
        cuts.append(why)

    for sentence, ends_chunk in _sentences(parts):
        room = CONTENT - len(chunks[-1])
        if len(sentence) > room and (len(sentence) <= CONTENT or not room):
            cut("sentence")
        while sentence:
            room = _room(sentence, CONTENT - len(chunks[-1]))
            if not room:
                cut("hard" if len(chunks[-1]) == CONTENT else "whole")
                continue
            chunks[-1] += sentence[:room]
            sentence = sentence[room:]
        if ends_chunk and chunks[-1]:
            cut("break")
    if len(chunks) > 1 and not chunks[-1]:  # a BREAK after which nothing came
        chunks.pop()
        cuts.pop()
    kept = tuple(map(tuple, chunks[:max_chunks]))
    return Plan(kept, tuple(cuts[: max_chunks - 1]), tuple(chain.from_iterable(chunks[max_chunks:])))


def _room(tokens: Sequence[Token], room: int) -> int:
    """How many of the tokens go into what is left of a chunk without parting a ``Whole``."""
    if len(tokens) <= room:
        return len(tokens)
    while room and tokens[room - 1].rest:
        room -= 1
    return room


def check_count(name: str, count: int) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_CHUNKS:
        raise ValueError(f"{name} must be a whole number from 1 to {MAX_CHUNKS}, got {count!r}")


def chunk_ids(chunk: Sequence[Token], pad: int) -> list[Any]:
    """The 77 positions of a chunk: BOS, its tokens, padding, EOS last.

    ``pad`` is 49407 for CLIP-L; 0 for SDXL's second encoder, where a short chunk therefore differs from
    ComfyUI's own (EOS after the text, padding last).
    """
    return [BOS, *(token.id for token in chunk), *[pad] * (CONTENT - len(chunk)), EOS]


def join_chunks(hidden: torch.Tensor, layout: JoinLayout) -> torch.Tensor:
    """Join the encoder's outputs for the n chunks of each prompt into one sequence.

    Args:
        hidden: (B, n, 77, dim).

    Returns:
        (B, 75·n + 2, dim) for ``llmga``, (B, 77·n, dim) for ``llmga_lpw``.

    Raises:
        ValueError: unknown layout.
    """
    if layout == "llmga":
        first_bos, last_eos = hidden[:, 0, :1], hidden[:, -1, -1:]  # (B, 1, dim)
        content = hidden[:, :, 1:-1].flatten(1, 2)  # (B, n · 75, dim)
        return torch.cat([first_bos, content, last_eos], 1)
    if layout == "llmga_lpw":
        return hidden.flatten(1, 2)
    raise ValueError(f"layout must be one of {', '.join(get_args(JoinLayout))}; got {layout!r}")


def weigh(embeds: torch.Tensor, plan: Plan, layout: JoinLayout) -> torch.Tensor:
    """Multiply each row by the weight of its token, then rescale the whole to its old mean.

    Args:
        embeds: (1, T, dim), as ``join_chunks`` gives for this plan.

    Raises:
        ValueError: the weights bring the mean to zero, so that it cannot be restored.

    Source: ``get_weighted_text_embeddings`` in LLMGA's pipeline_stable_diffusion_inpaint_lpw.py (commit
    7e32eb6).
    """
    if all(token.weight == 1.0 for chunk in plan.chunks for token in chunk):
        return embeds
    rows = [
        [1.0, *(token.weight for token in chunk), *[1.0] * (CONTENT + 1 - len(chunk))]
        for chunk in plan.chunks
    ]
    weights = torch.tensor(rows, dtype=embeds.dtype, device=embeds.device)  # (n, 77)
    weighted = embeds * join_chunks(weights[None, ..., None], layout)
    scale = embeds.float().mean() / weighted.float().mean()
    if not torch.isfinite(scale):
        raise ValueError(
            "weights bring the mean of the conditioning to zero; use weights nearer to 1 or turn weights off"
        )
    return weighted * scale.to(embeds.dtype)


def _sentences(parts: Iterable[tuple[Sequence[Token], Boundary]]) -> Iterable[tuple[list[Token], bool]]:
    """Tokens gathered up to each boundary, and whether BREAK is that boundary."""
    gathered: list[Token] = []
    for tokens, after in parts:
        gathered.extend(tokens)
        if after:
            yield gathered, after == "break"
            gathered = []
    yield gathered, False
