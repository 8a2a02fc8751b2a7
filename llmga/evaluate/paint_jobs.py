"""What a painter is asked for, one picture at a time, and what a painter is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image


@dataclass(frozen=True)
class PaintJob:
    """One picture to be painted.

    Args:
        key: decides the noise, together with ``seed``.
        picture: to be filled where ``mask`` is white, or to be edited.
        source: the prompt of the picture before an edit.
        states: text states (rows, text) in the place of the prompt's, 75 n + 2 rows.
    """

    key: str
    prompt: str
    seed: int
    width: int
    height: int
    picture: Image.Image | None = None
    mask: Image.Image | None = None
    source: str = ""
    states: torch.Tensor | None = None


class JobPainter(Protocol):
    """Paints jobs."""

    def paint(self, jobs: Sequence[PaintJob]) -> list[Image.Image]:
        """One RGB picture for each job, in their order, of their sizes."""
        ...
