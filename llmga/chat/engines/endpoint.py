"""A language model behind an OpenAI-compatible server: vLLM, llama.cpp, Ollama, LM Studio or a hosted one.

The request lives in one thread with an event loop of its own, for the calling thread may be running a loop
already. The calling thread keeps the clocks and reports: every ``TICK_S`` it hands the text so far to
``on_text``, and whatever that raises cancels the request. Timeouts per read would not bound a reply: a server
that drips a byte a second passes them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...quiet import no_http_logs
from ..conversation import Conversation
from ..endpoints import Endpoint
from ..tags import count_closed
from .background import in_thread
from .base import OnText, Said, Sampling, check_conversation, spells
from .completion import CompletionReader, UnreadableReply
from .connection import Origin, checked_addresses, headers_of, tls_context, tls_failure
from .redaction import excerpt, without_key, words_of
from .refusals import RETRYABLE, advice, named_parameter, retry_after
from .requests import request_body
from .server_memory import Command, load_command, send_command, unload_command

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

TICK_S = 0.125
CONNECT_S = 10.0
IDLE_S = 120.0  # silence within a body; before it begins a server may load its model, or have a queue
# Some 300 bytes of stream per token, times MAX_NEW_TOKENS, with room; 2 kB with logprobs, which only short replies have.
MAX_REPLY_BYTES = 8 * 2**20
MAX_ERROR_BYTES = 4096
RETRIES = 3
RETRY_BASE_S = 0.5
MAX_RETRY_AFTER_S = 150.0
LINGER_S = 3.0  # how long more is waited for after a finish_reason, from a server that does not end the body
MAX_ADAPTATIONS = 4


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
        self._dialect = endpoint.dialect
        """What has been learnt of the server since, too."""
        self._call: _Call | None = None
        self._may_sleep = True
        """Nothing was asked since the server was asked to unload its model, or since this began."""

    @property
    def written(self) -> int:
        """See ``CountsTokens``."""
        return 0 if self._call is None else self._call.pieces

    def __str__(self) -> str:
        """The name of its record, which is what a person may see of it."""
        return self.name

    def generate(self, conversation: Conversation, sampling: Sampling, on_text: OnText) -> Said:
        """The assistant's next turn; reasoning that a server sends beside it is the thought.

        Equal requests get equal replies only where the server heeds ``seed``, which is sent modulo 2**31.

        Raises:
            ValueError: the conversation does not end with a user turn, or shows pictures to a model that cannot see them.
            EndpointError: no whole reply arrived before the deadline.
        """
        return self._generate(conversation, sampling, on_text)

    def generate_json(
        self, conversation: Conversation, sampling: Sampling, on_text: OnText, schema: Mapping[str, Any]
    ) -> Said:
        """See ``HasStructuredOutput``: ``response_format`` with a schema; a server that refuses it is asked without."""
        return self._generate(conversation, sampling, on_text, schema)

    def generate_with_probabilities(
        self, conversation: Conversation, sampling: Sampling, on_text: OnText, words: Sequence[str]
    ) -> tuple[Said, tuple[float, ...]]:
        """See ``HasWordProbabilities``: by ``logprobs``, of the likeliest tokens alone; all 0 where a server has none."""
        said = self._generate(conversation, sampling, on_text, weighed=True)
        likely = self._call.first_tokens.items() if self._call else ()
        return said, tuple(sum(share for token, share in likely if spells(token, word)) for word in words)

    def unload(self) -> None:
        """Free the server's memory, where the record says which kind of server it is; see ``CanUnload``.

        Raises:
            EndpointError: the server did not do it.
        """
        kind = self._endpoint.dialect.unload
        if kind:
            self._command(unload_command(kind, self._endpoint.model), "did not free its memory")
            self._may_sleep = True

    def _command(self, command: Command, failed: str, on_tick: Callable[[], None] = lambda: None) -> None:
        key = _read_key(self._endpoint)
        if wrong := send_command(self._endpoint, self._forbidden, key, command, on_tick):
            raise EndpointError(f"endpoint {self.name!r} {failed}: {wrong}")

    def _generate(
        self,
        conversation: Conversation,
        sampling: Sampling,
        on_text: OnText,
        schema: Mapping[str, Any] | None = None,
        weighed: bool = False,
    ) -> Said:
        check_conversation(conversation, self)
        key = _read_key(self._endpoint)
        deadline = time.monotonic() + self._endpoint.deadline_s
        left = MAX_ADAPTATIONS
        if self._may_sleep and (wake := load_command(self._dialect.unload)):
            self._command(wake, "did not load its model again", lambda: on_text(""))
        self._may_sleep = False
        while True:
            try:
                return self._ask(conversation, sampling, key, deadline, on_text, schema, weighed)
            except _RefusedRequest as refused:
                adapted = self._dialect.adapted(refused.words, refused.parameter) if left else None
                if adapted is None and left and "logprob" in refused.words.lower():  # refused in many words
                    adapted = replace(self._dialect, omit=(*self._dialect.omit, "logprobs"))
                if adapted is None:
                    raise refused.error from None
                logger.warning("endpoint %r: %s; asking again", self.name, self._dialect.difference(adapted))
                self._dialect = adapted
                left -= 1

    def _ask(
        self,
        conversation: Conversation,
        sampling: Sampling,
        key: str,
        deadline: float,
        on_text: OnText,
        schema: Mapping[str, Any] | None,
        weighed: bool,
    ) -> Said:
        body = request_body(self._endpoint.model, conversation, sampling, self._dialect, schema, weighed)
        self._call = call = _Call(self._endpoint, self._forbidden, body, key, deadline)
        with in_thread(call.run) as result:
            while not wait((result,), timeout=TICK_S).done:
                call.check_clocks()
                on_text(call.said(call.text).shown)
            said = call.said(result.result())
        if 0 < sampling.stop_after <= count_closed(said.answer):  # what was asked for is whole
            said = replace(said, cut="")
        on_text(said.shown)
        return said


class _RefusedRequest(Exception):  # noqa: N818 - it becomes an EndpointError unless another request helps
    """A 400 or 422, with what the server says of it."""

    def __init__(self, error: EndpointError, words: str, parameter: str) -> None:
        super().__init__()
        self.error, self.words, self.parameter = error, words, parameter


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

    def __init__(
        self, endpoint: Endpoint, forbidden: frozenset[Origin], body: bytes, key: str, deadline: float
    ) -> None:
        self._endpoint = endpoint
        self._forbidden = forbidden
        self._body = body
        self._key = key
        self._deadline = deadline
        self._last_bytes_at: float | None = None
        self._reader = CompletionReader()

    @property
    def text(self) -> str:
        """The reply so far."""
        return self._reader.text

    @property
    def first_tokens(self) -> dict[str, float]:
        """See ``CompletionReader.first_tokens``."""
        return self._reader.first_tokens

    @property
    def pieces(self) -> int:
        """In how many pieces it came."""
        return self._reader.pieces

    def said(self, text: str) -> Said:
        """Thought and answer of a reply; until the first word of an answer arrives, the thought is unfinished."""
        thought = without_key(self._reader.thought, self._key)
        if thought and not text:
            return Said("", thought, unfinished=True)
        return replace(Said.of(without_key(text, self._key), thought=thought), cut=self._reader.cut)

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
            proxy=self._endpoint.proxy or None,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(None, connect=CONNECT_S),
        )
        with no_http_logs():
            async with client:
                return await self._attempts(client)

    async def _attempts(self, client: httpx.AsyncClient) -> str:
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
        self._reader = CompletionReader()
        # The connection goes to the very addresses that were checked; Host and the certificate keep the name.
        for address in await self._addresses():
            literal = f"[{address}]" if ":" in address else address
            try:
                async with client.stream(
                    "POST",
                    f"{scheme}://{literal}:{port}{path}/chat/completions",
                    content=self._body,
                    headers=headers_of(self._endpoint, self._key),
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

    async def _addresses(self) -> list[str]:
        if self._endpoint.proxy:  # the proxy resolves the name, and the certificate is checked against it
            return [self._endpoint.address.host]
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
        chunks = self._chunks(response)
        try:
            while (chunk := await self._next(chunks)) is not None:
                self._reader.feed(chunk)
                if self._reader.done:
                    break
            reply = self._reader.close()
        except UnreadableReply as error:
            raise self._error(str(error), error.said) from None
        if not (self._reader.done or self._reader.finished):
            logger.warning(
                "endpoint %r ended its reply without saying that it is finished", self._endpoint.name
            )
        return reply

    async def _next(self, chunks: AsyncIterator[bytes]) -> bytes | None:
        """The next bytes; None at the end of the body, or when a finished reply is followed by silence."""
        try:
            waiting = asyncio.wait_for(anext(chunks), LINGER_S if self._reader.finished else None)
            return await waiting
        except (StopAsyncIteration, asyncio.TimeoutError):
            return None

    async def _status_error(self, response: httpx.Response) -> EndpointError:
        status = response.status_code
        retry_in = retry_after(response.headers.get("retry-after", "")) if status in RETRYABLE else None
        what = advice(status, self._endpoint)
        if retry_in:
            what += (
                f"; it asks to wait {retry_in:.0f} s" if retry_in <= 86_400 else "; it asks to wait for days"
            )
        said = await self._head(response)
        error = self._error(f"answered {status}: {what}", said, retry_in)
        if status in (400, 422) or (status in (403, 501) and b"logprobs" in said.lower()):
            raise _RefusedRequest(error, words_of(said), named_parameter(said))
        return error

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
