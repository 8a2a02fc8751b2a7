"""A chat completion request, with its pictures in a size and format that the server takes."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from typing import Any

from ..conversation import Conversation, Picture, Turn
from ..dialect import Dialect
from .base import Sampling
from .prompt_grammar import form_parameters

PNG_UP_TO = 1_000_000
"""Bytes up to which "auto" sends a picture as PNG."""
_QUALITIES = (92, 85, 75)
_SMALLEST_SIDE = 64
_TOP_TOKENS = 20  # the most that OpenAI, vLLM and Ollama give
LEFT_OUT = "[{count} earlier picture{s} left out of this request]"


def request_body(
    model: str,
    conversation: Conversation,
    sampling: Sampling,
    dialect: Dialect,
    schema: Mapping[str, Any] | None = None,
    weighed: bool = False,
) -> bytes:
    """The request as JSON.

    Args:
        schema: that the answer is to follow.
        weighed: ask how likely each token was.
    """
    wanted: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_new_tokens + sampling.thought_tokens * sampling.thinking,
        "seed": sampling.seed % 2**31,  # servers hold it in anything from int32 to int64
    }
    if schema is not None:
        form = {"name": str(schema.get("title", "answer")), "schema": dict(schema), "strict": True}
        wanted["response_format"] = {"type": "json_schema", "json_schema": form}
    elif sampling.min_prompts and not sampling.thinking:
        wanted |= form_parameters(dialect.constrain, sampling.min_prompts, sampling.max_new_tokens)
    if weighed:
        wanted |= {"logprobs": True, "top_logprobs": _TOP_TOKENS}
    messages = messages_of(conversation, dialect)
    return json.dumps(dialect.body(messages, model, wanted, sampling.thinking)).encode("ascii")


def messages_of(conversation: Conversation, dialect: Dialect) -> list[dict[str, Any]]:
    """A message for each turn, the system prompt first.

    Where ``dialect.max_pictures`` is passed, the oldest pictures are left out and their turn says so.
    """
    total = sum(len(turn.pictures) for turn in conversation.turns)
    surplus = max(0, total - dialect.max_pictures) if dialect.max_pictures else 0
    messages: list[dict[str, Any]] = []
    if conversation.system:
        messages.append({"role": "system", "content": conversation.system})
    for turn in conversation.turns:
        dropped = min(surplus, len(turn.pictures))
        surplus -= dropped
        messages.append({"role": turn.role, "content": _content(turn, dropped, dialect)})
    return messages


def _content(turn: Turn, dropped: int, dialect: Dialect) -> str | list[dict[str, Any]]:
    text = turn.text
    if dropped:
        text = f"{LEFT_OUT.format(count=dropped, s='s' * (dropped > 1))}\n{text}".rstrip()
    pictures = turn.pictures[dropped:]
    if not pictures:
        return text
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": data_url(picture, dialect)}} for picture in pictures
    ]
    return [*parts, {"type": "text", "text": text}] if text else parts


def data_url(picture: Picture, dialect: Dialect) -> str:
    """The picture as a data URL of at most ``dialect.max_picture_bytes`` (before base64).

    PNG is lossless and is kept while it is small enough. Above that JPEG is tried at falling qualities, then at half
    the size, and so on.
    """
    limit = min(
        dialect.max_picture_bytes,
        PNG_UP_TO if dialect.picture_format == "auto" else dialect.max_picture_bytes,
    )
    if dialect.picture_format != "jpeg" and len(picture.png) <= limit:
        return _url("png", picture.png)
    image = picture.to_pil()
    while True:
        for quality in _QUALITIES:
            out = io.BytesIO()
            image.save(out, format="JPEG", quality=quality, subsampling=0 if quality > 90 else 2)
            if out.tell() <= dialect.max_picture_bytes:
                return _url("jpeg", out.getvalue())
        if (
            min(image.size) // 2 < _SMALLEST_SIDE
        ):  # a thread-like picture: it cannot be made smaller and still be seen
            return _url("jpeg", out.getvalue())
        image = image.resize((image.width // 2, image.height // 2))


def _url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
