"""Replies and refusals of servers in use, each as it was seen, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.openai_behaviours import BEHAVIOURS, Exchange, Script, head
from support.openai_server import OpenAIServer

from llmga.chat import Conversation, Sampling, respond
from llmga.chat.conversation import Picture
from llmga.chat.dialect import Dialect
from llmga.chat.endpoints import Endpoint
from llmga.chat.engines import endpoint as module
from llmga.chat.engines.completion import CompletionReader, UnreadableReply
from llmga.chat.engines.endpoint import EndpointEngine, EndpointError
from llmga.chat.engines.requests import data_url, messages_of

CASES = json.loads((Path(__file__).parent / "fixtures" / "endpoint_replies.json").read_text(encoding="utf-8"))
PROMPT = "a lighthouse above the sea at dusk, warm windows, calm water"
REPLY = f"Gladly. <gen_image> {PROMPT} </gen_image> Shall I go on?"


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_BASE_S", 0.02)
    monkeypatch.setattr(module, "LINGER_S", 0.3)


def refuses(rule: dict[str, Any], body: dict[str, Any]) -> bool:
    """Whether a server with this rule refuses a request."""
    if "if_present" in rule:
        return rule["if_present"] in body
    if "if_role" in rule:
        return any(message["role"] == rule["if_role"] for message in body["messages"])
    return any(body.get(name) == value for name, value in rule["if_equals"].items())


def script_of(case: dict[str, Any]) -> Callable[[Exchange], Script]:
    response, rule = case["response"], case.get("server_refuses")

    def script(exchange: Exchange) -> Script:
        if rule and refuses(rule, exchange.request.body):
            error = {key: rule[key] for key in ("message", "param") if key in rule}
            yield head(f"{rule['status']} Refused", "application/json")
            yield json.dumps({"error": error}).encode()
            return
        headers = [f"{name}: {value}" for name, value in response["headers"].items()]
        yield head(f"{response['status']} Status", response["content_type"], *headers)
        for chunk in response.get("chunks", [response.get("body", "")]):
            yield chunk.encode()

    return script


def run(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch, **record: Any) -> tuple[Any, OpenAIServer]:
    monkeypatch.setitem(BEHAVIOURS, "case", script_of(case))
    with OpenAIServer(REPLY) as server:
        server.behave("case")
        engine = EndpointEngine(Endpoint("server", server.url, "m", deadline_s=20, **record))
        picture = (Picture.from_pil(Image.new("RGB", (8, 8))),) if case["task"] == "describe" else ()
        try:
            reply: Any = respond(
                engine,
                Conversation(),
                task=case["task"],
                instruction="a lighthouse",
                pictures=picture,
                sampling=Sampling(),
                policy="error",
                on_text=lambda text: None,
            )
        except EndpointError as error:
            reply = error
        return reply, server


def named(case: dict[str, Any]) -> str:
    return case["name"].replace(" ", "-")


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_case_from_the_field(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    reply, server = run(case, monkeypatch)
    expected = case["expect"]
    if "prompt" in expected:
        assert reply.prompt == expected["prompt"]
    elif "reply_after" in expected:
        assert reply.prompt == PROMPT
        assert len(server.requests) <= 3
    elif "error_says" in expected:
        assert all(words.lower() in str(reply).lower() for words in expected["error_says"])
        assert "log" not in str(reply)
    else:
        assert expected["retried"] and len(server.requests) == 1 + module.RETRIES


def refusal(message: str, status: int = 400, **rule: Any) -> dict[str, Any]:
    """A case of a server that refuses some requests and streams a reply to the others."""
    whole = next(case for case in CASES if case["name"] == "max_tokens refused")
    return {**whole, "server_refuses": {"status": status, "message": message, **rule}}


@pytest.mark.parametrize(
    ("message", "rule", "left"),
    [
        ("Unknown parameter: 'seed'.", {"if_present": "seed", "param": "seed"}, "seed"),
        ("property `seed` is unsupported", {"if_present": "seed"}, "seed"),
        (
            "body.temperature: value is not supported",
            {"if_present": "temperature", "status": 422},
            "temperature",
        ),
    ],
)
def test_a_refused_parameter_is_left_out_and_that_is_remembered(
    message: str,
    rule: dict[str, Any],
    left: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(BEHAVIOURS, "case", script_of(refusal(message, **rule)))
    with OpenAIServer(REPLY) as server:
        server.behave("case")
        engine = EndpointEngine(Endpoint("server", server.url, "m"))
        for _ in range(2):
            engine.generate(Conversation().say("user", "a"), Sampling(), lambda text: None)
        sent = [left in request.body for request in server.requests]
    assert sent == [True, False, False]
    assert f"refuses {left!r}" in caplog.text


def test_two_refused_parameters_and_a_refused_role(monkeypatch: pytest.MonkeyPatch) -> None:
    def script(exchange: Exchange) -> Script:
        body = exchange.request.body
        words = (
            "Only user and assistant roles are supported; system role is not"
            if body["messages"][0]["role"] == "system"
            else "max_tokens is not supported"
            if "max_tokens" in body
            else "seed is not permitted"
            if "seed" in body
            else ""
        )
        if words:
            yield head("400 Bad Request", "application/json")
            yield json.dumps({"message": words}).encode()
        else:
            yield from BEHAVIOURS["normal"](exchange)

    monkeypatch.setitem(BEHAVIOURS, "case", script)
    with OpenAIServer(REPLY) as server:
        server.behave("case")
        engine = EndpointEngine(Endpoint("server", server.url, "m"))
        asked = Conversation(system="You paint.").say("user", "a fox")
        assert engine.generate(asked, Sampling(), lambda text: None).answer == REPLY
    assert len(server.requests) == 4
    body = server.requests[-1].body
    assert body["messages"] == [{"role": "user", "content": "You paint.\n\na fox"}]
    assert "max_completion_tokens" in body and not body.keys() & {"max_tokens", "seed", "top_p"}


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens is too large: 512. This model supports at most 64 completion tokens",
        "This model's maximum context length is 128 tokens; max_tokens was 512",
        "your account is not active",
        "temperatures in the server room are high",
    ],
)
def test_what_no_other_request_can_mend_is_an_error_at_once(
    message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply, server = run(refusal(message, if_present="model"), monkeypatch)
    assert isinstance(reply, EndpointError) and "answered 400" in str(reply)
    assert len(server.requests) == 1


def test_a_server_that_refuses_everything_is_asked_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    message = "temperature, top_p, max_tokens, max_completion_tokens, seed and stream are not supported"
    reply, server = run(refusal(message, if_present="model"), monkeypatch)
    assert isinstance(reply, EndpointError)
    assert len(server.requests) == 1 + module.MAX_ADAPTATIONS


def test_a_record_says_it_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in CASES if case["name"] == "JSON sent as text/plain")
    dialect = Dialect(
        omit=("seed",),
        rename={"max_tokens": "num_predict"},
        system=False,
        stream=False,
        extra={"reasoning_effort": "low"},
    )
    reply, server = run(case, monkeypatch, dialect=dialect)
    assert reply.prompt == PROMPT
    body = server.requests[0].body
    assert body["messages"][0]["role"] == "user"
    assert body.keys() == {"model", "messages", "temperature", "num_predict", "reasoning_effort"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"omit": ["messages"]},
        {"omit": "seed"},
        {"rename": {"seed": 3}},
        {"rename": {"seed": "messages"}},
        {"rename": ["seed"]},
        {"system": "no"},
        {"stream": 0},
        {"extra": {"messages": []}},
        {"extra": {"tools": []}},
        {"extra": {"user": "x" * 9000}},
        {"picture_format": "webp"},
        {"max_picture_bytes": 10},
        {"max_pictures": True},
    ],
)
def test_a_wrong_dialect_names_its_field(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"'{next(iter(wrong))}' must|'rename' may not"):
        Dialect(**wrong)


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("/v1/chat/completions", "must end before /chat/completions"),
        ("/v1/completions", "must end before /completions"),
        ("", "no /v1 at its end"),
        ("/llm", "no /v1 at its end"),
        ("/v1", "to end in /v1"),
    ],
)
def test_the_advice_says_what_is_wrong_with_a_path(path: str, advice: str) -> None:
    with OpenAIServer(REPLY) as server:
        url = server.url.removesuffix("/v1") + (path or "")
        if path == "/v1":
            url += "x/v1"  # a path that the server does not have
        engine = EndpointEngine(Endpoint("server", url, "m"))
        with pytest.raises(EndpointError, match="answered 404") as caught:
            engine.generate(Conversation().say("user", "a"), Sampling(), lambda text: None)
    assert advice in str(caught.value)


def test_a_key_in_a_reply_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-Canary0123456789abcdef"
    monkeypatch.setenv("LLMGA_TEST_KEY", key)
    heard: list[str] = []
    with OpenAIServer(f"Your key is {key}. <gen_image>{key} a fox</gen_image>", pace=0.05) as server:
        engine = EndpointEngine(Endpoint("server", server.url, "m", "LLMGA_TEST_KEY"))
        reply = engine.generate(Conversation().say("user", "a"), Sampling(), heard.append).answer
    assert reply == "Your key is ***. <gen_image>*** a fox</gen_image>"
    assert not [text for text in heard if key[:9] in text]


# --- reading ---------------------------------------------------------------------------------------


def read(body: bytes, size: int) -> str:
    reader = CompletionReader()
    for i in range(0, len(body), size):
        reader.feed(body[i : i + size])
    return reader.close()


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'\xef\xbb\xbf{"choices": [{"message": {"content": "a fox"}}]}', "a fox"),
        (b'\n\n  {"choices": [{"text": "a fox"}]}', "a fox"),
        (b': hello\n\ndata: {"choices": [{"delta": {"content": "a"}}]}\n\ndata: x\n\ndata: {"choices": '
         b'[{"delta": {"content": " fox"}}]}\n\n', "a fox"),
        (b'data:{"choices":[{"delta":{"content":"a fox"}}]}\r\n\r\ndata:[DONE]\r\n\r\ndata:{"choices":[{"delta":'
         b'{"content":"!"}}]}\r\n\r\n', "a fox"),
        (b'data: {"choices":[{"delta":{"content":"a fox"}}]}\n\ndata: {"choices":[{"delta":{},"message":{"content":'
         b'"a fox"},"finish_reason":"stop"}]}\n\n', "a fox"),
        (b'{"choices":[{"message":{"content":null,"refusal":"I cannot paint that."}}]}', "I cannot paint that."),
        (b'{"choices":[{"message":{"content":["a ",{"type":"text","text":"fox"},{"type":"image"}]}}]}', "a fox"),
        (b'data: {"choices":[{"delta":{"content":"a fox","reasoning_content":"hm"},"finish_reason":""}]}\n\n', "a fox"),
        (b'data: {"choices":[{"delta":{"content":"a fox"}}]}\n\ndata: {"type":"ping"}', "a fox"),
        (b'data: {"choices":[{"delta":{"content":"a \\ud83e"}}]}\n\n'
         b'data: {"choices":[{"delta":{"content":"\\udd8a fox"}}]}\n\n',
         "a 🦊 fox"),
    ],
)  # fmt: skip
def test_a_body_is_read_however_it_is_cut(body: bytes, text: str, size: int) -> None:
    assert read(body, size) == text


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "no chat completion"),
        (b"<html>hello", "no chat completion"),
        (b"\x1f\x8b\x08", "no chat completion"),
        (b"[1, 2]", "not a chat completion"),
        (b"{", "not JSON"),
        (b'data: {"type": "ping"}\n\n', "no text, but with something that is not a chat completion"),
        (b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: {"error": {"message": "gone"}}\n\n', "reports an error"),
        (b'data: {"choices":[{"delta":{"content":"a"}}]}\n\nerror: {"message":"gone"}\n\ndata: [DONE]\n\n',
         "reports an error"),
        (b'error: {"code":400,"message":"the request exceeds the available context size"}\n\n', "reports an error"),
        (b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: {"choices":[{"delta":{"content":"caf\xc3', "not UTF-8 in"),
        (b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: {"choices":[{"del', "off in the middle of an event"),
        (b'data: {"object":"error","message":"gone","code":500}\n\ndata: [DONE]\n\n', "reports an error"),
        (b'{"choices":[{"message":{"content":""},"finish_reason":"length"}]}', "no text: .* ended at 'max_new_tokens'"),
        (b'data: {"choices":[{"delta":{},"finish_reason":"content_filter"}]}\n\n', "no text: .* by a content filter"),
        (b'data: {"choices":[{"delta":{"content":[{"type":"thinking","thinking":"hm"}]}}]}\n\n', "reasoning and no text"),
    ],
)  # fmt: skip
def test_a_body_that_is_no_reply_is_named(body: bytes, message: str) -> None:
    with pytest.raises(UnreadableReply, match=message):
        read(body, 5)


# --- pictures --------------------------------------------------------------------------------------


def noise(width: int, height: int) -> Picture:
    import random

    source = random.Random(1)
    return Picture.from_pil(Image.frombytes("RGB", (width, height), source.randbytes(3 * width * height)))


def sent_bytes(url: str) -> int:
    return len(url.partition(",")[2]) * 3 // 4


def test_small_pictures_go_as_png_and_large_ones_as_jpeg() -> None:
    small, large = noise(64, 64), noise(800, 800)
    assert data_url(small, Dialect()).startswith("data:image/png")
    assert data_url(large, Dialect()).startswith("data:image/jpeg")
    assert data_url(large, Dialect(picture_format="png")).startswith("data:image/png")
    assert data_url(small, Dialect(picture_format="jpeg")).startswith("data:image/jpeg")
    for limit in (20_000, 100_000, 400_000):
        for kind in ("auto", "png", "jpeg"):
            assert (
                sent_bytes(data_url(large, Dialect(picture_format=kind, max_picture_bytes=limit)))
                <= limit + 3
            )


def test_old_pictures_are_left_out_and_their_turn_says_so() -> None:
    one, two, three = noise(8, 8), noise(9, 8), noise(10, 8)
    talk = Conversation().say("user", "see", (one, two)).say("assistant", "yes").say("user", "and", (three,))
    first, _, last = messages_of(talk, Dialect(max_pictures=2))
    assert [part["type"] for part in first["content"]] == ["image_url", "text"]
    assert first["content"][1]["text"] == "[1 earlier picture left out of this request]\nsee"
    assert data_url(two, Dialect()) == first["content"][0]["image_url"]["url"]
    assert len(last["content"]) == 2
    all_sent = messages_of(talk, Dialect())
    assert len(all_sent[0]["content"]) == 3


@pytest.mark.parametrize(
    ("record", "off", "on"),
    [
        ({}, {}, {}),
        (
            {"thinking": "chat_template_kwargs"},
            {"chat_template_kwargs": {"enable_thinking": False}},
            {"chat_template_kwargs": {"enable_thinking": True}},
        ),
        ({"thinking": "enable_thinking"}, {"enable_thinking": False}, {"enable_thinking": True}),
        ({"thinking": "reasoning_effort"}, {"reasoning_effort": "low"}, {"reasoning_effort": "medium"}),
        (  # the owner's own word wins
            {
                "thinking": "chat_template_kwargs",
                "extra": {"chat_template_kwargs": {"enable_thinking": False, "a": 1}},
            },
            {"chat_template_kwargs": {"enable_thinking": False, "a": 1}},
            {"chat_template_kwargs": {"enable_thinking": False, "a": 1}},
        ),
    ],
)
def test_thinking_is_switched_as_the_record_says(record: dict, off: dict, on: dict) -> None:
    bare = {"model": "m", "messages": [], "stream": True}
    for thinking, expected in ((False, off), (True, on)):
        assert Dialect(**record).body([], "m", {}, thinking) == bare | expected
    with pytest.raises(ValueError, match="'thinking' must be one of chat_template_kwargs"):
        Dialect(thinking="yes")  # pyright: ignore[reportArgumentType]
