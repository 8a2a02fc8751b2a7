"""The miniature's CLIP text encoder, from nothing: its states learn to tell what stands where.

The real one learned beside pictures, at a size that makes words mean something; this one learns from the world's own
captions, as a stand-in. What is read from its states is read by cross-attention, a query for each place: just as a
UNet will ask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llmga.text import CLIPPromptEncoder, clip_tokenizer, join_chunks, number_chunks
from llmga.train import LoopConfig, Metrics, Weights

from ..world.dataset import ATTRIBUTES, Mix, Painted
from ..world.scene import BACKGROUNDS, PLACES
from .architecture import CONTEXT_DIM, HEADS
from .painter import new_text_encoder
from .reader import SIZES, reading_loss

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class WordsConfig:
    loop: LoopConfig
    scenes: int
    """How many of the painted scenes it learns from."""
    captions: Mix = field(default_factory=Mix)
    """No vague ones: what they leave open cannot be read from them."""

    def __post_init__(self) -> None:
        if self.captions.vague:
            raise ValueError(
                "captions.vague must be 0: what a vague caption leaves open cannot be told from it"
            )


class Telling(nn.Module):
    """From text states (B, L, ``CONTEXT_DIM``): logits of the places and the background, as ``Reader``'s."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(PLACES) + 1, CONTEXT_DIM))
        self.attend = nn.MultiheadAttention(CONTEXT_DIM, HEADS, batch_first=True)
        self.place = nn.Linear(CONTEXT_DIM, sum(SIZES))
        self.background = nn.Linear(CONTEXT_DIM, len(BACKGROUNDS))

    def forward(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        asked = self.queries.expand(len(states), -1, -1)
        attended = self.attend(asked, states, states, need_weights=False)[0]
        return self.place(attended[:, :-1]), self.background(attended[:, -1])


class WordsTrainer:
    """The trainer (see ``llmga.train.Trainer``) of a text encoder, on captions cut into chunks of 75 tokens."""

    def __init__(self, config: WordsConfig, source: Painted, captions: Sequence[str]) -> None:
        self.config, self._captions = config, captions
        self.net = new_text_encoder(config.loop.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.loop.seed)
            self.telling = Telling()
        self._labels = torch.from_numpy(source.labels[: len(captions)]).long()
        self._tokenizer: Any = clip_tokenizer()

    def __len__(self) -> int:
        return len(self._captions)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"text_encoder": self.net, "telling": self.telling}

    def prepare(self, device: torch.device, rank: int, world: int, barrier: Callable[[], None]) -> None:
        self._device = device

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> Inputs:
        """Token ids (U, 1, 77) of each chunk once, where they stand (B, n), and labels (B, 37)."""
        encoder = self._prompts()
        rows, chunks = number_chunks((encoder.chunks(self._captions[int(i)]) for i in indices), known=[()])
        longest = max(map(len, rows))
        where = [row + [0] * (longest - len(row)) for row in rows]
        ids = encoder.ids(chunks)
        return (
            ids.to(self._device),
            torch.tensor(where).to(self._device),
            self._labels[indices].to(self._device),
        )

    def loss(self, inputs: Inputs, generator: torch.Generator) -> tuple[torch.Tensor, Metrics]:
        ids, where, labels = inputs
        states = join_chunks(self._prompts().hidden_states(ids)[0][where], "llmga")
        places, background = self.telling(states)
        return reading_loss(places, background, labels), {"right": _right(places, labels)}

    def _prompts(self) -> CLIPPromptEncoder:
        return CLIPPromptEncoder((self._tokenizer,), (self.net,))

    def sample(self, step: int, folder: Path) -> None:
        """Words make no pictures."""

    def export(self, folder: Path, weights: Weights) -> None:
        """``words.safetensors``: the text encoder in float16, under its transformers names."""
        from safetensors.torch import save_file

        halves = {name: value.half().contiguous() for name, value in weights["text_encoder"].items()}
        save_file(halves, folder / "words.safetensors")


def _right(places: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The part of the objects all of whose attributes were predicted."""
    truth = labels[:, :-1].unflatten(1, (len(PLACES), len(ATTRIBUTES)))
    predicted = [part.argmax(-1) for part in places.split(SIZES, -1)[1:]]
    right = (torch.stack(predicted, -1) == truth).all(-1)
    there = truth[..., 0] >= 0
    return (right & there).sum() / there.sum()
