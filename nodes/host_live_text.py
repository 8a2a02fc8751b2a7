"""The text that a language model has written so far, sent to the page while the node runs, and the unloading after it."""

from __future__ import annotations

import time
from typing import Any

import comfy.utils
from comfy_execution.progress import NodeProgressState, ProgressHandler, get_progress_state
from comfy_execution.utils import get_executing_context
from server import PromptServer

from ..llmga.chat.engines.base import CanUnload, CountsTokens, end_of_shown
from ..llmga.chat.engines.endpoint import EndpointError
from . import host

TEXT_INTERVAL = 0.1  # seconds between two live texts
TEXT_TAIL = 8000  # characters of live text; the whole reply arrives with the node's output


class LiveText:
    """An ``on_text`` for the running node: live text for the page, the host's progress bar, and the cancel point.

    The text goes to the asking client alone, as JSON under the pack's own event, and the extension shows it as text. The
    host's progress label is not used: some of its frontends read that as markup, where ``<gen_image>`` vanishes and worse
    may appear.

    Attributes:
        tokens: written so far, in all replies of this run; 0 where the engine does not count them.
        rate: tokens a second since the first one, or 0.0 before two came.
    """

    def __init__(self, engine: Any = None, limit: int = 0) -> None:
        """Take the engine that writes, and the most tokens that all its replies together may have (0: not known)."""
        context = get_executing_context()
        self._server = getattr(PromptServer, "instance", None)
        self._client = getattr(self._server, "client_id", None)
        self._about = {} if context is None else {"node": host.running_node(), "prompt_id": context.prompt_id}
        self._engine = engine if isinstance(engine, CountsTokens) else None
        self._limit = limit
        self._bar = comfy.utils.ProgressBar(limit) if limit and self._engine and context is not None else None
        self._sent_at, self._sent = float("-inf"), ""
        self._before, self._written = 0, 0
        self._first: tuple[float, int] | None = None
        self.tokens, self.rate = 0, 0.0

    def __call__(self, text: str) -> None:
        host.raise_if_cancelled()
        if not isinstance(text, str):  # the server would not survive sending it
            raise ValueError(f"engine wrote {type(text).__name__} instead of text")
        now = time.monotonic()
        if text:
            self._count(now)
        if text == self._sent or now - self._sent_at < TEXT_INTERVAL:
            return
        self._sent_at, self._sent = now, text
        if self._bar is not None:
            self._bar.update_absolute(min(self.tokens, self._limit), self._limit)
        if self._server is not None and self._client is not None and self._about:
            said = {
                "text": end_of_shown(text, TEXT_TAIL),
                "cut": max(0, len(text) - TEXT_TAIL),  # characters before it that are not sent
                "tokens": self.tokens,
                "rate": round(self.rate, 1),
            }
            self._server.send_sync("llmga.text", {**self._about, **said}, self._client)

    def _count(self, now: float) -> None:
        written = 0 if self._engine is None else self._engine.written
        if written < self._written:  # another reply has begun
            self._before += self._written
        self._written = written
        self.tokens = self._before + written
        self._first = self._first or (now, self.tokens)
        began, at = self._first
        if self.tokens > at and now > began:
            self.rate = (self.tokens - at) / (now - began)


class _Unload(ProgressHandler):
    """Unloads an engine when the running node has done all items of its lists, and never between them."""

    def __init__(self, node_id: str, engine: CanUnload) -> None:
        super().__init__(f"llmga.unload.{node_id}")
        self._node_id, self._engine = node_id, engine

    def finish_handler(self, node_id: str, state: NodeProgressState, prompt_id: str) -> None:
        if node_id != self._node_id:
            return
        self.disable()
        try:
            self._engine.unload()
        except EndpointError as error:  # what was asked for is there: the run goes on
            host.logger.warning("%s", error)


def unload_when_done(engine: Any) -> None:
    """Have an engine free its memory when the running node has finished, before the next one begins."""
    context = get_executing_context()
    if context is not None and isinstance(engine, CanUnload):
        get_progress_state().register_handler(_Unload(context.node_id, engine))


def live_text(engine: Any = None, limit: int = 0) -> LiveText:
    """``LiveText`` of the running node, whose engine is unloaded after it where its record says so."""
    unload_when_done(engine)
    return LiveText(engine, limit)
