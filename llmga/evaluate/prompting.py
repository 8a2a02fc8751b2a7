"""What a painter is given: a row's words, or its text states in their place, for pictures asked for in conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .cache_keys import cache_key
from .embedders import Request
from .paint_jobs import PaintJob
from .stages import Row, Stages, faults
from .writers import Writer, WrittenPrompt


@dataclass(frozen=True)
class AskedConversation:
    """A conversation in which each request asks for a picture.

    Args:
        key: of its files; with the run's seed it decides the noise of its pictures, the same at every turn.
        requests: one for each turn.
        plain: the words that a row without a chat engine paints, one for each turn.
    """

    key: str
    requests: tuple[Request, ...]
    plain: tuple[str, ...]


@dataclass(frozen=True)
class GivenPrompt:
    """What one picture is painted from: a prompt, or, where ``states`` is a file, the text states of that turn in it."""

    prompt: str
    states: Path | None = None
    turn: int = 0

    def load_states(self) -> torch.Tensor | None:
        """(rows, text); None for words."""
        if self.states is None:
            return None
        from safetensors import safe_open

        with safe_open(self.states, "pt") as file:
            return file.get_tensor(str(self.turn))


def prompts_of_row(
    name: str, row: Row, asked: Sequence[AskedConversation], task: str, seed: int, stages: Stages
) -> tuple[list[list[GivenPrompt]], list[str]]:
    """By conversation and turn what a row gives its painter, and what must be said of it.

    Args:
        name: of the table, for a person.
        task: what a chat engine is asked at each turn; ``chat`` says the request as it is.
    """
    keys = [one.key for one in asked]
    of = ([one.requests for one in asked], task, seed)
    if row.embedder.kind:
        files = stages.embed(
            f"{name}, {row.name}: embeddings", keys, row.embedder, lambda i: asked[i].requests, *of[:1]
        )
        return [
            [GivenPrompt(words, file, turn) for turn, words in enumerate(one.plain)]
            for one, file in zip(asked, files, strict=True)
        ], []

    def converse(writer: Writer, i: int) -> list[WrittenPrompt]:
        return writer.converse(asked[i].requests, asked[i].plain, task, seed + i)

    written = stages.converse(f"{name}, {row.name}: prompts", keys, row.chat, converse, *of)
    given = [[GivenPrompt(turn.prompt) for turn in one] for one in written]
    return given, faults([turn for one in written for turn in one])


def paint_turn(
    name: str,
    row: Row,
    asked: Sequence[AskedConversation],
    given: Sequence[Sequence[GivenPrompt]],
    turn: int,
    size: int,
    seed: int,
    stages: Stages,
) -> list[Path]:
    """The pictures of one turn of all conversations, in their order.

    Args:
        size: sides of the pictures, in pixels.
    """
    chosen = [one[turn] for one in given]

    def job(i: int) -> PaintJob:
        one = chosen[i]
        return PaintJob(asked[i].key, one.prompt, seed, size, size, states=one.load_states())

    words: list[Any] = [one.prompt for one in chosen]
    if row.embedder.kind:
        words = [row.embedder, [one.requests[: turn + 1] for one in asked]]
    return stages.paint(
        f"{name}, {row.name}: pictures",
        [one.key for one in asked],
        row.painter,
        job,
        None,
        cache_key(words),
        seed,
        size,
    )
