"""JSON objects from files that somebody else wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .header import damaged, foreign_kind


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file; ``ValueError`` says what else the file is."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        with path.open("rb") as file:
            cause = foreign_kind(file.read(64)) or f"no JSON ({error}); download it again"
        raise ValueError(damaged(path, cause)) from error
    if not isinstance(value, dict):
        raise ValueError(damaged(path, f"a JSON {type(value).__name__} and no object; download it again"))
    return value
