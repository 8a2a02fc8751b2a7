"""The endpoint engine waits no longer than it may, can be cancelled at every point, and leaves nothing behind."""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
import threading

import pytest
from support.endpoint_chat import REPLY, Cancelled, all_gone, ask, check_discreet, comes_true, engine
from support.openai_server import OpenAIServer

from llmga.chat.endpoints import Endpoint
from llmga.chat.engines import connection
from llmga.chat.engines import endpoint as module
from llmga.chat.engines.endpoint import EndpointEngine, EndpointError

pytestmark = pytest.mark.usefixtures("quick_retries", "nothing_is_left_behind")


@pytest.mark.parametrize("behaviour", ["silent", "drip", "drip_head", "stall", "http_503", "early_hints"])
def test_the_deadline_holds(
    server: OpenAIServer, behaviour: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY_BASE_S", 0.4)
    caplog.set_level(logging.DEBUG)
    server.behave(behaviour)
    with pytest.raises(EndpointError, match="within 0.7 s|answered 503") as caught:
        ask(engine(server, deadline_s=0.7))
    check_discreet(caught.value, caplog.text, server)
    assert all_gone(server)


def test_a_reply_that_falls_silent(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_S", 0.4)
    server.behave("stall")
    with pytest.raises(EndpointError, match="fell silent for 0.4 s after 4 characters"):
        ask(engine(server))
    for behaviour in ("silent", "stall_head"):  # a server that has not begun may be loading its model
        server.behave(behaviour)
        with pytest.raises(EndpointError, match="within 0.7 s"):
            ask(engine(server, deadline_s=0.7))
    server.behave("http_429_1s", "normal")  # nor is a wait that it asked for silence
    assert ask(engine(server)) == REPLY


@pytest.mark.parametrize(
    "behaviour", ["silent", "drip", "drip_head", "stall", "normal", "http_429_1s", "early_hints"]
)
def test_cancel(server: OpenAIServer, behaviour: str) -> None:
    server.behave(behaviour)

    def on_text(text: str) -> None:
        if server.requests or behaviour == "normal":
            raise Cancelled

    with pytest.raises(Cancelled):
        ask(engine(server), on_text)
    assert len(server.requests) <= 1  # none is tried again
    assert all_gone(server)


@pytest.mark.parametrize(
    "error", [Cancelled(), ValueError("stop"), KeyboardInterrupt(), EndpointError("mine")]
)
def test_what_on_text_raises_passes_unchanged(server: OpenAIServer, error: BaseException) -> None:
    server.behave("stall")

    def on_text(text: str) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        ask(engine(server), on_text)
    assert caught.value is error
    assert all_gone(server)


@pytest.mark.skipif(sys.platform != "linux", reason="a full queue refuses connections on other systems")
def test_cancel_while_connecting() -> None:
    with socket.socket() as full:  # its queue is full and nobody accepts: connecting hangs
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        subject = EndpointEngine(Endpoint("x", f"http://127.0.0.1:{full.getsockname()[1]}/v1", "m"))
        calls = 0

        def on_text(text: str) -> None:
            nonlocal calls
            calls += 1
            if calls == 5:
                raise Cancelled

        with pytest.raises(Cancelled):
            ask(subject, on_text)
        assert calls == 5  # it is asked while it hangs
        for each in waiting:
            each.close()


def test_cancel_while_a_name_resolves(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    answered = threading.Event()

    def getaddrinfo(*args: object, **kwargs: object) -> list[tuple]:
        release.wait()
        answered.set()
        return []

    monkeypatch.setattr(connection.socket, "getaddrinfo", getaddrinfo)
    subject = EndpointEngine(Endpoint("x", "http://slow.example/v1", "m"))

    def on_text(text: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        ask(subject, on_text)
    assert not answered.is_set()  # the cancel did not wait for it
    release.set()  # the resolver's own thread cannot be ended before the system answers
    for thread in threading.enumerate():
        if thread.name.startswith("llmga"):
            thread.join(60)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files in /proc")
def test_no_socket_or_thread_is_left(server: OpenAIServer) -> None:
    def count() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    def stop(text: str) -> None:
        raise Cancelled

    ask(engine(server))
    all_gone(server)
    before = count()
    for behaviour in ["normal", "stall", "cut_chunked", "http_401", "silent"] * 3:
        server.behave(behaviour)
        with pytest.raises((Cancelled, EndpointError)):
            ask(engine(server), stop)
        assert all_gone(server)
    assert comes_true(lambda: count() <= before)
