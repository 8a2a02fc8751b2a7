"""The released JSON files: one record type per schema, a lazy reader and a writer.

A file is an array of objects. Opening it finds where each object lies and decodes none, so that a file of a
gigabyte costs seconds once and little memory; an object is decoded and checked when it is asked for. Other
fields than the ones below are ignored, as by the released loaders.

Source: LLMGA 7e32eb6, ``llava/datasets/*.py``; file names in its README.
"""

from __future__ import annotations

import json
import mmap
import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Generic, Literal, TypeVar, cast, overload

from ..files.writing import replacing

IMAGE_MARK = "<image>"

# Strings are skipped whole, so that a bracket inside one is none. A quote by itself is one that is never closed.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}"]', re.DOTALL)


@dataclass(frozen=True)
class Message:
    """One message as LLaVA writes it; the human's may hold ``<image>``."""

    speaker: Literal["human", "gpt"]
    value: str


@dataclass(frozen=True)
class Dialogue:
    """``llava_v1_5_mix665k.json`` and the ShareGPT files; ``image`` is None in a talk about no picture.

    ``system`` is what a first message from ``system`` says, as some tools write it: it stands in place of the family's own
    system text.
    """

    messages: tuple[Message, ...]
    image: str | None = None
    id: str | int | None = None
    system: str | None = None


@dataclass(frozen=True)
class Refinement:
    """``T2I/train.json``: a short (``ori_caption``) and a detailed caption (``caption``) of one picture."""

    image: str
    caption: str
    ori_caption: str


@dataclass(frozen=True)
class Caption:
    """``SG/train.json`` and ``inpainting/train.json``: a picture and its detailed caption."""

    image: str
    caption: str


@dataclass(frozen=True)
class Edit:
    """``Edit/train.json``. ``caption`` describes the picture before the edit; the released file lacks it."""

    image: str
    instruction: str
    new_caption: str
    caption: str | None = None


Record = Dialogue | Refinement | Caption | Edit
R = TypeVar("R", bound=Record)


class Records(Sequence[R], Generic[R]):
    """The records of a file, each decoded when asked for. It can be pickled, and holds no open file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an array of objects; on access, a record is not as its schema says. The
            message names file, record and field.
    """

    def __init__(self, path: Path, schema: type[R]) -> None:
        self.path = Path(path)
        self._schema = schema
        self._spans = _object_spans(self.path)  # start and end of each object, in bytes

    def __len__(self) -> int:
        return len(self._spans) // 2

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> list[R]: ...
    def __getitem__(self, index: int | slice) -> R | list[R]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        start, end = self._spans[2 * index : 2 * index + 2]
        with self.path.open("rb") as file:
            file.seek(start)
            text = file.read(end - start)
        return self._parsed(index, text)

    def scan(self) -> Iterator[R]:
        """Every record in the file's order, faster than by index; raises as access does."""
        with self.path.open("rb") as file:
            for index in range(len(self)):
                start, end = self._spans[2 * index : 2 * index + 2]
                file.seek(start)
                yield self._parsed(index, file.read(end - start))

    def _parsed(self, index: int, text: bytes) -> R:
        try:
            return _parse(self._schema, json.loads(text))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.path}, record {index}: {error}") from error


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write records as the released files hold them, one to a line; returns how many.

    The file appears whole or not at all.

    Raises:
        ValueError: a record would not be read back: a text is empty, or a path leads out of the folder.
    """
    path = Path(path)
    count = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write("[")
        for record in records:
            document = _document(record)
            try:
                _parse(type(record), document)
            except ValueError as error:
                raise ValueError(f"{path}, record {count}: {error}") from error
            file.write(",\n" if count else "\n")
            json.dump(document, file, ensure_ascii=False)
            count += 1
        file.write("\n]\n")
    return count


def check_image_path(value: object) -> str:
    """The value if it names a file inside whatever folder it is joined to.

    Only the words are looked at: a link that the owner of the folder put there may lead anywhere.

    Raises:
        ValueError: it is empty, absolute, holds ``..``, a backslash, a drive, or a control or invisible character;
            spaces of all widths are allowed.
    """
    if not isinstance(value, str) or not value or "\\" in value:
        raise ValueError(f"'image' must be a relative path with forward slashes, got {_shown(value)}")
    # Spaces of all widths are names' too: macOS writes a narrow one into those of its screenshots.
    if not all(sign.isprintable() or unicodedata.category(sign) == "Zs" for sign in value):
        raise ValueError(
            f"'image' must be a path without control or invisible characters, got {_shown(value)}"
        )
    path = PurePosixPath(value)
    if path.is_absolute() or PureWindowsPath(value).drive or ".." in path.parts:
        raise ValueError(f"'image' must stay inside the picture folder, got {_shown(value)}")
    return value


def _parse_dialogue(record: Mapping[str, Any]) -> Dialogue:
    identity = record.get("id")
    if not isinstance(identity, str | int | None):
        raise ValueError(f"'id' must be a string or a number, got {_shown(identity)}")
    # Tables that were exported write null where a record has no picture.
    image = None if record.get("image") is None else check_image_path(record["image"])
    items = record.get("conversations")
    if not isinstance(items, list) or not items:
        raise ValueError(f"'conversations' must be a list of messages, got {_shown(items)}")
    system, begin = record.get("system"), 0
    if isinstance(items[0], dict) and items[0].get("from") == "system":
        system, begin = items[0].get("value"), 1
    if not isinstance(system, str | None):
        raise ValueError(f"the system message must be a string, got {_shown(system)}")
    messages = tuple(
        _parse_message(f"conversations[{i}]", item) for i, item in enumerate(items[begin:], start=begin)
    )
    if not messages:
        raise ValueError("'conversations' holds a system message and nothing else")
    for i, (before, after) in enumerate(zip(messages, messages[1:], strict=False), start=begin + 1):
        if before.speaker == after.speaker:
            raise ValueError(f"'conversations[{i}].from' must take turns, got {after.speaker!r} twice")
    marks = sum(message.value.count(IMAGE_MARK) for message in messages if message.speaker == "human")
    if image and marks != 1:
        raise ValueError(f"'conversations' must hold {IMAGE_MARK} once, for 'image'; it does {marks} times")
    return Dialogue(messages, image, identity, system or None)


def _parse_message(where: str, item: object) -> Message:
    if not isinstance(item, dict) or item.get("from") not in ("human", "gpt"):
        raise ValueError(
            f"'{where}.from' must be 'human' or 'gpt' ('system' in the first message only), got {_shown(item)}"
        )
    if not isinstance(item.get("value"), str):
        raise ValueError(f"'{where}.value' must be a string, got {_shown(item.get('value'))}")
    return Message(item["from"], item["value"])


def _parse_flat(schema: type[Any], record: Mapping[str, Any]) -> Any:
    """A record whose fields are an image and texts."""
    values: dict[str, str] = {}
    for field in fields(schema):
        value = record.get(field.name)
        if field.name == "image":
            value = check_image_path(value)
        elif value is None and field.default is None:
            continue
        elif not isinstance(value, str) or not value.strip():
            raise ValueError(f"{field.name!r} must be a text that is not empty, got {_shown(value)}")
        values[field.name] = value
    return schema(**values)


def _parse(schema: type[R], record: Mapping[str, Any]) -> R:
    return cast(R, _parse_dialogue(record) if schema is Dialogue else _parse_flat(schema, record))


def _document(record: Record) -> dict[str, Any]:
    document = {field.name: getattr(record, field.name) for field in fields(record)}
    if isinstance(record, Dialogue):
        del document["messages"]
        document["conversations"] = [{"from": item.speaker, "value": item.value} for item in record.messages]
    return {name: value for name, value in document.items() if value is not None}


def _object_spans(path: Path) -> array[int]:
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; it must hold a json array of objects")
    spans = array("q")
    depth, start, between = 0, 0, 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for token in _TOKEN.finditer(data):
            kind = token[0]
            if kind == b'"':
                break
            if depth < 2:  # whatever lies between two records
                gap = data[between : token.start()].strip().removeprefix(b"\xef\xbb\xbf")
                expected = b"," if depth and spans and kind == b"{" else b""
                if (depth, kind) not in ((0, b"["), (1, b"{"), (1, b"]")) or gap != expected:
                    raise ValueError(
                        f"{path} must hold an array of objects; byte {between} begins another thing"
                    )
            if kind in (b"[", b"{"):
                depth += 1
                if depth == 2:
                    start = token.start()
            elif kind in (b"]", b"}"):
                depth -= 1
                if depth == 1:
                    spans.extend((start, token.end()))
            if depth < 2:
                between = token.end()
            if depth == 0:
                if data[between:].strip():
                    raise ValueError(f"{path} goes on after its array, at byte {between}")
                return spans
    raise ValueError(f"{path} is cut off: its array is not closed")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"
