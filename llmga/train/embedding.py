"""Train LLMGA Embedding: a frozen language model's states become the text states of the prompt that it would write."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from ..chat.conversation import Conversation
from ..chat.engines.local import LocalEngine
from ..chat.tasks import render
from ..data.schemas import Records, Refinement
from ..files.writing import write_text
from ..gill.embedding import EmbeddingHead, EmbeddingSizes, save_embedding_head
from ..text.chunks import TRAINED_CHUNKS
from .components import Components, load_components
from .loop import LoopConfig, Metrics, Weights, train


class Requests(Protocol):
    """Requests, and the prompt that answers each."""

    def __len__(self) -> int: ...

    def conversation(self, i: int) -> Conversation:
        """It ends with a turn of the user."""
        ...

    def prompt(self, i: int) -> str: ...


@dataclass(frozen=True)
class EmbeddingConfig:
    loop: LoopConfig
    language: Path | None = None
    """The folder of the chat model that stage 1 trained; unused where an engine is passed in."""
    base: str = ""
    """A diffusers folder (or Hub name) of SD1.5, whose text encoder gives the targets; unused where passed in."""
    records: Path | None = None
    """``T2I/train.json``: short captions and the detailed ones that they become; unused where requests are passed in."""
    tokens: int = 8
    max_chunks: int = TRAINED_CHUNKS
    width: int = 512
    layers: int = 4
    count_weight: float = 0.1
    """Factor of the loss of the number of chunks."""


class EmbeddingExample(NamedTuple):
    conversation: Conversation
    targets: torch.Tensor
    """Text states (n, 77, dim) of the prompt's chunks."""


class RefinementRequests:
    """Short captions as LLMGA's task *refine* asks for them, in all its phrasings."""

    def __init__(self, path: Path, trained: bool) -> None:
        self._records = Records(path, Refinement)
        self._trained = trained

    def __len__(self) -> int:
        return len(self._records)

    def conversation(self, i: int) -> Conversation:
        return Conversation().say(
            "user", render("refine", self._records[i].ori_caption, i, trained=self._trained)
        )

    def prompt(self, i: int) -> str:
        return self._records[i].caption


class EmbeddingTrainer:
    """The trainer (see ``loop.Trainer``) of an ``EmbeddingHead``: the distance of GILL's generation loss, over all chunks,
    and the cross-entropy of their number."""

    def __init__(
        self, config: EmbeddingConfig, engine: LocalEngine, components: Components, requests: Requests
    ) -> None:
        self.config, self.engine, self.requests = config, engine, requests
        engine.net.requires_grad_(False)
        self._prompts = components.prompt_encoder(config.max_chunks)
        self._net = components.text_encoders[0].requires_grad_(False).eval()
        width = engine.net.get_input_embeddings().weight.shape[1]
        text = self._net.config.hidden_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.loop.seed)
            self.head = EmbeddingHead(
                EmbeddingSizes(width, text, config.tokens, config.max_chunks, config.width, config.layers)
            )

    def __len__(self) -> int:
        return len(self.requests)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"head": self.head}

    def prepare(self, device: torch.device, rank: int, world: int, barrier: Callable[[], None]) -> None:
        self.device = device
        for net in (self.head, self.engine.net, self._net):
            net.to(device)

    @torch.no_grad()
    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> list[EmbeddingExample]:
        examples = []
        for i in indices.tolist():
            chunks = self._prompts.chunks(self.requests.prompt(i))[: self.config.max_chunks] or [()]
            states, _ = self._prompts.hidden_states(self._prompts.ids(chunks).to(self.device))
            examples.append(EmbeddingExample(self.requests.conversation(i), states.float()))
        return examples

    def loss(
        self, inputs: Sequence[EmbeddingExample], generator: torch.Generator
    ) -> tuple[torch.Tensor, Metrics]:
        distances, counts, right = [], [], []
        for example in inputs:
            states = self.engine.states_behind(example.conversation, self.head.rows)
            number = len(example.targets)
            distances.append((example.targets - self.head.chunks(states, number)).norm(dim=-1).mean())
            logits = self.head.count_logits(states)
            counts.append(F.cross_entropy(logits, torch.tensor(number - 1, device=logits.device)))
            right.append((logits.argmax() == number - 1).float())
        distance, count = torch.stack(distances).mean(), torch.stack(counts).mean()
        metrics = {"distance": distance, "ce_count": count, "count_accuracy": torch.stack(right).mean()}
        return distance + self.config.count_weight * count, metrics

    def sample(self, step: int, folder: Path) -> None:
        """The length that each of the first prompts gets, and that which it has, in chunks."""
        lines = []
        for example in self.batch(torch.arange(min(4, len(self))), torch.Generator()):
            states = self.engine.states_behind(example.conversation, self.head.rows)
            lines.append(
                {"chunks": len(example.targets), "counted": int(self.head.count_logits(states).argmax()) + 1}
            )
        write_text(folder / f"step-{step:08d}.json", json.dumps(lines) + "\n")

    def export(self, folder: Path, weights: Weights) -> None:
        """``embedding.safetensors`` and ``embedding.json``."""
        head = EmbeddingHead(self.head.sizes)
        head.load_state_dict(weights["head"])
        save_embedding_head(head, folder)


def run(config: EmbeddingConfig, output: Path) -> Path:
    """Train what a configuration alone describes; returns the folder of the result.

    Raises:
        ValueError: a key that it needs is missing, or see ``loop.train``.
    """
    if config.language is None or not config.base or config.records is None:
        raise ValueError(
            "language (a chat model's folder), base (a diffusers folder of SD1.5) and records are needed"
        )
    from ..chat.folders import load_local_engine

    engine = load_local_engine(config.language, torch.float32)
    requests = RefinementRequests(config.records, engine.trained_phrases)
    return train(
        EmbeddingTrainer(config, engine, load_components(config.base), requests), config.loop, output, config
    )
