"""Reading a chat completion: one JSON document, or server-sent events, as servers really write them."""

from __future__ import annotations

import json
import math
from typing import Any, Literal

from ..conversation import MAX_TEXT
from .base import CUT_REASONS, CutAt
from .sse import SSEDecoder

Form = Literal["events", "document"]
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b"error:", b":")
_BOM = b"\xef\xbb\xbf"
_HEAD_BYTES = 4096
"""By which it is clear what a body is, white space before it not counted."""
_MOST_TOKENS = 100
_CUT_BY: dict[str, CutAt] = {
    "length": "max_new_tokens",  # OpenAI, vLLM, llama.cpp, Ollama; some of these also where their context is full
    "max_tokens": "max_new_tokens",  # gateways to Anthropic and Gemini
    "max_output_tokens": "max_new_tokens",
    "model_length": "context",  # Mistral
    "content_filter": "filter",  # OpenAI, Azure, DeepSeek, gateways to Gemini
    "safety": "filter",
    "sensitive": "filter",  # GLM
    "error": "server",  # Mistral, OpenRouter
    "abort": "server",  # vLLM, SGLang
    "network_error": "server",  # GLM
    "insufficient_system_resource": "server",  # DeepSeek
}


class UnreadableReply(ValueError):  # noqa: N818 - it is told apart from other errors by what it is
    """A body that is not a chat completion. ``said`` is what to show of it."""

    def __init__(self, message: str, said: str | bytes = "") -> None:
        super().__init__(message)
        self.said = said


class CompletionReader:
    """Collects the text, and what is beside it, from the bytes of a reply.

    The content type is often wrong, so the first bytes decide what the body is. Events that are not completions (usage,
    filter results, keep-alives) are passed over. The reply ends at ``[DONE]`` or where the body does, and not at the first
    ``finish_reason``, which some gateways write on every event.
    """

    def __init__(self) -> None:
        self.done = False
        """``[DONE]`` was read."""
        self.finished = False
        """A ``finish_reason`` was read: nothing has to follow."""
        self.cut: CutAt = ""
        """What ended the reply before the model did, by the last ``finish_reason``."""
        self.first_tokens: dict[str, float] = {}
        """Of the reply's first token: how likely it and others were, 0 .. 1, where the server says so."""
        self._texts: list[str] = []
        self._size = 0
        self._thoughts: list[str] = []
        self._tools = False
        self._form: Form | None = None
        self._head = b""
        self._document: list[bytes] = []
        self._decoder = SSEDecoder()
        self._passed_over: str | None = None

    @property
    def text(self) -> str:
        """The reply so far, without the model's thinking."""
        return _joined(self._texts)

    @property
    def thought(self) -> str:
        """What the server marked as thinking."""
        return _joined(self._thoughts)

    @property
    def pieces(self) -> int:
        """In how many pieces text and thought came; most servers send a token in each."""
        return len(self._texts) + len(self._thoughts)

    def feed(self, chunk: bytes) -> None:
        """Read the next bytes of the body.

        Raises:
            UnreadableReply: they belong to no chat completion, or report an error.
        """
        if self._form is None:
            if len(self._head) > _HEAD_BYTES:
                return  # it is nothing that is known, and its beginning is enough to show
            self._head += chunk
            self._form = _form_of(self._head)
            if self._form is None:
                self._head = self._head if self._head.strip() else b""  # a space a byte must not add up
                return
            chunk, self._head = self._head, b""
        if self._form == "document":
            self._document.append(chunk)
            return
        self._feed_events(chunk)

    def _feed_events(self, chunk: bytes) -> None:
        try:
            events = self._decoder.feed(chunk)
        except ValueError as error:
            raise UnreadableReply(f"sent {error} in its stream") from None
        for event in events:
            self._take_event(event)

    def close(self) -> str:
        """The whole reply, after the end of the body.

        Raises:
            UnreadableReply: there is no text in it.
        """
        if self._form is None:
            raise UnreadableReply("sent no chat completion; check 'url' in its record", self._head)
        if self._form == "document":
            document = _json(b"".join(self._document))
            if not self._take(document):
                raise UnreadableReply(
                    "sent something that is not a chat completion", b"".join(self._document)
                )
        else:
            self._passed_over, before = None, self._passed_over
            self._feed_events(b"\n\n")  # the last event may lack the blank line
            if self._passed_over and not self.finished and _is_cut_off(self._passed_over):
                raise UnreadableReply("broke its stream off in the middle of an event", self._passed_over)
            self._passed_over = before or self._passed_over
        if not self._texts:
            raise UnreadableReply(f"replied with {self._instead_of_text()}", self._passed_over or "")
        return self.text

    def _instead_of_text(self) -> str:
        if self._tools:
            return "a tool call and no text; choose a model or a server setting without tools"
        if self._thoughts:
            return "reasoning and no text; raise 'max_new_tokens' or 'thought_tokens', or turn 'thinking' off"
        if self.cut:  # a model that thinks where nobody sees it has none left for the answer
            return f"no text: {CUT_REASONS[self.cut]}"
        return (
            "no text"
            if self._passed_over is None
            else "no text, but with something that is not a chat completion"
        )

    def _take_event(self, event: str) -> None:
        if self.done or not event.strip():
            return
        if event.strip() == "[DONE]":
            self.done = True
            return
        try:
            document = _json(event)
        except UnreadableReply:
            document = None
        if not self._take(document) and self._passed_over is None:
            self._passed_over = event

    def _take(self, document: Any) -> bool:
        """Read one completion document; False if it is none.

        Raises:
            UnreadableReply: it reports an error.
        """
        match document:
            case {"error": problem} if problem:
                raise UnreadableReply("reports an error", _dumped(document))
            case {"object": "error"}:  # vLLM and FastChat of 2024
                raise UnreadableReply("reports an error", _dumped(document))
            case {"choices": []}:  # the usage report of a stream
                return True
            case {"choices": [dict(choice), *_]}:
                pass
            case _:
                return False
        self._take_choice(choice)
        return True

    def _take_choice(self, choice: dict[str, Any]) -> None:
        if not self.first_tokens:
            self.first_tokens = _first_tokens(choice.get("logprobs"))
        streamed = choice.get("delta")
        message = streamed if isinstance(streamed, dict) and streamed else choice.get("message")
        if isinstance(message, dict) and (message is streamed or not self._texts):
            self._take_message(message)
        elif isinstance(choice.get("text"), str):
            self._add([choice["text"]])
        reason = choice.get("finish_reason")
        if reason not in (None, "", "null"):
            self.finished = True
            self.cut = _CUT_BY.get(str(reason).lower(), "")

    def _add(self, texts: list[str]) -> None:
        """More of the reply, which is looked through again and again while it grows.

        Raises:
            UnreadableReply: it is longer than a conversation's turn may be.
        """
        self._texts += texts
        self._size += sum(map(len, texts))
        if self._size > MAX_TEXT:
            raise UnreadableReply(f"replied with more than {MAX_TEXT:,} characters; lower 'max_new_tokens'")

    def _take_message(self, message: dict[str, Any]) -> None:
        texts, thoughts = _parts(message.get("content"))
        self._add(texts)
        self._thoughts += thoughts
        refusal = message.get("refusal")
        if not texts and isinstance(refusal, str):
            self._add([refusal] if refusal else [])
        for name in ("reasoning_content", "reasoning"):
            if isinstance(said := message.get(name), str) and said:
                self._thoughts.append(said)
                break
        self._tools = self._tools or bool(message.get("tool_calls"))


def _joined(pieces: list[str]) -> str:
    """The pieces as one text, in which a character is whole again whose halves came in two of them.

    Servers that cut their text by UTF-16 units send an emoji as two halves of a surrogate pair.
    """
    return "".join(pieces).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _dumped(document: Any) -> str:
    try:
        return json.dumps(document)
    except (ValueError, RecursionError):  # nested deeper than can be written
        return ""


def _parts(content: Any) -> tuple[list[str], list[str]]:
    """The texts and the thoughts of a message's content, which is a text or a list of parts."""
    if isinstance(content, str):
        return ([content] if content else []), []
    texts: list[str] = []
    thoughts: list[str] = []
    for part in content if isinstance(content, list) else []:
        match part:
            case str():
                texts.append(part)
            case {"type": "text" | "output_text", "text": str(text)}:
                texts.append(text)
            case {"type": "thinking" | "reasoning", **rest}:
                thoughts += _texts(rest.get("thinking") or rest.get("text") or rest.get("reasoning"))
    return texts, thoughts


def _texts(inner: Any) -> list[str]:
    """A text, or the texts of a list of parts; parts in parts are left out, for their depth is the server's choice."""
    if isinstance(inner, str):
        return [inner]
    parts = inner if isinstance(inner, list) else []
    return [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]


def _first_tokens(logprobs: Any) -> dict[str, float]:
    """Probabilities of the first token, from what chat completions have under ``logprobs``; empty if it is anything else."""
    match logprobs:
        case {"content": [{"top_logprobs": [*entries]}, *_]}:
            found = [
                (one.get("token"), one.get("logprob"))
                for one in entries[:_MOST_TOKENS]
                if isinstance(one, dict)
            ]
            return {
                token: math.exp(value)
                for token, value in found
                if isinstance(token, str)
                and isinstance(value, (int, float))
                and value is not False
                and -1e4 < value <= 0
            }
    return {}


def _form_of(head: bytes) -> Form | None:
    """What a body is by its beginning; None while that is not clear, and for ever if it is neither."""
    start = head.removeprefix(_BOM).lstrip()
    if start.startswith((b"{", b"[")):
        return "document"
    return "events" if start.startswith(_FIELDS) else None


def _is_cut_off(event: str) -> bool:
    """Whether it begins as an object of JSON and is none."""
    try:
        _json(event)
    except UnreadableReply:
        return event.lstrip().startswith("{")
    return False


def _json(text: str | bytes) -> Any:
    try:
        return json.loads(text if isinstance(text, str) else text.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise UnreadableReply("sent something that is not JSON", text) from None
