"""LLMGA Embedding: the paper's comparison, in which an embedding takes the place of the prompt's words.

The same language model reads the same conversation. Instead of words it is given K learned tokens, and their states become
the text states of a prompt: as many chunks of 77 rows as a head of its own counts, joined to 75·n + 2 rows as LLMGA joins
those of words. So its length follows from the content, and what paints cannot tell the two apart.

Source: LLMGA (ECCV 2024), table 1 and figure 5; its code for this variant was not published. The head is GILL's mapper with
a shift of the queries for each chunk, and the count of chunks is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..chat.conversation import Conversation, Picture
from ..chat.engines.base import OnText, Said, Sampling, check_conversation
from ..chat.engines.local import LocalEngine
from ..files.header import read_header
from ..files.json_files import read_object
from ..files.kinds import shown
from ..files.tensors import check_tensors, read_some
from ..files.writing import replacing, write_text
from ..text import join_chunks
from .heads import GILLMapper

EMBEDDING_WEIGHTS, EMBEDDING_CONFIG = "embedding.safetensors", "embedding.json"
WITHOUT_WORDS = "<gen_image> </gen_image>"
"""What the history holds of a reply that is an embedding: that a prompt was there."""
_ROWS = 77


@dataclass(frozen=True)
class EmbeddingSizes:
    """Sizes of the embedding head.

    Args:
        language: width of the language model's hidden states.
        text: width of the image generator's text states.
        tokens: learned tokens behind the conversation.
        max_chunks: the longest prompt, in chunks of 75 tokens; 1 .. 16.
        width, layers: of the mapper.
    """

    language: int
    text: int
    tokens: int = 8
    max_chunks: int = 4
    width: int = 512
    layers: int = 4

    def __post_init__(self) -> None:
        for name in ("language", "text", "tokens", "max_chunks", "width", "layers"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if self.max_chunks > 16:
            raise ValueError(f"max_chunks must be at most 16, got {self.max_chunks}")


class EmbeddingHead(nn.Module):
    """Learned tokens, a mapper from their states to the chunks of a prompt, and a count of these chunks."""

    def __init__(self, sizes: EmbeddingSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.rows = nn.Parameter(torch.randn(sizes.tokens, sizes.language) * 0.02)
        self.mapper = GILLMapper(sizes.language, _ROWS, sizes.text, sizes.width, sizes.layers)
        self.chunk_shifts = nn.Parameter(torch.randn(sizes.max_chunks, 1, sizes.width) * 0.02)
        self.count = nn.Linear(sizes.language, sizes.max_chunks)

    def chunks(self, states: torch.Tensor, number: int) -> torch.Tensor:
        """The first ``number`` chunks (number, 77, text) from the states (tokens, language)."""
        shifts = self.chunk_shifts[:number]
        return self.mapper(states.expand(number, -1, -1), self.rows, shifts)

    def count_logits(self, states: torch.Tensor) -> torch.Tensor:
        """Logits (max_chunks,) of 1, 2, … chunks from the states (tokens, language)."""
        return self.count(states.mean(0))

    def text_states(self, states: torch.Tensor) -> torch.Tensor:
        """The whole embedding, (75·n + 2, text), from the states (tokens, language)."""
        number = int(self.count_logits(states).argmax()) + 1
        return join_chunks(self.chunks(states, number)[None], "llmga")[0]


class EmbeddingEngine:
    """A chat engine that answers in words as ``engine`` does, and also gives the prompt as an embedding.

    It keeps ``ChatEngine`` and ``HasPromptEmbeddings``.
    """

    def __init__(self, engine: LocalEngine, head: EmbeddingHead) -> None:
        """
        Raises:
            ValueError: the head was trained for a language model of another width.
        """
        width = engine.net.get_input_embeddings().weight.shape[1]
        if head.sizes.language != width:
            raise ValueError(
                f"this embedding head was trained for a language model of width {head.sizes.language}; {engine.name!r} has "
                f"{width}"
            )
        self.engine, self.head = engine, head.eval()
        self.name, self.supports_pictures = engine.name, engine.supports_pictures

    def generate(self, conversation: Conversation, sampling: Sampling, on_text: OnText) -> Said:
        """See ``ChatEngine.generate``."""
        return self.engine.generate(conversation, sampling, on_text)

    @torch.no_grad()
    def prompt_embedding(self, conversation: Conversation) -> torch.Tensor:
        """See ``HasPromptEmbeddings.prompt_embedding``."""
        check_conversation(conversation, self)
        states = self.engine.states_behind(conversation, self.head.rows)
        return self.head.text_states(states.to(self.head.rows)).float().cpu()


def requests_without_words(requests: Sequence[tuple[str, tuple[Picture, ...]]]) -> Conversation:
    """A conversation that ends with the last of some requests, with nothing between them that was said in words.

    Args:
        requests: the text and the pictures of each.
    """
    chat = Conversation()
    for number, (text, pictures) in enumerate(requests):
        chat = chat.say("assistant", WITHOUT_WORDS) if number else chat
        chat = chat.say("user", text, pictures)
    return chat


def save_embedding_head(head: EmbeddingHead, folder: Path) -> None:
    """Write ``embedding.safetensors`` and ``embedding.json`` into a folder, each whole or not at all."""
    import json
    from dataclasses import asdict

    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / EMBEDDING_WEIGHTS) as temporary:
        save_file({k: v.detach().cpu().contiguous() for k, v in head.state_dict().items()}, temporary)
    write_text(folder / EMBEDDING_CONFIG, json.dumps(asdict(head.sizes), indent=1) + "\n")


def load_embedding_head(folder: Path) -> EmbeddingHead:
    """The embedding head of a folder that ``save_embedding_head`` wrote.

    Raises:
        FileNotFoundError: one of its files is missing.
        ValueError: they are damaged or do not fit each other.
    """
    path = folder / EMBEDDING_WEIGHTS
    try:
        sizes = EmbeddingSizes(**read_object(folder / EMBEDDING_CONFIG))
    except TypeError as error:
        raise ValueError(
            f"{shown(folder / EMBEDDING_CONFIG)} is not that of an embedding head: {error}"
        ) from error
    with torch.device("meta"):
        head = EmbeddingHead(sizes)
    found = read_some(path, list(read_header(path)))
    check_tensors(found, {name: value.shape for name, value in head.state_dict().items()}, shown(path))
    head.load_state_dict(found, assign=True)
    return head.eval().requires_grad_(False)
