"""Folders of tiny language models, and changes to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from miniworld.models.random_language import write_tiny_llava, write_tiny_text


def edit_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def write_two(root: Path) -> dict[str, Path]:
    """One that sees pictures, and one that does not."""
    return {
        "llava": write_tiny_llava(root / "tiny-llava", seed=1),
        "text": write_tiny_text(root / "tiny-text", seed=1),
    }
