"""How a call ended: well, with an error that names an input, with a clear but unnamed one, or with a bare exception."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable
from pathlib import Path

CLEAR = (
    "ValueError",
    "FileNotFoundError",
    "ConnectionError",
    "EndpointError",
    "ScenePlanError",
    "TemplateLimit",
    "UnreadableReply",
    "WrongFileError",
)
"""Names of exceptions that are written for a person, by their last part: three of Python's, and those of the library."""
# A library's own ValueErrors that reach a person are as bare as its TypeErrors.
_ENDPOINT = re.compile(
    r"^endpoint '[^']+' "
)  # the record is what stands in the input "engine", under its owner's name
_INTERNAL = re.compile(
    r"not enough values to unpack|too many values to unpack|invalid literal for|could not convert string|cannot convert|"
    r"index out of range|ambiguous|TextEncodeInput|unsupported operand|object is not|has no attribute"
)


def classify(kind: str, message: str, names: Iterable[str]) -> str:
    """One of "named", "unnamed" and "bare".

    Args:
        kind: the exception's type, with or without its module.
        message: its text.
        names: of the inputs that an error may be about.
    """
    last = kind.rpartition(".")[2]
    if last not in CLEAR or not message.strip() or _INTERNAL.search(message):
        return "bare"
    if last == "EndpointError" and _ENDPOINT.match(message):
        return "named"
    return "named" if any(re.search(rf"\b{re.escape(name)}\b", message) for name in names) else "unnamed"


def place_of(error: BaseException, within: Iterable[Path]) -> str:
    """The exception's type and the innermost line of the traceback below one of the folders, as "Type at file:line"."""
    roots = [str(root) for root in within]
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if any(frame.filename.startswith(root) for root in roots)]
    frame = (ours or frames or [None])[-1]
    if frame is None:
        return type(error).__name__
    return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno} ({frame.name})"
