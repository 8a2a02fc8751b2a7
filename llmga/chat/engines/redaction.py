"""What may be shown of a server's words: little, printable, and never the key that was sent to it."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote

MAX_CHARS = 200


def excerpt(answer: str | bytes, key: str) -> str:
    """At most ``MAX_CHARS`` printable characters of what a server said, with neither the key nor any URL."""
    text = answer if isinstance(answer, str) else answer.decode("utf-8", "replace")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    match document:
        case {"error": {"message": str(message)}} | {"error": str(message)} | {"message": str(message)}:
            text = message
        case {"detail": str(message)}:
            text = message
    if key:
        text = re.sub("|".join(map(re.escape, _spellings(key))), "***", text, flags=re.IGNORECASE)
    text = re.sub(r"[a-z][a-z0-9+.-]*://[^\s\"'<>]*", "[address]", text, flags=re.IGNORECASE)
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"


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
