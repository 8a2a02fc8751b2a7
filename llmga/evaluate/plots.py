"""Plots of estimates as PNG, drawn with Pillow alone: lines over an order of figures, and a bar of error for each row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from ..files.writing import replacing
from .estimates import Estimate
from .paper import LOWER

COLOURS = ("#1f4e9c", "#b5651d", "#3f7d4a", "#8b3a62", "#5b5b5b", "#2a8c8c", "#a08030")
"""Of lines, in the order of the rows."""
_INK, _GREY = "#222222", "#dddddd"
_ROW, _PANEL, _HEAD, _LINE = 26, 300, 44, 16


def plot_lines(
    series: Mapping[str, Sequence[Estimate]],
    path: Path,
    title: str,
    ticks: Sequence[str],
    axis: str = "",
    limits: tuple[float, float] | None = None,
    size: tuple[int, int] = (960, 540),
) -> None:
    """Draw a line for each series, with a bar of one standard error up and down at each point.

    Args:
        ticks: what the points are called, below them; a series may end before the last.
        axis: what they are, in a word.
        limits: of the values; by default those that are drawn.
    """
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = 70, 40, size[0] - 190, size[1] - 50
    low, high = limits or _limits([value for values in series.values() for value in values])

    def at(point: int, value: float) -> tuple[float, float]:
        y = bottom - (bottom - top) * (value - low) / (high - low)
        return left + (right - left) * point / max(len(ticks) - 1, 1), y

    for fifth in range(6):
        value = low + (high - low) * fifth / 5
        draw.line([at(0, value), (right, at(0, value)[1])], fill=_GREY)
        draw.text((left - 8, at(0, value)[1]), f"{value:.3g}", fill=_INK, anchor="rm")
    for point, tick in enumerate(ticks):
        draw.text((at(point, low)[0], bottom + 10), tick, fill=_INK, anchor="mt")
    draw.text(((left + right) / 2, size[1] - 18), axis, fill=_INK, anchor="mm")
    draw.text((left, 12), title, fill=_INK)
    for number, (name, values) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        known = [(i, value) for i, value in enumerate(values) if not math.isnan(value.value)]
        draw.line([at(i, value.value) for i, value in known], fill=colour, width=2)
        for i, value in known:
            error = 0.0 if math.isnan(value.error) else value.error
            x, y = at(i, value.value)
            draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=colour)
            draw.line([at(i, value.value - error), at(i, value.value + error)], fill=colour, width=2)
        draw.text((right + 20, top + 22 * number), name, fill=colour)
    _save(image, path)


def plot_rows(rows: Mapping[str, Mapping[str, Estimate]], metrics: Sequence[str], path: Path) -> None:
    """Draw a point with a bar of one standard error for each row, a panel for each metric."""
    names = 20 + 7 * max(map(len, rows))
    image = Image.new("RGB", (names + _PANEL * len(metrics), _HEAD + _ROW * len(rows) + _LINE), "white")
    draw = ImageDraw.Draw(image)
    for number, name in enumerate(rows):
        draw.text((names - 10, _HEAD + _ROW * (number + 0.5)), name, fill=_INK, anchor="rm")
    for panel, metric in enumerate(metrics):
        _panel(draw, rows, metric, names + _PANEL * panel)
    _save(image, path)


def _panel(
    draw: ImageDraw.ImageDraw, rows: Mapping[str, Mapping[str, Estimate]], metric: str, start: int
) -> None:
    found = {i: row[metric] for i, row in enumerate(rows.values()) if metric in row}
    found = {i: value for i, value in found.items() if not math.isnan(value.value)}
    better = "less is better" if metric.partition(":")[0] in LOWER else "more is better"
    draw.text((start + 10, 6), f"{metric} ({better})", fill=_INK)
    if not found:
        return
    low, high = _limits(list(found.values()))
    left, right, bottom = start + 20, start + _PANEL - 30, _HEAD + _ROW * len(rows)

    def x(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    for value in (low, (low + high) / 2, high):
        draw.line([(x(value), _HEAD - 4), (x(value), bottom)], fill=_GREY)
        draw.text((x(value), bottom + 2), f"{value:.3g}", fill=_INK, anchor="mt")
    for number, value in found.items():
        y, error = _HEAD + _ROW * (number + 0.5), 0.0 if math.isnan(value.error) else value.error
        colour = COLOURS[number % len(COLOURS)]
        draw.line([(x(value.value - error), y), (x(value.value + error), y)], fill=colour, width=2)
        draw.ellipse([x(value.value) - 4, y - 4, x(value.value) + 4, y + 4], fill=colour)


def _limits(values: Sequence[Estimate]) -> tuple[float, float]:
    """A range that holds all estimates with their errors, a little wider."""
    ends = [
        value.value + sign * (0.0 if math.isnan(value.error) else value.error)
        for value in values
        if not math.isnan(value.value)
        for sign in (-1, 1)
    ]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    room = (high - low) * 0.08 or abs(high) * 0.08 or 1.0
    return low - room, high + room


def _save(image: Image.Image, path: Path) -> None:
    with replacing(path) as temporary:
        image.quantize(32).save(temporary, "PNG", optimize=True)
