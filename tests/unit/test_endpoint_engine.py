import asyncio
import base64
import gc
import logging
import os
import random
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest
from PIL import Image
from support.openai_server import BEHAVIOURS, OpenAIServer
from support.waiting import until

from llmga.chat.conversation import Conversation, Picture
from llmga.chat.endpoints import Endpoint
from llmga.chat.engines import connection, redaction
from llmga.chat.engines import endpoint as module
from llmga.chat.engines.base import ChatEngine, Sampling
from llmga.chat.engines.endpoint import EndpointEngine, EndpointError
from tools.patience import PATIENCE

REPLY = "A 小 fox — <gen_img>a red fox in the snow, détails 🎨</gen_img>"
ASK = Conversation(system="You paint.").say("user", "a fox")
KEY = "sk-Canary/+0123456789abcdefghijklmnopqrstuvwxyz=="


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_BASE_S", 0.02)
    monkeypatch.setenv("LLMGA_TEST_KEY", KEY)


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("llmga")]


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(REPLY) as server:
        yield server


def engine(server: OpenAIServer, deadline_s: float = 10.0, key_env: str = "LLMGA_TEST_KEY") -> EndpointEngine:
    return EndpointEngine(Endpoint("my server", server.url, "tiny", key_env, deadline_s=deadline_s))


def ask(engine: EndpointEngine, on_text: Callable[[str], None] = lambda text: None) -> str:
    return engine.generate(ASK, Sampling(), on_text)


@contextmanager
def takes_at_least(seconds: float) -> Iterator[None]:
    """There is no upper bound, which a busy machine would break: a limit that is not kept hangs the test."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start >= seconds


def all_gone(server: OpenAIServer) -> bool:
    """Whether every request ends, which for one that the server holds open means a closed socket."""
    return until(lambda: server.active == 0)


# --- what is sent --------------------------------------------------------------------------------


def test_the_request(server: OpenAIServer) -> None:
    red = Picture.from_pil(Image.new("RGB", (3, 2), "red"))
    talk = ASK.say("assistant", "here").say("user", "like this", (red, red)).say("user", "", (red,))
    subject = engine(server)
    assert isinstance(subject, ChatEngine) and subject.name == "my server" and subject.supports_pictures
    sampling = Sampling(seed=2**64 - 1, temperature=0.5, top_p=0.75, max_new_tokens=33)
    assert subject.generate(talk, sampling, lambda text: None) == REPLY

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
    assert heard[-1] == REPLY
    assert all_gone(server)


def test_text_is_reported_while_it_comes() -> None:
    heard: list[tuple[float, str, int]] = []
    with OpenAIServer("a word " * 20, pace=0.03) as server:
        reply = ask(
            engine(server), lambda text: heard.append((time.monotonic(), text, threading.get_ident()))
        )
    texts = [text for _, text, _ in heard]
    assert len(set(texts)) >= 5 and texts[-1] == reply == "a word " * 20
    assert all(later.startswith(text) for text, later in zip(texts, texts[1:], strict=False))
    assert {ident for _, _, ident in heard} == {threading.get_ident()}
    assert len(heard) <= 2 + (heard[-1][0] - heard[0][0]) / module.TICK_S  # throttled, not once per token


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


# --- replies that are not ------------------------------------------------------------------------

FAILURES = {
    "cut": "cut its reply off after 8 characters",
    "cut_chunked": "broke the connection after 8 characters",
    "hang_up": "broke the connection after 0 characters",
    "flood": "more than 8388608 bytes",
    "huge_line": "a line of more than 1000000 bytes",
    "gzip_bomb": "compressed data, which it was asked not to. It said: gzip",
    "redirect": "answered 302: redirects are not followed",
    "http_400": "answered 400: check 'model'",
    "http_401": "answered 401: check the key in the environment variable LLMGA_TEST_KEY",
    "http_403": "answered 403: check the key in the environment variable LLMGA_TEST_KEY",
    "http_404": "answered 404: check 'url' and 'model'",
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
    "not_json": "not JSON. It said: certainly not JSON",
    "not_utf8": "not JSON",
    "deep_json": "not JSON. It said: [[[",
    "wrong_schema": 'not a chat completion. It said: {"response": "hello"}',
    "empty_choices": "replied with no text",
    "null_content": "replied with no text",
    "list_content": "content is not text",
    "tool_calls": "a tool call and no text",
    "stream_not_json": "not JSON. It said: certainly not JSON",
    "stream_not_utf8": "sent bytes that are not UTF-8 in its stream",
    "stream_empty": "replied with no text",
    "stream_error": "reports an error. It said: out of memory",
    "stream_tool_calls": "a tool call and no text",
    "stream_only_reasoning": "reasoning and no text; raise 'max_new_tokens'",
}
SLOW = {"silent", "drip", "drip_head", "stall", "stall_head"}
GOOD = {"normal", "reasoning", "odd_stream", "no_done", "done_only", "plain_json", "http_429_1s"}


def test_every_behaviour_of_the_server_is_tested() -> None:
    assert BEHAVIOURS.keys() == FAILURES.keys() | SLOW | GOOD


def spellings(secret: str) -> set[str]:
    raw = secret.encode()
    inside = {base64.b64encode(b"x" * n + raw).decode()[4:-4] for n in range(3)}
    return {secret, secret[:-2], httpx.QueryParams(k=secret).__str__()[2:], *inside}


def check_discreet(error: BaseException, log: str, server: OpenAIServer) -> None:
    """Neither the exception, with all that is printed with it, nor a log line gives key or address away."""
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(error.__dict__) + str(error)
    assert not [form for form in spellings(KEY) if form in shown or form in log]
    assert "://" not in shown and str(server.port) not in shown and "127.0.0.1" not in shown
    assert error.__cause__ is None and (error.__context__ is None or error.__suppress_context__)
    _, _, said = str(error).partition("It said: ")
    assert len(said) <= 200 and said.isprintable()


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


def test_retry_after_is_waited_for(server: OpenAIServer) -> None:
    server.behave("http_429_1s", "normal")
    with takes_at_least(1.0):
        assert ask(engine(server)) == REPLY


@pytest.mark.parametrize("deadline_s", [0.8, 3600.0])
def test_a_wait_beyond_the_deadline_or_the_cap_is_not_begun(server: OpenAIServer, deadline_s: float) -> None:
    server.behave("http_429_1s" if deadline_s < 1 else "http_429_600s")
    with pytest.raises(EndpointError, match="asks to wait") as caught:
        ask(engine(server, deadline_s))
    assert caught.value.retry_in == (1 if deadline_s < 1 else 600)
    assert len(server.requests) == 1


def test_retry_after_forms() -> None:
    later = datetime.now(timezone.utc) + timedelta(seconds=90)
    assert module._retry_after(" 120 ") == 120
    assert 60 < module._retry_after(format_datetime(later, usegmt=True)) <= 90
    assert 60 < module._retry_after(format_datetime(later.replace(tzinfo=None))) <= 90
    for odd in ("", "-5", "1.5", "soon", "٣", "9" * 30, "Wed, 21 Oct 2015 07:28:00 GMT"):
        assert module._retry_after(odd) == 0


def test_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with OpenAIServer(REPLY) as gone:
        pass
    with pytest.raises(EndpointError, match="cannot be reached; start its server") as caught:
        ask(engine(gone))
    check_discreet(caught.value, caplog.text, gone)


# --- the clocks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", ["silent", "drip", "drip_head", "stall", "http_503"])
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
    with takes_at_least(0.4), pytest.raises(EndpointError, match="fell silent for 0.4 s after 4 characters"):
        ask(engine(server))
    for behaviour in ("silent", "stall_head"):  # a server that has not begun may be loading its model
        server.behave(behaviour)
        with takes_at_least(0.7), pytest.raises(EndpointError, match="within 0.7 s"):
            ask(engine(server, deadline_s=0.7))
    server.behave("http_429_1s", "normal")  # nor is a wait that it asked for silence
    assert ask(engine(server)) == REPLY


class Cancelled(BaseException):
    """Like the host's interrupt, no Exception."""


@pytest.mark.parametrize("behaviour", ["silent", "drip", "drip_head", "stall", "normal", "http_429_1s"])
def test_cancel(server: OpenAIServer, behaviour: str) -> None:
    server.behave(behaviour)
    start = time.monotonic()

    def on_text(text: str) -> None:
        if behaviour == "normal" or time.monotonic() - start > 0.2:
            raise Cancelled

    with pytest.raises(Cancelled):
        ask(engine(server, deadline_s=3600), on_text)  # nothing else ends it
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
        beats = []

        def on_text(text: str) -> None:
            beats.append(text)
            if len(beats) == 5:
                raise Cancelled

        with takes_at_least(0.4), pytest.raises(Cancelled):
            ask(subject, on_text)
        for each in waiting:
            each.close()


def test_cancel_while_a_name_resolves(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(
        connection.socket, "getaddrinfo", lambda *args, **kwargs: release.wait(PATIENCE) and []
    )
    subject = EndpointEngine(Endpoint("x", "http://slow.example/v1", "m"))

    def on_text(text: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        ask(subject, on_text)
    release.set()  # the resolver's own thread cannot be ended before the system answers
    for thread in threading.enumerate():
        if thread.name.startswith("llmga"):
            thread.join(PATIENCE)


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
    assert until(lambda: count() <= before)


# --- where it may go -----------------------------------------------------------------------------


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **kwargs: object) -> list[tuple]:
        asked.append(host)
        return [
            (socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port))
            for a in addresses
        ]

    monkeypatch.setattr(connection.socket, "getaddrinfo", getaddrinfo)
    return asked


def named(server: OpenAIServer, host: str = "box.example", key_env: str = "") -> EndpointEngine:
    return EndpointEngine(Endpoint("named", f"http://{host}:{server.port}/v1", "m", key_env, deadline_s=5))


def test_the_connection_goes_to_the_address_that_was_checked(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolve_to(monkeypatch, "127.0.0.1")
    assert ask(named(server)) == REPLY
    assert asked == ["box.example"]  # no second look-up that could answer otherwise
    assert server.requests[0].headers["host"] == f"box.example:{server.port}"


def test_the_next_address_is_tried(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "::1", "127.0.0.1")  # as localhost does, for a server that listens on IPv4 only
    assert ask(named(server, key_env="LLMGA_TEST_KEY")) == REPLY


@pytest.mark.parametrize(
    ("addresses", "key_env", "reason"),
    [
        (["169.254.169.254"], "", "link-local"),
        (["127.0.0.1", "fe80::1%1"], "", "link-local"),
        (["8.8.8.8"], "", "use https"),
        (["127.0.0.1", "192.168.1.5"], "LLMGA_TEST_KEY", "loopback addresses only"),
    ],
)
def test_every_address_of_a_name_is_checked(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, addresses: list[str], key_env: str, reason: str
) -> None:
    resolve_to(monkeypatch, *addresses)
    with pytest.raises(EndpointError, match=f"is not allowed: .*{reason}"):
        ask(named(server, key_env=key_env))
    assert not server.requests


@pytest.mark.parametrize("closed", ["127.0.0.1", "0.0.0.0", "::", "Box.example", "192.168.7.7"])
def test_the_hosts_own_server_is_never_reached(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    resolve_to(monkeypatch, "127.0.0.1" if closed != "192.168.7.7" else closed)
    endpoint = Endpoint("named", f"http://box.example:{server.port}/v1", "m")
    with pytest.raises(EndpointError, match="the server that this program runs in"):
        ask(EndpointEngine(endpoint, forbidden=frozenset({(closed, server.port)})))
    assert not server.requests
    resolve_to(monkeypatch, "127.0.0.1")
    assert ask(EndpointEngine(endpoint, forbidden=frozenset({(closed, server.port + 1)}))) == REPLY


def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(connection.socket, "getaddrinfo", fail)
    with pytest.raises(EndpointError, match="does not resolve; check 'url'"):
        ask(EndpointEngine(Endpoint("x", "https://nowhere.example/v1", "m")))


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes a certificate with openssl, which is not here")
def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=box.example",
    ]
    command += ["-addext", "subjectAltName=DNS:box.example", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    resolve_to(monkeypatch, "127.0.0.1")
    with OpenAIServer(REPLY, tls=tls) as server:
        good = Endpoint("x", f"https://box.example:{server.port}/v1", "m", "LLMGA_TEST_KEY")
        with pytest.raises(EndpointError, match="certificate that is not trusted .self.signed"):
            ask(EndpointEngine(good))
        assert ask(EndpointEngine(replace(good, verify_tls=False))) == REPLY
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # stands for the system's authorities
        assert ask(EndpointEngine(good)) == REPLY  # checked against the name, though connected by address
        with pytest.raises(EndpointError, match="certificate that is not trusted .Hostname mismatch"):
            ask(EndpointEngine(replace(good, url=f"https://other.example:{server.port}/v1")))
    with OpenAIServer(REPLY) as plain, pytest.raises(EndpointError, match="does not speak TLS"):
        ask(EndpointEngine(Endpoint("x", f"https://127.0.0.1:{plain.port}/v1", "m")))


# --- redaction -----------------------------------------------------------------------------------


def test_excerpt() -> None:
    assert redaction.excerpt("\x1b[31ma\u202eb\r\n\tc", "") == "[31ma b c"
    assert len(redaction.excerpt("x" * 1000, "")) == 200
    assert redaction.excerpt(b"\xff see https://u:p@host/a?b", "") == "� see [address]"
    assert redaction.excerpt(f"{KEY.upper()}{KEY}"[: len(KEY)], KEY) == "***"
    assert redaction.excerpt('{"detail": "not here"}', "") == "not here"
