"""A real OpenAI-compatible chat server on loopback, which behaves as ``openai_behaviours`` says.

with OpenAIServer("a reply") as server:        # or a function: the decoded request -> the reply
    server.behave("http_500", "normal")        # the first request fails, all later ones stream
    ...                                        # talk to server.url
    server.requests[0].body["messages"]
"""

from __future__ import annotations

import json
import select
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .openai_behaviours import BEHAVIOURS, Exchange, Request


class OpenAIServer:
    """A threaded server on ``127.0.0.1`` and a port that is free.

    Args:
        reply: the assistant's text, or a function from the decoded request to it.
        pace: seconds between the pieces of a normal stream.
        tls: speak https with this context.
    """

    def __init__(
        self,
        reply: str | Callable[[dict[str, Any]], str],
        *,
        pace: float = 0.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._reply = reply
        self._pace = pace
        self._scheme = "https" if tls else "http"
        self._behaviours = ["normal"]
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.requests: list[Request] = []
        self.active = 0
        """Requests that are being answered now; 0 also tells that every client has gone or has its answer."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # noqa: N802, http.server's name
                server._answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        if tls:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    @property
    def port(self) -> int:
        return self._http.server_address[1]

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}/v1"

    def behave(self, *behaviours: str) -> None:
        """How to answer the next requests, one each; the last holds for all that follow."""
        unknown = set(behaviours) - BEHAVIOURS.keys()
        if unknown or not behaviours:
            raise ValueError(f"unknown behaviours {sorted(unknown)}; known: {', '.join(BEHAVIOURS)}")
        with self._lock:
            self._behaviours = list(behaviours)

    @contextmanager
    def replying(self, reply: str | Callable[[dict[str, Any]], str], *, pace: float = 0.0) -> Iterator[None]:
        """Another reply, and another pace, for a while."""
        before = self._reply, self._pace
        self._reply, self._pace = reply, pace
        try:
            yield
        finally:
            self._reply, self._pace = before

    def __enter__(self) -> OpenAIServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        request = Request(
            handler.path, {name.lower(): value for name, value in handler.headers.items()}, body
        )
        with self._lock:
            self.requests.append(request)
            self.active += 1
            behaviour = self._behaviours[0] if len(self._behaviours) == 1 else self._behaviours.pop(0)
        try:
            script = (
                BEHAVIOURS[behaviour] if request.path == "/v1/chat/completions" else BEHAVIOURS["http_404"]
            )
            reply = self._reply if isinstance(self._reply, str) else self._reply(body)
            with suppress(ConnectionError):  # the client has gone
                for step in script(Exchange(request, reply, self._pace)):
                    if isinstance(step, bytes):
                        handler.wfile.write(step)
                    elif self._client_left_within(handler, step):
                        break
        finally:
            with self._lock:
                self.active -= 1

    def _client_left_within(self, handler: BaseHTTPRequestHandler, seconds: float) -> bool:
        while seconds > 0 and not self._stopping.is_set():
            # A client that waits sends nothing, so what can be read is the end of its side.
            if select.select([handler.connection], [], [], min(seconds, 0.05))[0]:
                return True
            seconds -= 0.05
        return self._stopping.is_set()
