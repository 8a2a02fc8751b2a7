"""What an OpenAI-compatible chat server sends, well-behaved or broken in one of the ways below.

A behaviour is a script of what goes over the wire: bytes are sent, a number is a pause in seconds.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

Script = Iterator[bytes | float]
Behaviour = Callable[["Exchange"], Script]
FOREVER = 3600.0


@dataclass(frozen=True)
class Request:
    """One request as it came in; header names in lower case."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(frozen=True)
class Exchange:
    """What a script may use: the request, the reply that it is to bring, and the pause between its pieces."""

    request: Request
    reply: str
    pace: float = 0.0

    @property
    def pieces(self) -> list[str]:
        """The reply, about a token each."""
        return [self.reply[i : i + 4] for i in range(0, len(self.reply), 4)]

    @property
    def echo(self) -> str:
        """The key that came in, in every spelling that an error page might repeat."""
        key = self.request.headers.get("authorization", "").removeprefix("Bearer ")
        raw = key.encode("ascii")
        shifted = [base64.b64encode(b"user:"[:n] + raw).decode("ascii") for n in (0, 1, 2, 5)]
        return " ".join([key, quote(key, safe=""), *shifted])


def head(status: str = "200 OK", kind: str = "text/event-stream", *headers: str) -> bytes:
    """A status line and headers; the body ends where the connection does."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", "Connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def event(delta: dict[str, Any] | None = None, finish: str | None = None, end: str = "\n") -> bytes:
    """One event of a streamed completion."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice]}
    return f"data: {json.dumps(chunk, ensure_ascii=False)}{end}{end}".encode()


def document(message: dict[str, Any], finish: str = "stop") -> bytes:
    """A completion that is not streamed."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return json.dumps({"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice]}).encode()


DONE = b"data: [DONE]\n\n"


def normal(exchange: Exchange) -> Script:
    yield head()
    yield event({"role": "assistant", "content": ""})
    for piece in exchange.pieces:
        yield event({"content": piece})
        yield exchange.pace
    yield event(finish="stop")
    yield b'data: {"choices": [], "usage": {"completion_tokens": 1}}\n\n'
    yield DONE


def reasoning(exchange: Exchange) -> Script:
    yield head()
    yield event({"reasoning_content": "let me think"})
    yield event({"reasoning": "a little more"})
    yield from (event({"content": piece}) for piece in exchange.pieces)
    yield event(finish="stop")


def odd_stream(exchange: Exchange) -> Script:
    """CRLF, comments, fields that mean nothing, data over several lines, and every byte sent by itself."""
    yield head("200 OK", "text/event-stream; charset=utf-8")
    stream = b"\xef\xbb\xbf: welcome\r\nretry: 10\r\n\r\n"
    for piece in exchange.pieces:
        data = event({"content": piece}, end="\r\n").replace(b', "choices"', b',\r\ndata: "choices"')
        stream += b": ping\r\nid: 7\r\nevent: message\r\n" + data
    stream += event(finish="stop", end="\r\n")
    for i in range(len(stream)):
        yield stream[i : i + 1]


def no_done(exchange: Exchange) -> Script:
    yield head()
    yield from (event({"content": piece}) for piece in exchange.pieces)
    yield event(finish="length")


def done_only(exchange: Exchange) -> Script:
    yield head()
    yield from (event({"content": piece}) for piece in exchange.pieces)
    yield DONE
    yield FOREVER


def cut(exchange: Exchange) -> Script:
    yield head()
    yield from (event({"content": piece}) for piece in exchange.pieces[:2])


def cut_chunked(exchange: Exchange) -> Script:
    yield head("200 OK", "text/event-stream", "Transfer-Encoding: chunked")
    for piece in exchange.pieces[:2]:
        data = event({"content": piece})
        yield b"%x\r\n%s\r\n" % (len(data), data)
    yield b"fff\r\ndata: {"


def stall(exchange: Exchange) -> Script:
    yield head()
    yield event({"content": exchange.pieces[0]})
    yield FOREVER


def stall_head(exchange: Exchange) -> Script:
    yield head()
    yield FOREVER


def silent(exchange: Exchange) -> Script:
    yield FOREVER


def hang_up(exchange: Exchange) -> Script:
    yield b""


def drip(exchange: Exchange) -> Script:
    yield head()
    while True:
        for byte in event({"content": "a"}):
            yield bytes([byte])
            yield 0.2


def drip_head(exchange: Exchange) -> Script:
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        yield b"X-Slow: 1\r\n"
        yield 0.2


def early_hints(exchange: Exchange) -> Script:
    """Informational responses without end: none is the answer, and no body counts them."""
    while True:
        yield b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n" * 500


def endless_head(exchange: Exchange) -> Script:
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        yield b"X-More: 1\r\n" * 1000


def key_in_status(exchange: Exchange) -> Script:
    """The key where nobody looks for it: in the status line and in headers."""
    key = exchange.request.headers.get("authorization", "")
    yield head(f"401 Unauthorized {key}", "text/plain", f"X-Echo: {key}", f"WWW-Authenticate: {key}")


def masked(exchange: Exchange) -> bytes:
    """What many servers say: the key with its middle masked, of which the rest is still a part of the key."""
    key = exchange.request.headers.get("authorization", "").removeprefix("Bearer ")
    return json.dumps(
        {"error": {"message": f"Incorrect API key provided: {key[:12]}****{key[-6:]}."}}
    ).encode()


def key_in_reply(exchange: Exchange) -> Script:
    """A stream whose text is the key, a few letters at a time."""
    yield head()
    for i in range(0, len(exchange.echo), 5):
        yield event({"content": exchange.echo[i : i + 5]})
    yield event(finish="stop") + DONE


def flood(exchange: Exchange) -> Script:
    yield head()
    while True:
        yield event({"content": "a" * 60_000})


def huge_line(exchange: Exchange) -> Script:
    yield head() + b"data: "
    while True:
        yield b"a" * 65_536


def gzip_bomb(exchange: Exchange) -> Script:
    bomb = gzip.compress(document({"content": "a" * 20_000_000}), compresslevel=1)
    yield head("200 OK", "application/json", "Content-Encoding: gzip")
    yield bomb


def garbage(exchange: Exchange) -> Script:
    yield bytes(range(1, 256)) * 20


def redirect(exchange: Exchange) -> Script:
    yield head("302 Found", "text/plain", "Location: /v1/elsewhere", "Content-Length: 0")


def http_500_cut(exchange: Exchange) -> Script:
    yield head("500 Internal Server Error", "text/plain", "Content-Length: 1000")
    yield b"out of mem"


def say(
    body: Callable[[Exchange], bytes], status: str = "200 OK", kind: str = "application/json", *headers: str
) -> Behaviour:
    """A behaviour that is one plain answer."""

    def script(exchange: Exchange) -> Script:
        content = body(exchange)
        yield head(status, kind, f"Content-Length: {len(content)}", *headers)
        yield content

    return script


def stream(*events: bytes) -> Behaviour:
    """A behaviour that is a fixed stream, whatever was asked."""

    def script(exchange: Exchange) -> Script:
        yield head()
        yield from events

    return script


def problem(exchange: Exchange) -> bytes:
    """An error document whose message repeats the key and an address."""
    message = f"no: {exchange.echo} at http://{exchange.request.headers.get('host')}/v1"
    return json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode()


BEHAVIOURS: dict[str, Behaviour] = {
    "normal": normal,
    "reasoning": reasoning,
    "odd_stream": odd_stream,
    "no_done": no_done,
    "done_only": done_only,
    "plain_json": say(lambda exchange: document({"content": exchange.reply})),
    # cut, slow, never
    "cut": cut,
    "cut_chunked": cut_chunked,
    "stall": stall,
    "stall_head": stall_head,
    "silent": silent,
    "hang_up": hang_up,
    "drip": drip,
    "drip_head": drip_head,
    # too much
    "early_hints": early_hints,
    "endless_head": endless_head,
    "flood": flood,
    "huge_line": huge_line,
    "gzip_bomb": gzip_bomb,
    # refusals
    "redirect": redirect,
    "http_400": say(problem, "400 Bad Request"),
    "http_401": say(problem, "401 Unauthorized"),
    "http_403": say(problem, "403 Forbidden"),
    "http_404": say(problem, "404 Not Found"),
    "http_408": say(problem, "408 Request Timeout"),
    "http_429": say(problem, "429 Too Many Requests"),
    "http_429_1s": say(problem, "429 Too Many Requests", "application/json", "Retry-After: 1"),
    "http_429_600s": say(problem, "429 Too Many Requests", "application/json", "Retry-After: 600"),
    "http_500": say(problem, "500 Internal Server Error"),
    "http_500_cut": http_500_cut,
    "http_502": say(problem, "502 Bad Gateway"),
    "http_503": say(problem, "503 Service Unavailable"),
    "http_504": say(problem, "504 Gateway Timeout"),
    # the key again
    "key_in_status": key_in_status,
    "masked": say(masked, "401 Unauthorized"),
    "key_in_reply": key_in_reply,
    # nonsense
    "garbage": garbage,
    "html": say(lambda exchange: f"<html><h1>Hello {exchange.echo}</h1>".encode(), "200 OK", "text/html"),
    "not_json": say(lambda exchange: b"certainly not JSON"),
    "not_utf8": say(lambda exchange: b'{"choices": "\xff\xfe"}'),
    "wrong_schema": say(lambda exchange: b'{"response": "hello"}'),
    "deep_json": say(lambda exchange: b"[" * 100_000),
    "empty_choices": say(lambda exchange: b'{"choices": []}'),
    "null_content": say(lambda exchange: document({"content": None})),
    "list_content": say(lambda exchange: document({"content": [1, 2]})),
    "tool_calls": say(
        lambda exchange: document({"content": None, "tool_calls": [{"id": "1"}]}, "tool_calls")
    ),
    "stream_not_json": stream(b"data: certainly not JSON\n\n"),
    "stream_not_utf8": stream(b"data: \xff\xfe\n\n"),
    "stream_empty": stream(DONE),
    "stream_error": stream(event({"content": "some"}), b'data: {"error": {"message": "out of memory"}}\n\n'),
    "stream_tool_calls": stream(event({"tool_calls": [{"index": 0}]}), event(finish="tool_calls")),
    "stream_only_reasoning": stream(event({"reasoning": "hmm"}), event(finish="length")),
}


OWN_BEHAVIOURS = frozenset(BEHAVIOURS)
"""Those of this module; other suites add their own."""
