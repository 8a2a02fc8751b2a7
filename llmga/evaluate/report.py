"""Results as text, as JSON, and as a sheet of pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..aligned import aligned
from ..files.writing import replacing, write_text
from ..images import to_pil
from .estimates import Estimate

Cell = Estimate | float | str
Rows = Mapping[str, Mapping[str, Cell]]
"""What was measured under each condition, by the names of both."""


def table(rows: Rows, columns: Sequence[str] | None = None, *, counts: bool = False) -> str:
    """Results as a table of text, a line for each condition; a result that a condition lacks stays empty.

    Args:
        columns: which results, in which order; by default all, as they first appear.
        counts: add to each estimate how many things it sums up.
    """
    names = list(columns or dict.fromkeys(name for row in rows.values() for name in row))
    lines = [["", *names]]
    for condition, row in rows.items():
        lines.append([condition, *(_cell(row[name], counts) if name in row else "" for name in names)])
    return aligned(lines)


def transposed(rows: Rows) -> dict[str, dict[str, Cell]]:
    """The same results by their own names first, for few conditions of many results."""
    names = dict.fromkeys(name for row in rows.values() for name in row)
    return {name: {condition: row[name] for condition, row in rows.items() if name in row} for name in names}


def _cell(cell: Cell, counts: bool) -> str:
    if isinstance(cell, Estimate):
        text = cell.text(3 if abs(cell.value) < 10 else 1)
        return f"{text} N {cell.count}" if counts else text
    return cell if isinstance(cell, str) else f"{cell:.2f}"


def plain(value: Any) -> Any:
    """A value in what JSON knows: data classes as objects, tuples as lists, paths as text; estimates without samples."""
    if is_dataclass(value) and not isinstance(value, type):
        kept = [f.name for f in fields(value) if not (isinstance(value, Estimate) and f.name == "samples")]
        return {name: plain(getattr(value, name)) for name in kept}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def write_json(path: Path, document: Any) -> None:
    """Replace a file of results in one move; its folder is made. ``document`` is anything that ``plain`` takes."""
    write_text(path, json.dumps(plain(document), indent=1))


def contact_sheet(rows: Sequence[torch.Tensor], path: Path, columns: int = 8) -> None:
    """Write pictures side by side, row below row, as one file; its folder is made.

    Args:
        rows: each (B, 3, H, W) in 0 .. 1, all of one H and W.
        columns: how many of the first pictures of each row are shown; all rows show as many as the shortest has.
    """
    shown = min(columns, *(len(row) for row in rows))
    lines = [torch.cat(list(row[:shown]), 2) for row in rows]  # (3, H, shown * W)
    (sheet,) = to_pil(torch.cat(lines, 1).permute(1, 2, 0)[None])
    kind = Image.registered_extensions()[path.suffix.lower()]
    with replacing(path) as temporary:
        sheet.save(temporary, format=kind)
