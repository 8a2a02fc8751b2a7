"""How likely an endpoint's words are: what is read from ``logprobs``, and servers that have none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from support.openai_behaviours import BEHAVIOURS, Exchange, Script, document, head
from support.openai_server import OpenAIServer

from llmga.chat import Conversation, Sampling
from llmga.chat.dialect import Dialect
from llmga.chat.endpoints import Endpoint
from llmga.chat.engines.completion import CompletionReader
from llmga.chat.engines.endpoint import EndpointEngine

REPLY = "Yes, it is."


def without_logprobs(status: int, message: str) -> Callable[[Exchange], Script]:
    """A server that refuses a request for them, and answers every other one."""

    def script(exchange: Exchange) -> Script:
        if "logprobs" in exchange.request.body:
            yield head(f"{status} Refused", "application/json")
            yield json.dumps({"error": {"message": message}}).encode()
        else:
            yield head("200 OK", "application/json")
            yield document({"content": REPLY})

    return script


def first_tokens(*documents: Any) -> dict[str, float]:
    reader = CompletionReader()
    for one in documents:
        reader.feed(b"data: " + json.dumps({"choices": [one]}).encode() + b"\n\n")
    return reader.first_tokens


def test_how_likely_the_first_token_was() -> None:
    """OpenAI's form, of the first piece that has it; anything else is passed over."""
    top = [{"token": "Yes", "logprob": -0.5, "bytes": [89]}, {"token": " no", "logprob": -2}]
    weighed = {"delta": {"content": "Yes"}, "logprobs": {"content": [{"token": "Yes", "top_logprobs": top}]}}
    later = {"delta": {"content": "."}, "logprobs": {"content": [{"token": ".", "top_logprobs": [top[1]]}]}}
    found = first_tokens({"delta": {"role": "assistant"}, "logprobs": None}, weighed, later)
    assert found == pytest.approx({"Yes": 0.60653, " no": 0.13534}, rel=1e-4)
    odd = (
        {"token": 3, "logprob": -1},
        {"token": "a", "logprob": "x"},
        {"token": "b", "logprob": 2},
        "c",
        None,
        {"token": "d", "logprob": -(10**400)},
        {"token": "e", "logprob": False},
        {"token": "f", "logprob": float("-inf")},
    )
    for logprobs in (
        None,
        [],
        {"content": []},
        {"content": [{}]},
        {"content": [{"top_logprobs": odd}]},
        {"tokens": ["a"]},
    ):
        assert first_tokens({"delta": {"content": "a"}, "logprobs": logprobs}) == {}


def test_a_server_that_refuses_one_of_both_is_sent_neither() -> None:
    wanted = {"logprobs": True, "top_logprobs": 20}
    adapted = Dialect().adapted("top_logprobs must be at most 5", "top_logprobs")
    assert adapted is not None and adapted.omit == ("top_logprobs",)
    assert not {*wanted} & adapted.body([], "tiny", wanted).keys()
    assert {*wanted} <= Dialect().body([], "tiny", wanted).keys()


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "Logprobs is not enabled for models/gemini-2.5-flash"),
        (400, "Unsupported value: 'top_logprobs' must be at most 5"),
        (403, "You are not allowed to request logprobs from this model"),
        (501, "logprobs is not implemented"),
    ],
)
def test_a_server_without_them_is_asked_without(
    status: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for all: the next question leaves them out from the start."""
    monkeypatch.setitem(BEHAVIOURS, "case", without_logprobs(status, message))
    with OpenAIServer(REPLY) as server:
        server.behave("case")
        engine = EndpointEngine(Endpoint("server", server.url, "m", deadline_s=20))
        for requests in (2, 3):
            talk = Conversation().say("user", "Is it red?")
            said, likely = engine.generate_with_probabilities(
                talk, Sampling(), lambda text: None, ("yes", "no")
            )
            assert said.answer == REPLY and likely == (0, 0) and len(server.requests) == requests
