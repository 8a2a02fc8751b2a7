"""A language model behind an OpenAI-compatible server: vLLM, llama.cpp, Ollama, LM Studio or a hosted one.

The request lives in one thread with an event loop of its own, for the calling thread may be running a loop
already. The calling thread keeps the clocks and reports: every ``TICK_S`` it hands the text so far to
``on_text``, and whatever that raises cancels the request. Timeouts per read would not bound a reply: a server
that drips a byte a second passes them.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import re
import time
from collections.abc import AsyncIterator
from concurrent.futures import wait
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal

from ..conversation import Conversation, Turn
from ..endpoints import Endpoint
from .background import in_thread
from .base import OnText, Sampling, check_conversation
from .connection import Origin, checked_addresses, tls_context, tls_failure
from .redaction import excerpt
from .sse import SSEDecoder

if TYPE_CHECKING:
    import httpx

TICK_S = 0.125
CONNECT_S = 10.0
IDLE_S = 120.0  # silence within a body; before it begins a server may load its model, or have a queue
MAX_REPLY_BYTES = 8 * 2**20  # some 300 bytes of stream per token, times MAX_NEW_TOKENS, with room
MAX_ERROR_BYTES = 4096
RETRIES = 3
RETRY_BASE_S = 0.5
MAX_RETRY_AFTER_S = 150.0

_RETRYABLE = frozenset({408, 429, 500, 502, 503, 504})


class EndpointError(RuntimeError):
    """An endpoint gave no usable reply. The message names it, and holds neither its address nor its key.

    ``retry_in`` is after how many seconds the same request may succeed, or None if it will not.
    """

    def __init__(self, message: str, retry_in: float | None = None) -> None:
        super().__init__(message)
        self.retry_in = retry_in


class EndpointEngine:
    """A ``ChatEngine`` that asks an OpenAI-compatible server (``POST {url}/chat/completions``, streamed).

    Args:
        endpoint: the owner's record.
        forbidden: host and port of servers that must not be reached, such as the one that this code runs in.
            With such a port every address of this machine is refused, for a server may listen on all of them.
    """

    def __init__(self, endpoint: Endpoint, *, forbidden: frozenset[Origin] = frozenset()) -> None:
        self.name = endpoint.name
        self.supports_pictures = endpoint.pictures
        self._endpoint = endpoint
        self._forbidden = forbidden

    def generate(self, conversation: Conversation, sampling: Sampling, on_text: OnText) -> str:
        """The assistant's next turn, without the reasoning that some servers send beside it.

        Equal requests get equal replies only where the server heeds ``seed``, which is sent modulo 2**31.

        Raises:
            ValueError: the conversation does not end with a user turn, or shows pictures to a model that cannot see them.
            EndpointError: no whole reply arrived before the deadline.
        """
        check_conversation(conversation, self)
        body = _request_body(self._endpoint.model, conversation, sampling)
        call = _Call(self._endpoint, self._forbidden, body, _read_key(self._endpoint))
        with in_thread(call.run) as result:
            while not wait((result,), timeout=TICK_S).done:
                call.check_clocks()
                on_text(call.text)
            reply = result.result()
        on_text(reply)
        return reply


def _request_body(model: str, conversation: Conversation, sampling: Sampling) -> bytes:
    messages: list[dict[str, Any]] = [
        {"role": turn.role, "content": _content(turn)} for turn in conversation.turns
    ]
    if conversation.system:
        messages.insert(0, {"role": "system", "content": conversation.system})
    body = {
        "model": model,
        "messages": messages,
        "stream": True,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_new_tokens,
        "seed": sampling.seed % 2**31,  # servers hold it in anything from int32 to int64
    }
    return json.dumps(body).encode("ascii")


def _content(turn: Turn) -> str | list[dict[str, Any]]:
    if not turn.pictures:
        return turn.text
    urls = (
        "data:image/png;base64," + base64.b64encode(picture.png).decode("ascii") for picture in turn.pictures
    )
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [*parts, {"type": "text", "text": turn.text}] if turn.text else parts


def _read_key(endpoint: Endpoint) -> str:
    if not endpoint.key_env:
        return ""
    key = os.environ.get(endpoint.key_env, "").strip()
    # A line end inside would be refused further down, by an error that shows the whole header.
    if not key or not key.isascii() or not key.isprintable():
        raise EndpointError(
            f"endpoint {endpoint.name!r} needs a key, and the environment variable {endpoint.key_env} holds "
            "none that can be sent; set it before the program starts, or change 'key_env' in its record"
        )
    return key


class _Call:
    """One request and its retries. ``run`` belongs to its thread, ``text`` and ``check_clocks`` to any."""

    def __init__(self, endpoint: Endpoint, forbidden: frozenset[Origin], body: bytes, key: str) -> None:
        self._endpoint = endpoint
        self._forbidden = forbidden
        self._body = body
        self._key = key
        self._deadline = time.monotonic() + endpoint.deadline_s
        self._last_bytes_at: float | None = None
        self._parts: list[str] = []
        self._unread = "no text"  # what the reply held if no text comes

    @property
    def text(self) -> str:
        """The reply so far."""
        return "".join(self._parts)

    def check_clocks(self) -> None:
        """Raise EndpointError after the deadline, or too long a silence within the reply."""
        now = time.monotonic()
        if now > self._deadline:
            raise self._error(
                f"did not finish within {self._endpoint.deadline_s:g} s ({len(self.text)} characters came); "
                "lower 'max_new_tokens', or raise 'deadline_s' in its record"
            )
        if self._last_bytes_at is not None and now - self._last_bytes_at > IDLE_S:
            raise self._error(
                f"fell silent for {IDLE_S:g} s after {len(self.text)} characters; look at its log"
            )

    async def run(self) -> str:
        import httpx

        client = httpx.AsyncClient(
            verify=tls_context(self._endpoint),
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(None, connect=CONNECT_S),
        )
        async with client:
            attempt = 0
            while True:
                try:
                    return await self._attempt(client)
                except EndpointError as error:
                    if error.retry_in is None or attempt == RETRIES:
                        raise
                    # SystemRandom: the jitter must not move the global generator that a seed was given to.
                    pause = RETRY_BASE_S * 2**attempt * random.SystemRandom().uniform(1.0, 1.25)
                    pause = max(pause, error.retry_in)
                    if pause > MAX_RETRY_AFTER_S or time.monotonic() + pause > self._deadline:
                        raise
                self._last_bytes_at = None
                await asyncio.sleep(pause)
                attempt += 1

    async def _attempt(self, client: httpx.AsyncClient) -> str:
        import httpx

        scheme, host, port, path = self._endpoint.address
        # The connection goes to the very addresses that were checked; Host and the certificate keep the name.
        for address in await self._addresses():
            literal = f"[{address}]" if ":" in address else address
            try:
                async with client.stream(
                    "POST",
                    f"{scheme}://{literal}:{port}{path}/chat/completions",
                    content=self._body,
                    headers=self._headers(),
                    extensions={"sni_hostname": host},
                ) as response:
                    return await self._read(response)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                if reason := tls_failure(error):
                    raise self._error(reason) from None
            except httpx.HTTPError as error:
                how = type(error).__name__
                raise self._error(f"broke the connection after {len(self.text)} characters ({how})") from None
        raise self._error("cannot be reached; start its server, or check 'url' in its record", retry_in=0)

    def _headers(self) -> dict[str, str]:
        scheme, host, port, _ = self._endpoint.address
        name = f"[{host}]" if ":" in host else host
        headers = {
            "Host": name if port == {"http": 80, "https": 443}[scheme] else f"{name}:{port}",
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "ComfyUI-LLMGA",
        }
        return headers | ({"Authorization": f"Bearer {self._key}"} if self._key else {})

    async def _addresses(self) -> list[str]:
        try:
            return await checked_addresses(self._endpoint, self._forbidden)
        except (OSError, UnicodeError):
            raise self._error(
                "has a host name that does not resolve; check 'url' in its record", retry_in=0
            ) from None
        except ValueError as refusal:
            raise self._error(f"is not allowed: {refusal}") from None

    async def _read(self, response: httpx.Response) -> str:
        if response.status_code != 200:
            raise await self._status_error(response)
        # Asked for identity, nothing else is decoded: then the bytes counted are all there are.
        if (encoding := response.headers.get("content-encoding", "identity").lower()) != "identity":
            raise self._error("replied with compressed data, which it was asked not to", encoding)
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            self._take(b"".join([chunk async for chunk in self._chunks(response)]), "message")
            return self._finished()
        if kind != "text/event-stream":
            raise self._error(
                "sent no chat completion; check 'url' in its record", await self._head(response)
            )
        decoder = SSEDecoder()
        async for chunk in self._chunks(response):
            try:
                events = decoder.feed(chunk)
            except ValueError as error:
                raise self._error(f"sent {error} in its stream") from None
            for event in events:
                if event.strip() == "[DONE]" or (event and self._take(event, "delta")):
                    return self._finished()
        raise self._error(f"cut its reply off after {len(self.text)} characters; look at its log")

    def _take(self, data: str | bytes, part: Literal["delta", "message"]) -> bool:
        """Read one completion document; True when it ends the reply."""
        try:
            document = json.loads(data if isinstance(data, str) else data.decode("utf-8"))
        except (ValueError, RecursionError):
            raise self._error("sent something that is not JSON", data) from None
        match document:
            case {"error": problem} if problem:
                raise self._error("reports an error", data)
            case {"choices": []}:  # a stream's usage report
                return False
            case {"choices": [dict(choice), *_]} if isinstance(message := choice.get(part) or {}, dict):
                content = message.get("content")
            case _:
                raise self._error("sent something that is not a chat completion", data)
        if not isinstance(content, str | None):
            raise self._error("sent a reply whose content is not text", data)
        if content:
            self._parts.append(content)
        elif message.get("tool_calls"):
            self._unread = "a tool call and no text; choose a model or a server setting without tools"
        elif message.get("reasoning_content") or message.get("reasoning"):
            self._unread = "reasoning and no text; raise 'max_new_tokens'"
        return bool(choice.get("finish_reason"))

    def _finished(self) -> str:
        if not self._parts:
            raise self._error(f"replied with {self._unread}")
        return self.text

    async def _status_error(self, response: httpx.Response) -> EndpointError:
        status = response.status_code
        retry_in = _retry_after(response.headers.get("retry-after", "")) if status in _RETRYABLE else None
        advice = _advice(status, self._endpoint.key_env)
        if retry_in:
            advice += f"; it asks to wait {retry_in:.0f} s"
        return self._error(f"answered {status}: {advice}", await self._head(response), retry_in)

    async def _chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in response.aiter_raw():
            self._last_bytes_at = time.monotonic()
            size += len(chunk)
            if size > MAX_REPLY_BYTES:
                raise self._error(f"sent more than {MAX_REPLY_BYTES} bytes; lower 'max_new_tokens'")
            yield chunk

    async def _head(self, response: httpx.Response) -> bytes:
        """The first bytes of a body that is only shown."""
        import httpx

        head = b""
        with suppress(httpx.HTTPError):
            async for chunk in self._chunks(response):
                head += chunk
                if len(head) >= MAX_ERROR_BYTES:
                    break
        return head

    def _error(self, message: str, answer: str | bytes = "", retry_in: float | None = None) -> EndpointError:
        text = f"endpoint {self._endpoint.name!r} {message}"
        if shown := excerpt(answer, self._key):
            text += f". It said: {shown}"
        return EndpointError(text, retry_in)


def _advice(status: int, key_env: str) -> str:
    if status in (401, 403):
        where = (
            f"the key in the environment variable {key_env}"
            if key_env
            else "'key_env' in its record (now empty)"
        )
        return f"check {where}, and that the key may use this 'model'"
    if 300 <= status < 400:
        return "redirects are not followed; write the final address into 'url' in its record"
    return {
        400: "check 'model' in its record, whether it sees pictures, and 'max_new_tokens'",
        404: "check 'url' and 'model' in its record",
        413: "show it fewer or smaller pictures",
        429: "it limits requests; ask less often",
    }.get(status, "look at its log")


def _retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks to wait, from now; 0 where it says nothing that can be read."""
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    if when.tzinfo is None:  # "-0000": UTC of unknown origin
        when = when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())
