"""Names of files after what these depend on: values, and what is in the files that the values name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

_DIGITS = 16


def cache_key(*values: Any) -> str:
    """16 hexadecimal digits that depend on data classes, numbers, texts, paths, and lists of them.

    A path counts by what its file holds, or all files of its folder, and not by its name: the same files elsewhere give the
    same key, others at the same place another one. A data class may have a property ``depends_on``, which counts beside its
    fields: this is how a configuration that names a file in words says so.

    Raises:
        FileNotFoundError: there is nothing at a path.
    """
    text = json.dumps(_as_json([*values]), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def contents(path: Path) -> str:
    """The SHA-256 of a file; of a folder that of all files in it, with their names.

    Names that begin with a dot are left out, and links to nothing. A file is read once in a process, as long as its size and
    its time stay what they were.

    Raises:
        FileNotFoundError: there is nothing at this path.
    """
    return _contents(path, frozenset())


def existing(*names: str) -> tuple[Path, ...]:
    """Those of some names that are files or folders here, as paths."""
    return tuple(Path(name) for name in names if name and Path(name).exists())


def digest_of_files(paths: Iterable[Path]) -> str:
    """The SHA-256 of what files hold, one behind the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _contents(path: Path, above: frozenset[Path]) -> str:
    """``contents`` of what lies in the folders ``above``, into which no link leads back."""
    resolved = path.resolve()
    if not path.is_dir():
        state = path.stat()
        return _of_file(resolved, state.st_size, state.st_mtime_ns)
    within = above | {resolved}
    inside = sorted(one for one in path.iterdir() if not one.name.startswith("."))
    found = {
        one.name: _contents(one, within) for one in inside if one.exists() and one.resolve() not in within
    }
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


@cache
def _of_file(path: Path, size: int, time_ns: int) -> str:
    return digest_of_files([path])


def _as_json(value: Any) -> Any:
    """A value in what JSON knows."""
    if is_dataclass(value) and not isinstance(value, type):
        plain = {field.name: _as_json(getattr(value, field.name)) for field in fields(value)}
        more = getattr(value, "depends_on", None)
        return plain if more is None else {**plain, "depends_on": _as_json(more)}
    if isinstance(value, dict):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    return contents(value) if isinstance(value, Path) else value
