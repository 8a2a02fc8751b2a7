"""Keep the loggers of HTTP libraries from writing addresses and a server's own words.

httpx logs each request's URL and the server's reason phrase at INFO, httpcore each step at DEBUG, and ComfyUI serves its log
over HTTP. Their levels belong to the program, so nothing global is changed: a filter drops what they log in threads that
are inside ``no_http_logs``.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGERS = (
    "httpx",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
    "urllib3.connectionpool",
    "huggingface_hub.utils._http",
    "huggingface_hub.file_download",
    "filelock",
)


class _QuietThreads(logging.Filter):
    """Drops the records of the threads that are counted in ``active``."""

    def __init__(self) -> None:
        super().__init__()
        self.active: Counter[int] = Counter()
        self.lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        return not self.active[record.thread or 0]


_QUIET = _QuietThreads()


@contextmanager
def no_http_logs() -> Iterator[None]:
    """Drop what HTTP libraries log in this thread while the block runs."""
    thread = threading.get_ident()
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_QUIET)  # adding it twice does nothing
    with _QUIET.lock:
        _QUIET.active[thread] += 1
    try:
        yield
    finally:
        with _QUIET.lock:
            _QUIET.active[thread] -= 1
            _QUIET.active += Counter()  # forget threads that count zero
