"""Tokenised conversations: saved to disk, bundled by length, and batched for stage 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from llmga.train.turns import IGNORED, ConversationInputs, TurnEncoder

from ..world.dataset import Painted, as_images
from ..world.dialogues import Shown
from ..world.facts import WORDS
from ..world.records import sample_hole

_HOLE_KINDS: tuple[Literal["", "inpaint", "outpaint"], ...] = ("", "inpaint", "outpaint")


@dataclass(frozen=True)
class Row:
    """A tokenised conversation: its tokens (T,), which of them are learned, and its pictures."""

    ids: np.ndarray
    learned: np.ndarray
    pictures: tuple[Shown, ...]


class Dialogues:
    """Conversations as stage 1 takes them (see ``stage1.Conversations``), with the pictures on the device.

    Args:
        tokens: see ``bundles``.
        facts: see ``counts_of``.
    """

    def __init__(
        self, rows: Sequence[Row], source: Painted, encoder: TurnEncoder, tokens: int = 0, facts: float = 1.0
    ) -> None:
        self._rows, self._pad = rows, encoder.pad_id
        self._counts = counts_of(encoder.processor.tokenizer, facts)
        self._bundles = bundles([len(row.ids) for row in rows], tokens)
        self._pictures = torch.from_numpy(source.pictures)
        holes = sorted(
            {(shown.hole, shown.hole_seed) for row in rows for shown in row.pictures if shown.hole}
        )
        self._hole_numbers = {hole: i + 1 for i, hole in enumerate(holes)}
        made = [np.zeros((1, 128, 128), bool), *(sample_hole(kind, seed)[None] for kind, seed in holes)]  # type: ignore[arg-type]
        self._holes = torch.from_numpy(np.concatenate(made))

    def __len__(self) -> int:
        return len(self._bundles)

    def batch(self, indices: torch.Tensor, device: torch.device) -> ConversationInputs:
        if self._pictures.device != device:
            self._pictures, self._holes = self._pictures.to(device), self._holes.to(device)
        rows = [self._rows[i] for k in indices.tolist() for i in self._bundles[k]]
        ids = np.full((len(rows), max(len(row.ids) for row in rows)), self._pad, np.int64)
        labels = np.full_like(ids, IGNORED)
        for i, row in enumerate(rows):
            ids[i, : len(row.ids)] = row.ids
            labels[i, : len(row.ids)][row.learned] = row.ids[row.learned]
        shown = [picture for row in rows for picture in row.pictures]
        holes = [self._hole_numbers.get((picture.hole, picture.hole_seed), 0) for picture in shown]
        pixels = self._pictures[torch.tensor([p.scene for p in shown], dtype=torch.int64, device=device)]
        hidden = self._holes[torch.tensor(holes, dtype=torch.int64, device=device)]
        images = as_images(pixels.masked_fill(hidden[..., None], 0))
        weights = torch.from_numpy(self._counts[ids]).to(device)
        return ConversationInputs(
            torch.from_numpy(ids).to(device), torch.from_numpy(labels).to(device), images, weights
        )


def counts_of(tokenizer: Any, facts: float) -> np.ndarray:
    """How much each token of the vocabulary counts when it is learned: ``facts`` if it is a word of facts, else 1.

    Of a detailed caption's 150 tokens 20 tell what is there; with equal weights they are learned last.
    """
    words = [tokenizer.decode([i]).strip().lower() for i in range(len(tokenizer))]
    return np.array([facts if word in WORDS else 1.0 for word in words], np.float32)


def bundles(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices of like lengths together, each time as many as fill ``tokens`` with padding; 0 leaves each alone."""
    if not tokens:
        return [[i] for i in range(len(lengths))]
    out: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if not out or (len(out[-1]) + 1) * lengths[out[-1][0]] > tokens:
            out.append([])
        out[-1].append(i)
    return out


def save_rows(rows: Sequence[Row], path: Path) -> None:
    """Write conversations as one ``.npz``, which ``load_rows`` reads back."""
    shown = [
        (i, p.scene, _HOLE_KINDS.index(p.hole), p.hole_seed)
        for i, row in enumerate(rows)
        for p in row.pictures
    ]
    np.savez(
        path,
        lengths=np.array([len(row.ids) for row in rows], np.int64),
        ids=np.concatenate([row.ids for row in rows]),
        learned=np.concatenate([row.learned for row in rows]),
        shown=np.array(shown, np.int64).reshape(-1, 4),
    )


def load_rows(path: Path) -> list[Row]:
    """Read what ``save_rows`` wrote."""
    with np.load(path) as kept:
        ends = np.cumsum(kept["lengths"])[:-1]
        ids, learned = np.split(kept["ids"], ends), np.split(kept["learned"], ends)
        pictures: list[list[Shown]] = [[] for _ in ids]
        for i, scene, hole, seed in kept["shown"].tolist():
            pictures[i].append(Shown(scene, _HOLE_KINDS[hole], seed))
    return [Row(*row) for row in zip(ids, learned, map(tuple, pictures), strict=True)]
