"""An index of pictures: embeddings in memory-mapped safetensors, and the pictures' names beside them in JSON.

A folder holds ``index.json`` and parts of up to ``ROWS_PER_PART`` rows, ``part-00000.safetensors`` and ``part-00000.json``.
A part is whole once its safetensors file is there, so that a build that was stopped goes on behind its last part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..files.header import read_header
from ..files.json_files import read_object
from ..files.kinds import AGAIN, shown
from ..files.tensors import read_some
from ..files.writing import replacing, whole_folder, write_text
from .answer import Match

FORMAT, INDEX_VERSION = "llmga-picture-index", 1
ROWS_PER_PART = 512
INDEX_FILE = "index.json"
_PART = re.compile(r"part-(\d{5,7})\.safetensors")
_BLOCK = 65536  # rows of one product; 64 MB at a width of 256

Entry = tuple[str, int, int]
"""A picture: its path below the pictures' folder with "/" between, its size in bytes and its time of change in ns."""


class PictureIndex:
    """Embeddings of length 1 and the paths of their pictures; exact search by cosine.

    Attributes:
        model: what the embeddings were made with; "" if that is not known.
        entries: a picture for each row.
        gone: rows whose picture was removed or changed; they are never found.
    """

    def __init__(
        self, model: str, width: int, parts: list[torch.Tensor], entries: list[Entry], gone: set[int]
    ) -> None:
        self.model, self.width = model, width
        self.entries, self.gone = entries, gone
        self._parts = parts
        self._faiss: Any = None

    @classmethod
    def open(cls, folder: str | Path) -> PictureIndex:
        """The index of a folder, memory-mapped.

        Raises:
            FileNotFoundError: the folder holds no index.
            ValueError: it is damaged, or of another version.
        """
        folder = Path(folder)
        if not (folder / INDEX_FILE).is_file():
            raise FileNotFoundError(
                f"{folder.name!r} holds no index of pictures; build one with LLMGA Picture Index"
            )
        head = read_head(folder)
        parts: list[torch.Tensor] = []
        entries: list[Entry] = []
        for path in part_files(folder):
            rows, found = _read_part(path, head["width"])
            parts.append(rows)
            entries += found
        gone = {row for row in head["gone"] if row < len(entries)}
        return cls(head["model"], head["width"], parts, entries, gone)

    def __len__(self) -> int:
        """How many pictures can be found."""
        return len(self.entries) - len(self.gone)

    def search(self, query: torch.Tensor, count: int, without: Sequence[int] = ()) -> list[Match]:
        """The pictures whose embeddings are the nearest to ``query`` (width,), the best first.

        The search is exact: every row is compared, in blocks. Of equal scores the lower row comes first.

        Args:
            without: rows that are not to be found.

        Raises:
            ValueError: the query has another width.
        """
        if query.shape != (self.width,):
            raise ValueError(
                f"the index holds embeddings of {self.width} numbers, the query of this GILL has {tuple(query.shape)}; "
                "connect to 'index' one that was built with this GILL"
            )
        query = torch.nn.functional.normalize(query.float(), dim=0)
        hidden = self.gone | set(without)
        scores, rows = self._nearest(query, count + len(hidden))
        found = [
            Match(row, self.entries[row][0], score)
            for score, row in zip(scores, rows, strict=True)
            if row not in hidden
        ]
        return found[:count]

    def _nearest(self, query: torch.Tensor, count: int) -> tuple[list[float], list[int]]:
        if self._faiss is not None:
            scores, rows = self._faiss.search(query[None].numpy(), min(count, len(self.entries)))
            return scores[0].tolist(), rows[0].tolist()
        best: list[tuple[float, int]] = []
        start = 0
        for part in self._blocks():
            scores = part @ query
            top = scores.topk(min(count, len(scores)))
            best += [(-float(s), start + int(i)) for s, i in zip(top.values, top.indices, strict=True)]
            best = sorted(best)[:count]
            start += len(part)
        return [-score for score, _ in best], [row for _, row in best]

    def _blocks(self) -> Sequence[torch.Tensor]:
        """The rows in order; small parts are joined, so that a product is worth its call."""
        joined: list[torch.Tensor] = []
        waiting: list[torch.Tensor] = []
        for part in self._parts:
            waiting.append(part)
            if sum(map(len, waiting)) >= _BLOCK:
                joined.append(torch.cat(waiting))
                waiting = []
        if waiting:
            joined.append(torch.cat(waiting))
        return joined

    def use_faiss(self) -> bool:
        """Search with FAISS, exactly as well, where it is installed; returns whether it is. It holds all rows in memory."""
        try:
            import faiss  # pyright: ignore[reportMissingImports] - optional
        except ImportError:
            return False
        self._faiss = faiss.IndexFlatIP(self.width)
        for part in self._parts:
            self._faiss.add(part.numpy())
        return True


def write_index(folder: Path, paths: Sequence[str], embeddings: torch.Tensor, model: str = "") -> None:
    """Write an index of embeddings (N, width) that are there already; they are scaled to length 1.

    Args:
        folder: one that is not there yet, or empty; nothing is left of one that is stopped.
        model: see ``GILLParts.embedding_key``; "" where it is not known.

    Raises:
        FileExistsError: the folder holds something.
        ValueError: there is nothing to write.
    """
    if embeddings.ndim != 2 or len(embeddings) != len(paths) or not len(paths):
        raise ValueError(
            f"{len(paths)} paths and embeddings of the shape {tuple(embeddings.shape)} do not fit each other"
        )
    with whole_folder(folder) as made:
        for number, start in enumerate(range(0, len(paths), ROWS_PER_PART)):
            end = start + ROWS_PER_PART
            write_part(made, number, [(path, 0, 0) for path in paths[start:end]], embeddings[start:end])
        write_head(made, model, embeddings.shape[1], ())


def write_part(folder: Path, number: int, entries: Sequence[Entry], embeddings: torch.Tensor) -> None:
    """Write one part: the names first, for the safetensors file makes it whole."""
    from safetensors.torch import save_file

    path = folder / f"part-{number:05d}.safetensors"
    write_text(path.with_suffix(".json"), json.dumps({"pictures": [list(entry) for entry in entries]}))
    rows = torch.nn.functional.normalize(embeddings.float(), dim=1).cpu().contiguous()
    with replacing(path) as temporary:
        save_file({"embeddings": rows}, temporary)


def write_head(
    folder: Path, model: str, width: int, gone: Sequence[int], probe: Sequence[float] | None = None
) -> None:
    """Write ``index.json``; ``probe`` is the embedding of a picture that is the same for every index."""
    head = {"format": FORMAT, "version": INDEX_VERSION, "model": model, "width": width, "gone": sorted(gone)}
    probed = {} if probe is None else {"probe": [round(value, 6) for value in probe]}
    write_text(folder / INDEX_FILE, json.dumps({**head, **probed}))


def read_head(folder: Path) -> dict[str, Any]:
    """``index.json``, checked.

    Raises:
        ValueError: it is not that of an index, or of another version.
    """
    path = folder / INDEX_FILE
    head = read_object(path)
    if head.get("format") != FORMAT:
        raise ValueError(f"{shown(path)} does not belong to an index of pictures; choose another folder")
    if head.get("version") != INDEX_VERSION:
        raise ValueError(
            f"{shown(path)} has the version {head.get('version')!r}, this LLMGA reads {INDEX_VERSION}; build it anew"
        )
    width, gone = head.get("width"), head.get("gone")
    sound = (
        isinstance(width, int) and width > 0 and isinstance(head.get("model"), str) and isinstance(gone, list)
    )
    if "probe" in head:
        probe = head["probe"]
        sound = sound and isinstance(probe, list) and len(probe) == width
        sound = sound and all(isinstance(value, int | float) for value in probe)
    if not sound or not all(type(row) is int and row >= 0 for row in gone or ()):
        raise ValueError(f"{shown(path)} is damaged; delete the folder and build it anew")
    return head


def part_files(folder: Path) -> list[Path]:
    """The whole parts in their order.

    Raises:
        ValueError: one in between is missing, so that rows would be counted wrong.
    """
    found = sorted(path for path in folder.iterdir() if _PART.fullmatch(path.name))
    for number, path in enumerate(found):
        if path.name != f"part-{number:05d}.safetensors":
            raise ValueError(
                f"{folder.name!r} lacks part-{number:05d}.safetensors; delete the folder and build it anew"
            )
    return found


def _read_part(path: Path, width: int) -> tuple[torch.Tensor, list[Entry]]:
    header = read_header(path)
    weight = header.get("embeddings")
    if (
        header.keys() != {"embeddings"}
        or weight is None
        or weight.dtype != "F32"
        or weight.shape[1:] != (width,)
    ):
        raise ValueError(
            f"{shown(path)} does not hold float32 embeddings of {width} numbers; delete the folder and build it anew"
        )
    pictures = read_object(path.with_suffix(".json")).get("pictures")
    entries = [_entry(one) for one in pictures] if isinstance(pictures, list) else []
    if len(entries) != weight.shape[0] or None in entries:
        raise ValueError(
            f"{shown(path.with_suffix('.json'))} does not name the {weight.shape[0]} pictures of its embeddings; "
            f"{AGAIN}, or delete the folder and build it anew"
        )
    return read_some(path, ["embeddings"])["embeddings"], [one for one in entries if one is not None]


def _entry(value: Any) -> Entry | None:
    if (
        isinstance(value, list)
        and len(value) == 3
        and isinstance(value[0], str)
        and all(type(v) is int for v in value[1:])
    ):
        return value[0], value[1], value[2]
    return None
