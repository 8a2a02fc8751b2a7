"""A real file system that is soon full, or read-only."""

from __future__ import annotations

import os
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: int, read_only: bool = False) -> Iterator[Path]:
    """A tmpfs of ``size`` bytes over a folder, which is made; skips the test where it cannot be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={size},mode=700" + (",ro" if read_only else "")
    command = ["mount", "-t", "tmpfs", "-o", options, "llmga-test", str(folder)]
    if os.name != "posix" or os.geteuid() != 0:
        skip("only root can mount a small disk")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def skip(reason: str) -> None:
    warnings.warn(f"disk full is not tested: {reason}", stacklevel=2)
    pytest.skip(reason)
