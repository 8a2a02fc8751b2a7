"""JSON objects from files that somebody else wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .contents import HEAD, accident, check_is_file
from .kinds import AGAIN, WrongFileError, shown


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not valid JSON, or not an object; says what else the file is where that can be told.
    """
    check_is_file(path)
    content = path.read_bytes()
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        kind = accident(content[:HEAD])
        if kind is not None and kind.name != "a JSON text":
            raise WrongFileError(path, kind) from error
        raise ValueError(f"{shown(path)} is not valid JSON ({error}); {AGAIN}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{shown(path)}: expected a JSON object, got {type(value).__name__}; {AGAIN}")
    return value
