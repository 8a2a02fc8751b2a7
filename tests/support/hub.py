"""Hugging Face on loopback: one repository, whole or failing as a test asks."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub:
    """Serves ``files`` (path -> bytes) as every repository.

    ``cut`` stops an answer after so many bytes, once for each entry; ``ranges`` says whether it can go on in the middle.
    The answers of the files in ``silent_after`` fall silent after so many bytes, until ``go_on`` is set.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.cut: list[int] = []
        self.ranges = True
        self.revision = "0123abcd"
        self.wrong_hash = False
        self.silent_after: dict[str, int] = {}
        self.go_on = threading.Event()
        self.asked: list[tuple[str, str]] = []
        self.status = 200
        self.failing: set[str] = set()
        """Names of files that cannot be had for now."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()

    def tree(self) -> list[dict[str, Any]]:
        def oid(data: bytes) -> str:
            return hashlib.sha256(data + b"!" * self.wrong_hash).hexdigest()

        return [{"type": "directory", "path": "unet", "size": 0}] + [
            {"type": "file", "path": path, "size": len(data)}
            | ({"lfs": {"oid": oid(data)}} if path.endswith(".safetensors") else {})
            | {"oid": hashlib.sha1(b"blob %d\0%s" % (len(data), data)).hexdigest()}
            for path, data in self.files.items()
        ]

    def _handler(hub) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:  # noqa: N802
                asked = self.headers.get("Range", "")
                hub.asked.append((self.path, asked))
                if hub.status != 200 or self.path.rpartition("/")[2] in hub.failing:
                    self.send_error(hub.status if hub.status != 200 else 503)
                elif "/resolve/" in self.path:
                    self._file(hub.files[self.path.partition(f"/resolve/{hub.revision}/")[2]], asked)
                elif "/tree/" in self.path:
                    self._file(json.dumps(hub.tree()).encode())
                else:
                    self._file(json.dumps({"sha": hub.revision}).encode())

            def _file(self, data: bytes, asked: str = "") -> None:
                start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and hub.ranges else 0
                self.send_response(206 if asked and hub.ranges else 200)
                self.send_header("Content-Length", str(len(data) - start))
                self.end_headers()
                end = start + hub.cut.pop(0) if hub.cut and "/resolve/" in self.path else len(data)
                if after := hub.silent_after.get(self.path.rpartition("/")[2]):
                    self.wfile.write(data[start : start + after])
                    self.wfile.flush()
                    hub.go_on.wait()
                    start += after
                self.wfile.write(data[start:end])

        return Handler
