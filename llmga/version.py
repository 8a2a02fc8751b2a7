"""The version of this copy of the library; it is written down in pyproject.toml alone."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path


def find_version(root: Path | None = None) -> str:
    """The version from the pyproject.toml beside the package, or else from the metadata of the installed wheel.

    A custom node pack is a checkout and no distribution: its pyproject.toml is asked first, because a wheel that
    happens to be installed beside it may be another version.

    Args:
        root: the folder that holds the package; by default that of this file.

    Returns:
        For example "0.1.0"; "unknown" where there is neither.
    """
    path = (root or Path(__file__).parents[1]) / "pyproject.toml"
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        found = re.search(r'^version = "([^"]+)"', text, re.MULTILINE)
        if found and re.search(r'^name = "llmga"', text, re.MULTILINE):
            return found[1]
    try:
        return metadata.version("llmga")
    except metadata.PackageNotFoundError:
        return "unknown"
