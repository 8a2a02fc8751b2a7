"""What an engine says of a reply that ends before the model has finished, and of one that the model ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.openai_behaviours import BEHAVIOURS, document, head
from support.openai_server import OpenAIServer

pytest.importorskip("transformers", reason="the local engine needs transformers")

import torch

from llmga.chat import Conversation, Sampling
from llmga.chat.endpoints import Endpoint
from llmga.chat.engines.completion import CompletionReader
from llmga.chat.engines.endpoint import EndpointEngine
from llmga.chat.folders import load_local_engine
from miniworld.models.random_language import write_tiny_text

pytestmark = pytest.mark.usefixtures("one_thread")

ASK = Conversation().say("user", "A red fox")
GREEDY = Sampling(temperature=0, max_new_tokens=12)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_text(tmp_path / "tiny-text", seed=1)


def say_nothing(_: str) -> None:
    pass


@pytest.mark.parametrize(
    ("reasons", "cut"),
    [
        (["length"], "max_new_tokens"),
        (["MAX_TOKENS"], "max_new_tokens"),
        (["model_length"], "context"),
        (["content_filter"], "filter"),
        ([None, "SAFETY"], "filter"),
        (["insufficient_system_resource"], "server"),
        (["abort"], "server"),
        (["error"], "server"),
        (["stop"], ""),
        ([None, ""], ""),
        (["length", "stop"], ""),
        ([None, "length"], "max_new_tokens"),
        ([{"odd": 1}], ""),
    ],
)
def test_the_last_finish_reason_says_whether_a_reply_was_cut_off(reasons: list[Any], cut: str) -> None:
    reader = CompletionReader()
    for reason in reasons:
        choice = {"delta": {"content": "a fox"}, "finish_reason": reason}
        reader.feed(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
    reader.close()
    assert reader.cut == cut


@pytest.mark.parametrize(
    ("reply", "stop_after", "cut"),
    [
        ("<gen_image> a fox in the sno", 1, "max_new_tokens"),
        ("<gen_image> a fox </gen_image> I cou", 1, ""),
        ("<gen_image> a fox </gen_image> I cou", 0, "max_new_tokens"),
    ],
)
def test_an_endpoint_says_that_its_reply_was_cut_off_before_what_was_asked_for(
    reply: str, stop_after: int, cut: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = [head("200 OK", "application/json"), document({"content": reply}, "length")]
    monkeypatch.setitem(BEHAVIOURS, "case", lambda _: iter(script))
    with OpenAIServer(reply) as server:
        server.behave("case")
        engine = EndpointEngine(Endpoint("server", server.url, "m"))
        said = engine.generate(
            Conversation().say("user", "a"), Sampling(stop_after=stop_after), lambda _: None
        )
    assert (said.answer, said.cut) == (reply, cut)


@pytest.mark.parametrize("lookup", [0, 3])
def test_a_reply_says_what_ended_it_before_the_model_did(folder: Path, lookup: int) -> None:
    engine = load_local_engine(folder)
    engine.lookup = lookup
    assert engine.generate(ASK, GREEDY, say_nothing).cut == "max_new_tokens"
    used = len(engine.token_ids(ASK))
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": used + 3}))
    engine = load_local_engine(folder)
    engine.lookup = lookup
    assert engine.generate(ASK, GREEDY, say_nothing).cut == "context"


def test_a_reply_that_the_model_ends_is_not_cut_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load_local_engine(folder)
    first: list[int] = []

    def end_after_three(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        first.append(1)
        return (
            scores
            if len(first) < 4
            else torch.zeros_like(scores).index_fill(-1, torch.tensor([*engine._end_ids][:1]), 1)
        )

    monkeypatch.setattr(engine, "_named", end_after_three)
    for most in (4, 12):  # also where its end token is the last that there is room for
        first.clear()
        said = engine.generate(ASK, Sampling(temperature=0, max_new_tokens=most), say_nothing)
        assert said.cut == "" and len(first) == 4 and said.answer
