"""Embedders: what gives text states in the place of a prompt's words, LLMGA Embedding or GILL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from PIL import Image

from ..chat.conversation import Conversation, Picture
from ..images import read_picture
from .cache_keys import existing

Request = Sequence[str | Path]
"""One request of a conversation: words and files of pictures in their order."""


@dataclass(frozen=True)
class EmbedderConfig:
    """What embeds a request, in the place of a chat engine that writes a prompt."""

    kind: Literal["", "llmga", "gill"] = ""
    """``llmga`` is LLMGA Embedding; empty takes words."""
    language: str = ""
    """The folder of the language model; for llmga one that a chat engine is loaded from."""
    head: str = ""
    """What was trained on it: for llmga the folder of its embedding head, for gill the file of its trained part."""
    vision: str = ""
    """For gill: the folder or file of its CLIP; empty sees no pictures."""
    dtype: str = "float32"
    """Of the language model."""
    device: str = "cpu"

    @property
    def depends_on(self) -> tuple[Path, ...]:
        """Those of its files and folders that are here."""
        return existing(self.language, self.head, self.vision)


class Embedder(Protocol):
    """Reads conversations."""

    def states(self, requests: Sequence[Request]) -> torch.Tensor:
        """Text states (rows, text) float32 on the CPU, of the picture that the last request asks for."""
        ...


def load_embedder(config: EmbedderConfig) -> Embedder:
    """The embedder that a configuration names.

    Raises:
        FileNotFoundError: one of its files is missing.
        ValueError: they are damaged or do not fit each other; or the dtype is unknown.
    """
    dtype = getattr(torch, config.dtype, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"'dtype' of an embedder must be float32, float16 or bfloat16, got {config.dtype!r}")
    if config.kind == "gill":
        return GILLEmbedder(config, dtype)
    if config.kind == "llmga":
        return LLMGAEmbedder(config, dtype)
    raise ValueError(f"'kind' of an embedder must be llmga or gill, got {config.kind!r}")


class GILLEmbedder:
    """GILL's mapper on the [IMG] tokens behind a conversation, in which each earlier answer is a picture of its own.

    The states are those that the released evaluation forces with a generation scale of 1e5: [IMG0] comes at once.

    Source: kohjingyu/gill 4600b71, evals/generate_vist_images.py.
    """

    def __init__(self, config: EmbedderConfig, dtype: torch.dtype) -> None:
        from ..gill import GILL, load_language, load_parts, load_vision

        language = load_language(Path(config.language), dtype)
        language.net.to(config.device)
        vision = load_vision(Path(config.vision), torch.float32) if config.vision else None
        if vision is not None:
            vision.net.to(config.device)
        self.gill = GILL(language, vision, load_parts(config.head).to(config.device))

    def states(self, requests: Sequence[Request]) -> torch.Tensor:
        """See ``Embedder``."""
        parts: list[str | Image.Image] = []
        for number, request in enumerate(requests):
            parts += [f"{self.gill.img_text}\n"] * (number > 0)
            for part in request:
                parts += self._safe(part) if isinstance(part, str) else [read_picture(part)]
        with torch.no_grad():
            states = self.gill.picture_states(parts)[None].to(self.gill.parts.img_rows.device)
            return self.gill.parts.conditioning(states)[0].float().cpu()

    def _safe(self, text: str) -> list[str | Image.Image]:
        """A text as a piece of the prompt; control tokens and [IMG] tokens that it spells are broken."""
        from ..gill.transcript import prompt_of

        return prompt_of(self.gill, Conversation().say("user", text), "plain")


class LLMGAEmbedder:
    """LLMGA Embedding; earlier requests are answered by their embeddings alone, without words."""

    def __init__(self, config: EmbedderConfig, dtype: torch.dtype) -> None:
        from ..chat.folders.registry import load_local_engine
        from ..gill.embedding import EmbeddingEngine, load_embedding_head

        engine = load_local_engine(Path(config.language), dtype)
        engine.net.to(config.device)
        self.engine = EmbeddingEngine(engine, load_embedding_head(Path(config.head)).to(config.device))

    def states(self, requests: Sequence[Request]) -> torch.Tensor:
        """See ``Embedder``."""
        from ..gill.embedding import requests_without_words

        turns = [(request_text(request), request_pictures(request)) for request in requests]
        return self.engine.prompt_embedding(requests_without_words(turns))


def request_text(request: Request) -> str:
    """The words of a request, without its pictures."""
    return " ".join(part for part in request if isinstance(part, str))


def request_pictures(request: Request) -> tuple[Picture, ...]:
    """The pictures of a request, in their order."""
    return tuple(Picture.from_pil(read_picture(part)) for part in request if isinstance(part, Path))
