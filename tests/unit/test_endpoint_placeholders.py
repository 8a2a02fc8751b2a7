"""What is sent to an endpoint in the place of something else: a word for a key, and a system prompt in a message."""

from __future__ import annotations

import pytest
from support.openai_server import OpenAIServer

from llmga.chat import Conversation, Sampling
from llmga.chat.dialect import Dialect
from llmga.chat.endpoints import Endpoint
from llmga.chat.engines.endpoint import EndpointEngine


@pytest.mark.parametrize("key", ["EMPTY", "ollama", "none", "x", "0"])
def test_a_placeholder_in_place_of_a_key_is_a_word_of_a_reply(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMGA_TEST_KEY", key)
    reply = "<gen_image>An empty street, none is there; Ollama, x, 0</gen_image>"
    with OpenAIServer(reply) as server:
        engine = EndpointEngine(Endpoint("server", server.url, "m", "LLMGA_TEST_KEY"))
        said = engine.generate(Conversation().say("user", "a"), Sampling(), lambda text: None)
    assert said.answer == reply


@pytest.mark.parametrize(
    "refusal",
    [
        "Conversation roles must alternate user/assistant/user/assistant/...",  # Mistral 7B v0.1 behind vLLM
        "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
        "System role not supported",
        "Developer instruction is not enabled for models/gemma-3-27b-it",
    ],
)
def test_a_server_that_takes_no_system_prompt_is_asked_with_it_in_the_first_message(refusal: str) -> None:
    adapted = Dialect().adapted(refusal, "messages[0].role")
    assert adapted is not None and not adapted.system
    assert adapted.adapted(refusal, "messages[0].role") is None
