"""LLMGA Embedding of the miniature, and the conversations of eight turns on which the paper's figure 5 compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llmga.chat import Conversation
from llmga.chat.folders import load_local_engine
from llmga.chat.tasks import render
from llmga.gill.embedding import requests_without_words
from llmga.train import train
from llmga.train.components import Components
from llmga.train.embedding import EmbeddingConfig, EmbeddingTrainer

from ..world.captions import caption_of, detailed_caption, short_caption
from ..world.edits import sample_edit
from ..world.scene import Scene, sample_scene

TURNS = 8


@dataclass(frozen=True)
class MiniatureEmbedding:
    """How the miniature's embedding head is trained."""

    training: EmbeddingConfig
    conversations: int
    """Of up to eight turns each."""


@dataclass(frozen=True)
class EditTurn:
    """A request, the scene that it leads to, and the detailed prompt of that."""

    asked: str
    scene: Scene
    prompt: str


def conversation_of_edits(seed: int, turns: int = TURNS, split: Any = "train") -> list[EditTurn]:
    """A scene that is asked for, and one edit of it in each turn after the first; a scene that allows none ends it."""
    scene = sample_scene(seed, (2, 4), split)
    asked = render("refine", short_caption(scene, seed, order="wish"), seed)
    found = [EditTurn(asked, scene, detailed_caption(scene, seed, order="wish"))]
    for number in range(1, turns):
        try:
            edit = sample_edit(found[-1].scene, seed * 64 + number, order="wish")
        except ValueError:
            break
        asked = render("change", edit.instruction, seed + number)
        found.append(EditTurn(asked, edit.target, edit.detailed[1]))
    return found


class EditRequests:
    """Requests of conversations of edits, as ``llmga.train.embedding.Requests``: one for each turn of each, and as many that
    begin a conversation, for what these ask for must be learned before edits of it can be.

    The prompt is the scene's short caption in one wording. Of detailed prompts in many wordings, which nothing in the
    request foretells, an embedding learns the mean, and paints backgrounds alone.
    """

    def __init__(self, conversations: int, seed: int = 0) -> None:
        self._conversations = [conversation_of_edits(seed * 1_000_003 + i) for i in range(conversations)]
        edits = [(i, turn) for i, turns in enumerate(self._conversations) for turn in range(len(turns))]
        begun = range(conversations, conversations + len(edits))
        self._conversations += [conversation_of_edits(seed * 1_000_003 + i, turns=1) for i in begun]
        self._places = [*edits, *((i, 0) for i in begun)]

    def __len__(self) -> int:
        return len(self._places)

    def conversation(self, i: int) -> Conversation:
        number, turn = self._places[i]
        return without_words(self._conversations[number][: turn + 1])

    def prompt(self, i: int) -> str:
        number, turn = self._places[i]
        return caption_of(self._conversations[number][turn].scene)


def without_words(turns: Sequence[EditTurn]) -> Conversation:
    """The requests, with nothing between them that was said in words; it ends with the last request."""
    return requests_without_words([(turn.asked, ()) for turn in turns])


def train_embedding(config: MiniatureEmbedding, language: Path, pipeline: Any, folder: Path) -> Path:
    """Train the embedding head; returns the folder of the result."""
    engine = load_local_engine(language, torch.float32)
    parts = (pipeline.unet, pipeline.vae, (pipeline.text_encoder,), (pipeline.tokenizer,))
    components = Components(*parts, dict(pipeline.scheduler.config))
    requests = EditRequests(config.conversations, config.training.loop.seed)
    return train(
        EmbeddingTrainer(config.training, engine, components, requests), config.training.loop, folder
    )
