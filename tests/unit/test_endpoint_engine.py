"""What the endpoint engine sends, and what it makes of replies that are good and of those that are not."""

from __future__ import annotations

import asyncio
import base64
import logging
import random
import threading
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from PIL import Image
from support.endpoint_chat import ASK, KEY, REPLY, all_gone, ask, check_discreet, engine, spellings
from support.openai_behaviours import OWN_BEHAVIOURS
from support.openai_server import OpenAIServer

from llmga.chat.conversation import Picture
from llmga.chat.endpoints import Endpoint
from llmga.chat.engines import endpoint as module
from llmga.chat.engines.base import ChatEngine, Sampling
from llmga.chat.engines.endpoint import EndpointEngine, EndpointError
from llmga.chat.engines.refusals import retry_after

pytestmark = pytest.mark.usefixtures("quick_retries", "nothing_is_left_behind")


# --- what is sent --------------------------------------------------------------------------------


def test_the_request(server: OpenAIServer) -> None:
    red = Picture.from_pil(Image.new("RGB", (3, 2), "red"))
    talk = ASK.say("assistant", "here").say("user", "like this", (red, red)).say("user", "", (red,))
    subject = engine(server)
    assert isinstance(subject, ChatEngine) and subject.name == "my server" and subject.supports_pictures
    sampling = Sampling(seed=2**64 - 1, temperature=0.5, top_p=0.75, max_new_tokens=33)
    assert subject.generate(talk, sampling, lambda text: None).answer == REPLY

    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["host"] == f"127.0.0.1:{server.port}"
    messages = request.body.pop("messages")
    assert request.body == {
        "model": "tiny",
        "stream": True,
        "temperature": 0.5,
        "top_p": 0.75,
        "max_tokens": 33,
        "seed": 2**31 - 1,
    }
    assert messages[:3] == [
        {"role": "system", "content": "You paint."},
        {"role": "user", "content": "a fox"},
        {"role": "assistant", "content": "here"},
    ]
    url = "data:image/png;base64," + base64.b64encode(red.png).decode()
    image = {"type": "image_url", "image_url": {"url": url}}
    assert messages[3]["content"] == [image, image, {"type": "text", "text": "like this"}]
    assert messages[4]["content"] == [image]


def test_without_a_key_none_is_sent(server: OpenAIServer) -> None:
    assert ask(engine(server, key_env="")) == REPLY
    assert "authorization" not in server.requests[0].headers


def test_the_environment_redirects_nothing(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert ask(engine(server)) == REPLY


@pytest.mark.parametrize("value", [None, "", "  ", "two\nlines", "schlüssel"])
def test_a_key_that_cannot_be_sent(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv("LLMGA_TEST_KEY")
    else:
        monkeypatch.setenv("LLMGA_TEST_KEY", value)
    with pytest.raises(EndpointError, match="'my server' .* LLMGA_TEST_KEY") as caught:
        ask(engine(server))
    assert "lines" not in str(caught.value) and not server.requests


def test_a_key_with_a_line_end_around_it_is_sent_without(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMGA_TEST_KEY", KEY + "\n")
    ask(engine(server))
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_conversations_that_no_engine_takes(server: OpenAIServer) -> None:
    blind = EndpointEngine(Endpoint("blind", server.url, "tiny", pictures=False))
    shown = ASK.say("user", "see", (Picture.from_pil(Image.new("RGB", (2, 2))),))
    with pytest.raises(ValueError, match="'blind' cannot see pictures"):
        blind.generate(shown, Sampling(), lambda text: None)
    with pytest.raises(ValueError, match="end with a user turn"):
        blind.generate(ASK.say("assistant", "x"), Sampling(), lambda text: None)
    assert not server.requests


# --- replies that are good -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "behaviour", ["normal", "reasoning", "odd_stream", "no_done", "done_only", "plain_json"]
)
def test_a_whole_reply(server: OpenAIServer, behaviour: str) -> None:
    server.behave(behaviour)
    heard: list[str] = []
    assert ask(engine(server), heard.append) == REPLY
    assert heard[-1].rpartition("</think>")[2] == REPLY
    assert all_gone(server)


def test_a_key_in_the_reply_is_left_out(server: OpenAIServer) -> None:
    """Also in what is shown while it comes, where it may end in the middle of the key."""
    server.behave("key_in_reply")
    heard: list[str] = []
    reply = ask(engine(server), heard.append)
    assert "***" in reply and not [form for form in spellings(KEY) if form in "\n".join((reply, *heard))]


def test_text_is_reported_while_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, int]] = []
    with OpenAIServer("a word " * 20, pace=0.03) as server:
        reply = ask(engine(server), lambda text: heard.append((text, threading.get_ident())))
        texts = [text for text, _ in heard]
        assert len(set(texts)) >= 5 and texts[-1] == reply == ("a word " * 20).strip()
        assert all(later.startswith(text) for text, later in zip(texts, texts[1:], strict=False))
        assert {ident for _, ident in heard} == {threading.get_ident()}
        heard.clear()
        monkeypatch.setattr(module, "TICK_S", 3600.0)
        ask(engine(server), lambda text: heard.append((text, threading.get_ident())))
    assert [text for text, _ in heard] == [reply]  # by the tick, not once per token


def test_it_works_under_a_running_event_loop(server: OpenAIServer) -> None:
    async def main() -> str:
        return ask(engine(server))

    assert asyncio.run(main()) == REPLY


def test_the_global_random_generator_is_not_touched(server: OpenAIServer) -> None:
    server.behave("http_500", "normal")
    random.seed(1)
    state = random.getstate()
    ask(engine(server))
    assert random.getstate() == state


def test_a_reply_that_ends_without_saying_so_is_taken_and_logged(
    server: OpenAIServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Some servers never send a finish_reason; a connection that breaks is told apart by its length or its chunks."""
    server.behave("cut")
    assert ask(engine(server)) == REPLY[:8].strip()
    assert "without saying that it is finished" in caplog.text


# --- replies that are not ------------------------------------------------------------------------

FAILURES = {
    "cut_chunked": "broke the connection after 8 characters",
    "hang_up": "broke the connection after 0 characters",
    "flood": "more than 200,000 characters",
    "endless_head": "broke the connection after 0 characters (RemoteProtocolError)",
    "key_in_status": "answered 401",
    "masked": "It said: Incorrect API key provided: ***",
    "huge_line": "a line of more than 1000000 bytes",
    "gzip_bomb": "compressed data, which it was asked not to. It said: gzip",
    "redirect": "answered 302: redirects are not followed",
    "http_400": "answered 400: check 'model'",
    "http_401": "answered 401: check the key in the environment variable LLMGA_TEST_KEY",
    "http_403": "answered 403: check the key in the environment variable LLMGA_TEST_KEY",
    "http_404": "answered 404: check 'url' (most servers want it to end in /v1) and 'model'",
    "http_408": "answered 408",
    "http_429": "answered 429: it limits requests",
    "http_429_600s": "it asks to wait 600 s",
    "http_500": "answered 500: look at its log",
    "http_500_cut": "answered 500: look at its log. It said: out of mem",
    "http_502": "answered 502",
    "http_503": "answered 503",
    "http_504": "answered 504",
    "garbage": "broke the connection after 0 characters (RemoteProtocolError)",
    "html": "sent no chat completion; check 'url' in its record. It said: <html><h1>Hello ***",
    "not_json": "sent no chat completion; check 'url' in its record. It said: certainly not JSON",
    "not_utf8": "not JSON",
    "deep_json": "not JSON. It said: [[[",
    "wrong_schema": 'not a chat completion. It said: {"response": "hello"}',
    "empty_choices": "replied with no text",
    "null_content": "replied with no text",
    "list_content": "replied with no text",
    "tool_calls": "a tool call and no text",
    "stream_not_json": "something that is not a chat completion. It said: certainly not JSON",
    "stream_not_utf8": "sent bytes that are not UTF-8 in its stream",
    "stream_empty": "replied with no text",
    "stream_error": "reports an error. It said: out of memory",
    "stream_tool_calls": "a tool call and no text",
    "stream_only_reasoning": "reasoning and no text; raise 'max_new_tokens'",
}
SLOW = {"early_hints", "silent", "drip", "drip_head", "stall", "stall_head"}
GOOD = {
    "cut",
    "normal",
    "reasoning",
    "odd_stream",
    "no_done",
    "done_only",
    "plain_json",
    "http_429_1s",
    "key_in_reply",
}


def test_every_behaviour_of_the_server_is_tested() -> None:
    assert OWN_BEHAVIOURS == FAILURES.keys() | SLOW | GOOD


@pytest.mark.parametrize("behaviour", FAILURES)
def test_a_failure_is_named_and_gives_nothing_away(
    server: OpenAIServer, behaviour: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.behave(behaviour)
    heard: list[str] = []
    subject = engine(server)
    with pytest.raises(EndpointError) as caught:
        ask(subject, heard.append)
    assert str(caught.value).startswith("endpoint 'my server' ")
    assert FAILURES[behaviour] in str(caught.value)
    check_discreet(caught.value, caplog.text, server)
    assert KEY not in repr(subject) + repr(vars(subject))
    assert {request.path for request in server.requests} == {"/v1/chat/completions"}
    assert all_gone(server)
    server.behave("normal")
    assert ask(subject) == REPLY  # the next request is not the worse for it


RETRIED = [
    "http_408",
    "http_429",
    "http_429_1s",
    "http_500",
    "http_500_cut",
    "http_502",
    "http_503",
    "http_504",
]


@pytest.mark.parametrize("behaviour", sorted(FAILURES.keys() - {"http_429_600s"}))
def test_only_what_may_pass_is_tried_again(server: OpenAIServer, behaviour: str) -> None:
    server.behave(behaviour, "normal")
    if behaviour in RETRIED:
        assert ask(engine(server)) == REPLY
        assert len(server.requests) == 2
    else:
        with pytest.raises(EndpointError):
            ask(engine(server))
        assert len(server.requests) == 1


def test_it_tries_four_times(server: OpenAIServer) -> None:
    server.behave("http_500", "http_503", "http_502", "normal")
    assert ask(engine(server)) == REPLY
    server.behave("http_500")
    server.requests.clear()
    with pytest.raises(EndpointError, match="answered 500"):
        ask(engine(server))
    assert len(server.requests) == 4


def test_retry_after_is_waited_for(server: OpenAIServer, pauses: list[float]) -> None:
    server.behave("http_429_1s", "http_500", "normal")
    assert ask(engine(server)) == REPLY
    assert pauses[0] == 1.0 and 0.04 <= pauses[1] <= 0.05  # what it asked for, and 0.02 · 2¹ with its jitter


@pytest.mark.parametrize("deadline_s", [0.8, 3600.0])
def test_a_wait_beyond_the_deadline_or_the_cap_is_not_begun(
    server: OpenAIServer, pauses: list[float], deadline_s: float
) -> None:
    server.behave("http_429_1s" if deadline_s < 1 else "http_429_600s")
    with pytest.raises(EndpointError, match="asks to wait") as caught:
        ask(engine(server, deadline_s))
    assert caught.value.retry_in == (1 if deadline_s < 1 else 600)
    assert len(server.requests) == 1 and pauses == []


def test_retry_after_forms() -> None:
    assert retry_after("9" * 11) > 1e10  # a server that never wants to be asked again
    later = datetime.now(timezone.utc) + timedelta(seconds=90)
    assert retry_after(" 120 ") == 120
    assert 85 < retry_after(format_datetime(later, usegmt=True)) <= 90
    assert 85 < retry_after(format_datetime(later.replace(tzinfo=None))) <= 90
    for odd in ("", "-5", "1.5", "soon", "٣", "9" * 30, "Wed, 21 Oct 2015 07:28:00 GMT"):
        assert retry_after(odd) == 0


def test_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with OpenAIServer(REPLY) as gone:
        pass
    with pytest.raises(EndpointError, match="cannot be reached; start its server") as caught:
        ask(engine(gone))
    check_discreet(caught.value, caplog.text, gone)
