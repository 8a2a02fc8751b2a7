"""Atomic writing: a file is replaced as a whole or stays as it was, whenever the process or the machine stops."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART = ".part"
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{12}" + re.escape(PART))


@contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """An empty file in the same folder to write to; it becomes ``path`` if the block ends without an error.

    The folder is made if need be. After an error the file is removed and ``path`` is as before. The name is different
    each time and hidden, so that several processes may write the same path; the last one wins.

    Args:
        mode: permissions of a new file before the process's umask; 0o600 for what is private.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}{PART}")
    temporary.touch(mode, exist_ok=False)
    try:
        yield temporary
        put_in_place(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sweep_parts(folder: Path) -> list[Path]:
    """Remove what killed processes left of files that ``replacing`` was writing in a folder, and return the paths.

    For a folder that one process writes: the unfinished file of another one would be lost.
    """
    left = [path for path in folder.glob(f".*{PART}") if _UNFINISHED.fullmatch(path.name) and path.is_file()]
    for path in left:
        path.unlink(missing_ok=True)
    return left


def write_bytes(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Replace a file's bytes; see ``replacing``."""
    with replacing(path, mode) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str, mode: int = 0o666) -> None:
    """Replace a file's text, in UTF-8 with the line ends of ``text``; see ``replacing``."""
    write_bytes(path, text.encode("utf-8"), mode)


def put_in_place(finished: Path, path: Path) -> None:
    """Bring a finished file to the disk and give it the name ``path`` in the same folder in one move."""
    sync(finished)
    os.replace(finished, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    if os.name != "posix" and path.is_dir():
        return  # Windows cannot open a folder
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
