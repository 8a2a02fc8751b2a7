"""LLMGA Embedding: states behind a conversation, an embedding whose length follows from the content, its training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers", reason="training needs diffusers")
pytest.importorskip("accelerate", reason="training needs accelerate")

from support.tiny_training import components

from llmga.chat.conversation import Conversation, Picture
from llmga.chat.engines.base import ChatEngine, HasPromptEmbeddings
from llmga.chat.engines.local import LocalEngine
from llmga.chat.folders import load_local_engine
from llmga.data.schemas import Refinement, write_records
from llmga.gill.embedding import (
    EmbeddingEngine,
    EmbeddingHead,
    EmbeddingSizes,
    load_embedding_head,
    save_embedding_head,
)
from llmga.train import build, read_config, train
from llmga.train.embedding import EmbeddingConfig, EmbeddingTrainer, RefinementRequests
from miniworld.models.random_language import write_tiny_llava

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL: dict[str, Any] = {"tokens": 3, "max_chunks": 3, "width": 16, "layers": 1}
FOX = Picture.from_pil(Image.radial_gradient("L").resize((60, 40)))
ASKED = Conversation().say("user", "a red fox", (FOX,))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> LocalEngine:
    return load_local_engine(
        write_tiny_llava(tmp_path_factory.mktemp("model") / "llava", seed=1), torch.float32
    )


def head_for(engine: LocalEngine, seed: int = 0) -> EmbeddingHead:
    torch.manual_seed(seed)
    return EmbeddingHead(EmbeddingSizes(engine.net.get_input_embeddings().weight.shape[1], 32, **SMALL))


def test_states_behind_a_conversation_are_those_of_its_next_tokens(engine: LocalEngine) -> None:
    table = engine.net.get_input_embeddings().weight
    ids = engine.token_ids(ASKED)
    answered = ASKED.say("assistant", "in the snow")
    more = engine.token_ids(answered)[len(ids) :][:3]
    expected = engine.hidden(answered)[len(ids) : len(ids) + 3]
    torch.testing.assert_close(engine.states_behind(ASKED, table[more]), expected, rtol=1e-4, atol=1e-4)


def test_gradients_reach_the_rows_and_nothing_else(engine: LocalEngine) -> None:
    head = head_for(engine)
    engine.net.requires_grad_(False)
    head.chunks(engine.states_behind(ASKED, head.rows), 2).sum().backward()
    assert head.rows.grad is not None and head.rows.grad.norm() > 0
    assert all(p.grad is None for p in engine.net.parameters())


def test_an_engine_with_a_head_gives_embeddings_and_still_talks(engine: LocalEngine) -> None:
    head = head_for(engine)
    made = EmbeddingEngine(engine, head)
    assert isinstance(made, HasPromptEmbeddings) and isinstance(made, ChatEngine)
    assert not isinstance(engine, HasPromptEmbeddings)
    for number in (1, 2, 3):
        with torch.no_grad():
            head.count.bias.copy_(100 * torch.eye(3)[number - 1])
        assert made.prompt_embedding(ASKED).shape == (75 * number + 2, 32)
    other = made.prompt_embedding(Conversation().say("user", "two old cats", (FOX,)))
    assert not torch.equal(other, made.prompt_embedding(ASKED))
    with pytest.raises(ValueError, match="must end with a user turn"):
        made.prompt_embedding(ASKED.say("assistant", "x"))
    with pytest.raises(ValueError, match="language model of width 7"):
        EmbeddingEngine(engine, EmbeddingHead(EmbeddingSizes(7, 32, **SMALL)))


def test_a_head_comes_back_from_its_folder(engine: LocalEngine, tmp_path: Path) -> None:
    head = head_for(engine)
    save_embedding_head(head, tmp_path)
    found = load_embedding_head(tmp_path)
    assert found.sizes == head.sizes
    assert all(
        torch.equal(a, b)
        for a, b in zip(found.state_dict().values(), head.state_dict().values(), strict=True)
    )
    (tmp_path / "embedding.json").write_text('{"language": 64}')
    with pytest.raises(ValueError, match="is not that of an embedding head"):
        load_embedding_head(tmp_path)
    (tmp_path / "embedding.json").write_text('{"language": 64, "text": 32, "width": 8}')
    with pytest.raises(ValueError, match="lacks the tensor|has the tensor|has the shape"):
        load_embedding_head(tmp_path)


def requests(folder: Path) -> RefinementRequests:
    """Short prompts, and every other of more than 75 tokens."""
    long = "a red fox in the snow under the old stone bridge, "
    records = [
        Refinement("a.png", long * (1 + 8 * (i % 2)), f"{word} fox")
        for i, word in enumerate(("red", "old", "blue", "tiny"))
    ]
    write_records(folder / "t2i.json", records)
    return RefinementRequests(folder / "t2i.json", trained=False)


def train_tiny(engine: LocalEngine, folder: Path, output: Path, **loop: Any) -> Path:
    plain = {
        "steps": 4,
        "batch": 4,
        "micro_batch": 2,
        "lr": 1e-2,
        "save_every": 2,
        "log_every": 1,
        "cpu": True,
    }
    config = build(EmbeddingConfig, {"loop": {**plain, "deterministic": True, **loop}, **SMALL})
    return train(EmbeddingTrainer(config, engine, components(), requests(folder)), config.loop, output)


def test_training_resumes_exactly_and_learns_the_length(engine: LocalEngine, tmp_path: Path) -> None:
    whole = load_embedding_head(train_tiny(engine, tmp_path, tmp_path / "whole", steps=30))
    train_tiny(engine, tmp_path, tmp_path / "cut", steps=10)
    again = load_embedding_head(train_tiny(engine, tmp_path, tmp_path / "cut", steps=30))
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True)
    )
    made, asked = EmbeddingEngine(engine, whole), requests(tmp_path)
    lengths = [len(made.prompt_embedding(asked.conversation(i))) for i in range(4)]
    assert lengths == [77, 152, 77, 152]


def test_the_preset_reads() -> None:
    assert read_config(EmbeddingConfig, "embedding").max_chunks == 4
