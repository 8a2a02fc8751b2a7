"""Atomic writing: a file is replaced as a whole or stays as it was, whenever the process or the machine stops. A folder is
made as a whole or not at all."""

from __future__ import annotations

import errno
import glob
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART = ".part"
_STARTED = time.time()
_OWN = secrets.token_hex(3)
"""In the names of this process's temporary files."""
_TEMPORARY = re.compile(rf"\.[^/]{{1,240}}\.(?P<process>[0-9a-f]{{6}})[0-9a-f]{{6}}{re.escape(PART)}")
_swept: set[Path] = set()
_IDLE = 3600.0
"""Seconds that a process may work without writing into a folder of ``whole_folder``."""
_OS_ERROR = re.compile(r"\(os error (\d{1,5})\)")
_STEPS = {
    errno.ENOSPC: "the disk is full: make room there",
    errno.EDQUOT: "the disk quota is used up: make room there",
    errno.EFBIG: "the file is larger than is allowed there: raise the limit, or choose another disk",
    errno.EROFS: "the disk is read-only: make it writable, or choose another folder",
    errno.EACCES: "this user may not write there: change the folder's owner or rights, or choose another folder",
    errno.EPERM: "this user may not write there: change the folder's owner or rights, or choose another folder",
    errno.EIO: "the disk fails: check it, or choose another one",
}


@contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """An empty file in the same folder to write to; it becomes ``path`` if the block ends without an error.

    The folder is made if need be. After an error the file is removed and ``path`` is as before. The name is different
    each time and hidden, so that several processes may write the same path; the last one wins. What processes that were
    killed have left in the folder is removed first, once in each process.

    Args:
        mode: permissions of a new file before the process's umask; 0o600 for what is private.

    Raises:
        OSError: it cannot be written; what a full, read-only or forbidden disk raises names the file and the next step.
    """
    temporary = path.with_name(f".{path.name}.{_OWN}{secrets.token_hex(3)}{PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent not in _swept:
            sweep(path.parent)
        temporary.touch(mode, exist_ok=False)
        yield temporary
        put_in_place(temporary, path)
    except BaseException as error:
        _remove(temporary)
        refused = _refusal(error)
        if refused and _is_about(refused, path, temporary):
            raise OSError(refused.errno, what_to_do(refused), str(path)) from error
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside ``path`` to fill; it becomes ``path`` if the block ends without an error.

    After an error or Ctrl-C it is removed and ``path`` is as before. Its name is hidden and different each time; what a
    process that was killed has left for the same path is removed first.

    Raises:
        FileExistsError: ``path`` is there and holds something.
        OSError: it cannot be written; what a full, read-only or forbidden disk raises names the folder and the next step.
        ValueError: ``path`` is a disk of its own, which nothing can be moved to as a whole.
    """
    require_empty(path)
    place = path.resolve()
    if os.path.ismount(place):
        raise ValueError(
            f"{str(path)!r} is where a disk begins, and a folder that is finished cannot take its place; name a new folder "
            "in it"
        )
    temporary = place.with_name(f".{place.name}.{_OWN}{secrets.token_hex(3)}{PART}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _sweep_folders(place)
        temporary.mkdir()
        yield temporary
        for file in [*temporary.rglob("*"), temporary]:
            sync(file)
        if place.exists():
            require_empty(place)
            place.rmdir()
        os.replace(temporary, place)
        sync(place.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        refused = _refusal(error)
        if refused and refused.errno in _STEPS and _is_inside(refused, temporary):
            raise OSError(refused.errno, what_to_do(refused), str(path)) from error
        raise


def require_empty(folder: Path) -> None:
    """Raise ``FileExistsError`` where a folder to be made holds something already, or is a file."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "is not empty" if folder.is_dir() else "is a file"
        raise FileExistsError(f"{folder.name!r} {what}; choose another folder to write to")


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


def sweep(folder: Path, *, alone: bool = False) -> list[Path]:
    """Remove the temporary files that killed processes have left in a folder, and return their paths. It never raises.

    Only plain files with the hidden names of ``replacing`` are touched, last written before this process began: those of
    another process that is at work stay.

    Args:
        alone: no other process writes into this folder, so that everything unfinished goes.
    """
    _swept.add(folder)
    removed = []
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return []
    for entry in entries:
        match = _TEMPORARY.fullmatch(entry.name)
        if not match or (match["process"] == _OWN and not alone):
            continue
        try:
            found = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(found.st_mode) and (alone or found.st_mtime < _STARTED):
                os.unlink(entry.path)
                removed.append(Path(entry.path))
        except OSError:
            continue
    return removed


def _sweep_folders(path: Path) -> None:
    """Remove what killed processes have left of the folder ``path``: no other process has written there for an hour."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{PART}"):
        match = _TEMPORARY.fullmatch(left.name)
        try:
            if match and match["process"] != _OWN and left.is_dir() and not left.is_symlink():
                newest = max(one.stat().st_mtime for one in (left, *left.rglob("*")))
                if newest < _STARTED - _IDLE:
                    shutil.rmtree(left)
        except OSError:
            continue


def what_to_do(error: OSError) -> str:
    """Why a file cannot be written, and what the owner of the disk can do."""
    return _STEPS.get(error.errno or 0, error.strerror or type(error).__name__)


def _refusal(error: BaseException) -> OSError | None:
    """The error of the operating system that this is. safetensors writes its number into an error of a class of its own."""
    if isinstance(error, OSError):
        return error
    number = _OS_ERROR.search(str(error)) if type(error).__name__ == "SafetensorError" else None
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


def _is_about(error: OSError, path: Path, temporary: Path) -> bool:
    """Whether it is the writing that failed, and not something that the block read meanwhile."""
    named = {str(path), str(temporary), str(path.parent)}
    return error.errno in _STEPS and (error.filename is None or str(error.filename) in named)


def _is_inside(error: OSError, folder: Path) -> bool:
    """Whether an error is about a folder that is filled, and not about something that was read meanwhile."""
    if error.filename is None:
        return True
    named = Path(os.fsdecode(error.filename))
    return named in (folder.parent, folder) or folder in named.parents


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # a disk that fails; the error that led here says more
        pass
