"""A server on loopback that answers as a recorded dialogue says, and writes down what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answers = Mapping[str, tuple[int, bytes]]
"""By path with its query: status and body. Every other path is answered with 404."""


class RecordedServer:
    """``with RecordedServer(answers) as server``: ``asked`` holds (path, decoded body or None, headers) in order."""

    def __init__(self, answers: Answers, held: str = "") -> None:
        """``held`` is a path that is answered only when the server is left."""
        self.asked: list[tuple[str, Any, dict[str, str]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # noqa: N802, http.server's name
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                server.asked.append((self.path, json.loads(content) if content else None, headers))
                if self.path == held:
                    server._left.wait()
                status, body = answers.get(self.path, (404, b'{"error": "not found"}'))
                self.send_response(status)
                if status in (301, 302, 307):
                    self.send_header("Location", f"{server.root}/elsewhere")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(OSError):  # the client has gone
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._left = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def paths(self) -> list[str]:
        return [path for path, _, _ in self.asked]

    def __enter__(self) -> RecordedServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._left.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
