"""The turns that a chat node carries in a widget of its own, as JSON text.

    [{"role": "user", "text": "…", "images": ["<sha256>"], "task": "refine", "instruction": "a fox"},
     {"role": "assistant", "text": "… <gen_image> … </gen_image>"}]

``text`` is what the model read or wrote. ``images`` names pictures by their content, whose files stand elsewhere;
``task`` and ``instruction`` are how a turn came about, for the one who edits it, and mean nothing to the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from .conversation import MAX_TURNS, Picture, Turn

MAX_TRANSCRIPT = 4_000_000
"""Characters of the whole text."""

SHA256 = re.compile(r"[0-9a-f]{64}")


def read_transcript(text: str, find_picture: Callable[[str], Picture]) -> tuple[Turn, ...]:
    """The turns of a transcript; none for an empty text.

    Args:
        find_picture: a picture by its ``sha256``; may raise ``ValueError``.

    Raises:
        ValueError: the text is not such a document, or its turns do not alternate, the user first.
    """
    if not text.strip():
        return ()
    if len(text) > MAX_TRANSCRIPT:
        raise ValueError(f"'transcript' holds {len(text)} characters, at most {MAX_TRANSCRIPT} are allowed")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of 5,000 digits
        raise ValueError(
            f"'transcript' is not valid JSON: {error}; press Clear in the panel to begin anew"
        ) from error
    if not isinstance(document, list) or len(document) > MAX_TURNS:
        raise ValueError(
            f"'transcript' must be a list of at most {MAX_TURNS} turns; press Clear in the panel to begin anew"
        )
    turns = tuple(_turn(number, value, find_picture) for number, value in enumerate(document, 1))
    if len(turns) % 2:
        raise ValueError(
            "'transcript' must end with a turn of the assistant; press Clear in the panel to begin anew"
        )
    return turns


def _turn(number: int, value: Any, find_picture: Callable[[str], Picture]) -> Turn:
    role = "user" if number % 2 else "assistant"
    if not isinstance(value, dict) or value.get("role") != role:
        raise ValueError(
            f"turn {number} of 'transcript' must be one of the {role}; press Clear in the panel to begin anew"
        )
    images = value.get("images", [])
    if not isinstance(images, list) or not all(
        isinstance(one, str) and SHA256.fullmatch(one) for one in images
    ):
        raise ValueError(f"turn {number} of 'transcript' names a picture by something other than its sha256")
    text = value.get("text")
    if not isinstance(text, str):
        raise ValueError(f"turn {number} of 'transcript' has no text; press Clear in the panel to begin anew")
    return Turn(role, text, tuple(find_picture(one) for one in images))
