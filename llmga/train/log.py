"""Training log as JSON lines, and a plot of one of its columns."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files.writing import write_text

_log = logging.getLogger(__name__)


def append(path: Path, row: dict[str, Any]) -> None:
    """Append one row."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a log; a last line that a killed process left unfinished is skipped.

    Raises:
        ValueError: any other line is not JSON.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number} is not JSON: {line[:80]!r}") from error
    return rows


def drop_rows_after(path: Path, step: int) -> None:
    """Drop the rows after ``step`` (used on resume)."""
    if path.exists():
        kept = [row for row in read_log(path) if row["step"] <= step]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))


def resume(path: Path, step: int, damaged: Sequence[Path]) -> None:
    """Make a log ready for a run that goes on after ``step``, and say which ``damaged`` checkpoints are passed over.

    The rows behind ``step`` are dropped, since they will be written again; where only damaged checkpoints were left and the
    run starts anew, the old log is set aside under a name of its own.
    """
    for folder in damaged:
        _log.warning("the checkpoint %s is damaged and passed over", folder)
    if step or not damaged or not path.exists():
        drop_rows_after(path, step)
        return
    aside = next(
        name
        for i in itertools.count(1)
        if not (name := path.with_name(f"{path.stem}-before-{i}{path.suffix}")).exists()
    )
    path.rename(aside)
    _log.warning("no whole checkpoint is left and the run starts anew; its old log is now %s", aside)


def plot(path: Path, picture: Path, key: str = "loss", size: tuple[int, int] = (960, 540)) -> None:
    """Draw one column of a log over the steps, with its running mean, as PNG.

    Raises:
        ValueError: fewer than two rows have ``key``.
    """
    from PIL import Image, ImageDraw

    points = [(row["step"], row[key]) for row in read_log(path) if key in row]
    if len(points) < 2:
        raise ValueError(f"{path} has {len(points)} rows with {key!r}; a curve needs two")
    low, high = min(y for _, y in points), max(y for _, y in points)
    span = (high - low) or abs(high) or 1.0
    (first, _), (last, _) = points[0], points[-1]
    left, top, right, bottom = 84, 34, size[0] - 20, size[1] - 36

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (right - left) * (x - first) / max(last - first, 1),
            bottom - (bottom - top) * (y - low) / span,
        )

    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for i in range(5):
        y, x = low + span * i / 4, first + (last - first) * i / 4
        height, column = at(first, y)[1], at(x, low)[0]
        draw.line([(left, height), (right, height)], fill="#dddddd")
        draw.text((left - 8, height), f"{y:.4g}", fill="#444444", anchor="rm")
        draw.text((column, bottom + 8), f"{x:.0f}", fill="#444444", anchor="mt")
    draw.text((left, 10), f"{key} over steps: {path}", fill="#222222")
    draw.line([at(*point) for point in points], fill="#b8c9e8")
    draw.line([at(*point) for point in _running_mean(points)], fill="#1f4e9c", width=2)
    image.save(picture)


def _running_mean(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    keep = 1 - 1 / max(len(points) / 20, 1)
    mean = points[0][1]
    smooth = []
    for step, value in points:
        mean = keep * mean + (1 - keep) * value
        smooth.append((step, mean))
    return smooth
