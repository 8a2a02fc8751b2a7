"""On-disk tables of tensors in safetensors shards: written once, resumable, memory-mapped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..files.writing import PART, replacing, write_text

ROWS_PER_SHARD = 1024
"""Rows in one file."""

TableRows = dict[str, torch.Tensor]


class Table:
    """Columns of equal length, either whole on a device or memory-mapped from disk."""

    def __init__(self, shards: list[TableRows], rows_per_shard: int) -> None:
        self._shards = shards
        self._size = rows_per_shard

    def to(self, device: torch.device) -> Table:
        """The same table, all of it in the memory of ``device``."""
        columns = {
            name: torch.cat([shard[name] for shard in self._shards]).to(device) for name in self._shards[0]
        }
        return Table([columns], sum(len(next(iter(shard.values()))) for shard in self._shards))

    def take(self, rows: torch.Tensor, device: torch.device) -> TableRows:
        """The rows (n,) of all columns, on ``device``."""
        if len(self._shards) == 1:
            shard = self._shards[0]
            return {
                name: column.index_select(0, rows.to(column.device)).to(device)
                for name, column in shard.items()
            }
        places = [divmod(row, self._size) for row in rows.tolist()]
        return {
            name: torch.stack([self._shards[shard][name][offset] for shard, offset in places]).to(device)
            for name in self._shards[0]
        }


def cache_folder(root: Path, inputs: Mapping[str, Any]) -> Path:
    """The folder under ``root`` for what these inputs and settings give; its ``manifest.json`` names them."""
    text = json.dumps(inputs, sort_keys=True, indent=1)
    folder = root / hashlib.sha256(text.encode()).hexdigest()[:20]
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "manifest.json").exists():
        write_text(folder / "manifest.json", text)
    return folder


def write_rows(path: Path, rows: TableRows) -> None:
    """Write one safetensors file, whole or not at all."""
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file({key: value.cpu().contiguous() for key, value in rows.items()}, temporary)


def fill(
    folder: Path,
    name: str,
    count: int,
    make: Callable[[int, int], TableRows],
    rank: int = 0,
    world: int = 1,
) -> None:
    """Write the missing shards of a table, every ``world``-th of them; ``make(start, stop)`` gives rows."""
    from tqdm import tqdm

    shards = range(rank, -(-count // ROWS_PER_SHARD), world)
    for shard in tqdm(shards, desc=f"cache {name}", unit="shard", disable=None if rank == 0 else True):
        path = _path(folder, name, shard)
        if not path.exists():
            for left in folder.glob(
                f".{path.name}.*{PART}"
            ):  # by a run that was killed; a shard has one writer
                left.unlink()
            write_rows(path, make(shard * ROWS_PER_SHARD, min((shard + 1) * ROWS_PER_SHARD, count)))


def open_table(folder: Path, name: str, count: int) -> Table:
    """A filled table, memory-mapped."""
    from safetensors.torch import load_file

    return Table(
        [load_file(_path(folder, name, shard)) for shard in range(-(-count // ROWS_PER_SHARD))],
        ROWS_PER_SHARD,
    )


def _path(folder: Path, name: str, shard: int) -> Path:
    return folder / f"{name}-{shard:05d}.safetensors"
