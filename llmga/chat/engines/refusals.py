"""What a server's refusal means: which parameter it names, when to ask again, and what the owner can change."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from ..endpoints import Endpoint
from .redaction import document_of

RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
"""Status codes after which the same request may succeed."""


def named_parameter(said: bytes) -> str:
    """The parameter that an error document names, or ""."""
    match document_of(said)[0]:
        case {"error": {"param": str(name)}} | {"param": str(name)}:
            return name
        case {"detail": [{"loc": [*_, str(name)]}, *_]}:
            return name
    return ""


def advice(status: int, endpoint: Endpoint) -> str:
    if status in (401, 403):
        where = (
            f"the key in the environment variable {endpoint.key_env}"
            if endpoint.key_env
            else "'key_env' in its record (now empty)"
        )
        return f"check {where}, and that the key may use this 'model'"
    if 300 <= status < 400:
        return "redirects are not followed; write the final address into 'url' in its record"
    if status in (404, 405):
        return _path_advice(endpoint.address.path)
    return {
        400: "check 'model' in its record, whether it sees pictures, and 'max_new_tokens'; 'omit' and 'rename' in the "
        "record change what is sent",
        402: "the account behind its key has to be paid for",
        413: "show it fewer or smaller pictures, or set 'max_picture_bytes' or 'max_pictures' in its record",
        422: "'omit' and 'rename' in its record change what is sent",
        429: "it limits requests; ask less often",
    }.get(status, "look at its log")


def _path_advice(path: str) -> str:
    """What is probably wrong with the path of a URL that was not found."""
    for end in ("/chat/completions", "/completions", "/responses", "/chat", "/messages"):
        if path.endswith(end):
            return f"'url' in its record must end before {end}, usually in /v1: the rest is added"
    if not re.search(r"/v\d|/openai|/api", path):
        return "'url' in its record has no /v1 at its end, which most servers want; check 'model' too"
    return "check 'url' (most servers want it to end in /v1) and 'model' in its record"


def retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks to wait, from now; 0 where it says nothing that can be read."""
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,18}", value):
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    if when.tzinfo is None:  # "-0000": UTC of unknown origin
        when = when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())
