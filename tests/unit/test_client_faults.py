"""``llmga.client`` against servers that answer in halves, hang, or close the connection of the events."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from llmga.client import ComfyClient, ServerError, with_values

Handle = Callable[[socket.socket, str], None]
DONE = {"p": {"status": {"status_str": "success"}, "outputs": {}}}


@contextmanager
def serving(handle: Handle) -> Iterator[ComfyClient]:
    """A server that hands each connection, with the first line of its request, to a function."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536)
        with connection:
            if b"Sec-WebSocket-Key" in head:
                shake_hands(connection, head)
            handle(connection, head.decode("utf-8", "replace").partition("\r\n")[0])

    threading.Thread(target=accept, daemon=True).start()
    client = ComfyClient(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60)
    try:
        yield client
    finally:
        client.disconnect()
        listener.close()


def shake_hands(connection: socket.socket, head: bytes) -> None:
    (key,) = (line.split(b": ")[1] for line in head.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key"))
    accepted = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accepted + b"\r\n\r\n"
    )


def reply(connection: socket.socket, value: Any, promised: int = 0) -> None:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {promised or len(body)}\r\nConnection: close\r\n\r\n"
    connection.sendall(head.encode() + body)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda connection, _: reply(connection, b'{"a":', promised=1000), "does not answer: IncompleteRead"),
        (lambda connection, _: connection.sendall(b"garbage\r\n\r\n"), "does not answer: garbage"),
        (lambda connection, _: None, "does not answer"),
        (lambda connection, _: reply(connection, b"<html>"), "answers what is not valid JSON: '<html>'"),
    ],
    ids=["half a body", "no HTTP", "nothing", "a page"],
)
def test_half_an_answer_is_an_error_of_the_server(answer: Handle, said: str) -> None:
    with serving(answer) as client, pytest.raises(ServerError, match=said):
        client.get("/system_stats")


def test_a_connection_of_events_that_the_server_closes_is_made_anew() -> None:
    """The closing frame reads as an empty text; the prompt goes on, and so do its events."""
    pytest.importorskip("websocket", reason="websocket-client is not installed")
    connections: list[str] = []
    heard: list[str] = []

    def handle(connection: socket.socket, line: str) -> None:
        if "/ws" in line:
            connections.append(line)
            if len(connections) == 1:
                connection.sendall(b"\x88\x02\x03\xe8")  # closing, 1000
            else:
                event = json.dumps({"type": "llmga.text", "data": {"prompt_id": "p", "text": "狐"}}).encode()
                connection.sendall(b"\x81" + bytes([len(event)]) + event)
                connection.recv(1)
        elif line.startswith("POST"):
            reply(connection, {"prompt_id": "p"})
        elif "/queue" in line:
            reply(connection, {"queue_running": [[0, "p"]], "queue_pending": []})
        else:
            reply(connection, DONE if heard else {})

    with serving(handle) as client:
        assert client.run({}, on_event=lambda kind, data: heard.append(data["text"])) == DONE["p"]
    assert len(connections) == 2 and heard == ["狐"]


def test_a_server_that_hangs_is_waited_for_no_longer_than_was_said() -> None:
    released = threading.Event()

    def handle(connection: socket.socket, line: str) -> None:
        if line.startswith("POST"):
            reply(connection, {"prompt_id": "p"})
        elif "/ws" not in line:
            released.wait(30)

    with serving(handle) as client:
        client._listen = lambda: None  # type: ignore[method-assign]
        with pytest.raises(TimeoutError, match=r"timed out, after 1 s of waiting for prompt p"):
            client.run({}, timeout=1)
        released.set()


@pytest.mark.parametrize("name", ["狐狸.png", 'a"b.png', "a\\b.png", "a;b.png", "100%.png"])
def test_a_file_name_arrives_as_it_is(name: str) -> None:
    web = pytest.importorskip("aiohttp", reason="aiohttp, which parses ComfyUI's uploads, is not installed")
    received: list[bytes] = []

    def keep(path: str, data: bytes, content_type: str) -> bytes:
        received.append(data)
        return b'{"name": "x"}'

    client = ComfyClient("http://127.0.0.1:9")
    client.request = keep  # type: ignore[method-assign]
    client.upload_image(name, b"png")
    (head,) = (line for line in received[0].decode().split("\r\n") if "filename=" in line)
    _, parameters = web.multipart.parse_content_disposition(head.partition(": ")[2])
    assert parameters["filename"] == name


def test_a_file_name_of_two_lines_is_refused() -> None:
    with pytest.raises(ValueError, match="name must be one line"):
        ComfyClient("http://127.0.0.1:9").upload_image("a\r\nb.png", b"")


def test_a_workflow_of_the_page_is_no_prompt() -> None:
    with pytest.raises(ValueError, match="prompt must be in API format"):
        with_values({"nodes": [], "links": [], "version": 0.4}, {"KSampler.seed": 1})  # type: ignore[dict-item]
