"""What may be shown of a server's words: little, printable, and never the key that was sent to it."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote

MAX_CHARS = 200
READ_CHARS = 4096
"""What is looked at: a server's words may be megabytes, and nothing of them is shown but the beginning."""
_SECRET_FROM = 8
"""Characters from which a key of letters alone, or of digits alone, is taken for a secret."""
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]{0,30}://[^\s\"'<>]{0,2000}", re.IGNORECASE)
_MASKED = re.compile(r"[^\s\"'<>]{0,80}(?:\*{3,4096}|•{3,4096}|●{3,4096}|…{2,4096})[^\s\"'<>]{0,80}")


def excerpt(said: str | bytes, key: str) -> str:
    """At most ``MAX_CHARS`` printable characters of what a server said, with neither the key nor any URL.

    What the server has masked itself (``sk-ab****yz``) is left out whole: the rest of it is still a part of the key.
    """
    text = words_of(said)
    text = without_key(text, key)
    text = _ADDRESS.sub("[address]", text)
    text = _MASKED.sub("***", text)
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"


def words_of(said: str | bytes) -> str:
    """The message of an error document, or the beginning of whatever else a server said."""
    document, text = document_of(said)
    match document:
        case {"error": {"message": str(message)}} | {"error": str(message)} | {"message": str(message)}:
            text = message
        case {"detail": str(message)}:
            text = message
        case {"detail": [{"msg": str(message), **rest}, *_]}:
            place = rest.get("loc")
            where = ".".join(map(str, place[:4])) if isinstance(place, list) else ""
            text = f"{where}: {message}" if where else message
    return text[:READ_CHARS]


def document_of(said: str | bytes) -> tuple[object, str]:
    """The JSON value that the first ``READ_CHARS`` characters are, or None; and these characters."""
    text = said[:READ_CHARS] if isinstance(said, str) else said[: 4 * READ_CHARS].decode("utf-8", "replace")
    text = text[:READ_CHARS]
    try:
        return json.loads(text), text
    except (ValueError, RecursionError):
        return None, text


def without_key(text: str, key: str) -> str:
    """The text with ``***`` in place of the key, in every spelling, also where the text ends inside it.

    A word such as EMPTY or ollama, which servers that check no key are given, is no secret, and may stand in any prompt.
    """
    if not key or (len(key) < _SECRET_FROM and (key.isalpha() or key.isdigit())):
        return text
    spellings = _spellings(key)
    text = re.sub("|".join(map(re.escape, spellings)), "***", text, flags=re.IGNORECASE)
    shortest = min(8, len(key))
    for spelling in spellings:
        for length in range(min(len(spelling) - 1, len(text)), shortest - 1, -1):
            if text.endswith(spelling[:length]):
                return text[:-length] + "***"
    return text


def _spellings(key: str) -> list[str]:
    """The ways in which a key may be written into a text, longest first."""
    raw = key.encode("ascii")
    spellings = {key, json.dumps(key)[1:-1], quote(key, safe=""), "".join(f"%{byte:02X}" for byte in raw)}
    for offset in range(3):  # base64 of a text with the key in it depends on the key's place modulo 3
        encoded = base64.b64encode(bytes(offset) + raw).decode("ascii")
        # without the characters at both ends that hold bits of its neighbours too
        whole = encoded[(offset * 8 + 5) // 6 : (offset + len(raw)) * 8 // 6]
        spellings |= {whole, whole.replace("+", "-").replace("/", "_")}
    return sorted(spellings - {""}, key=len, reverse=True)
