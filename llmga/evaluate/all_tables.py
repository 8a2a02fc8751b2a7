"""Every table of a preset in one run: what can be measured here is, what cannot is listed with its reason, on one page."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ..chat.engines.endpoint import EndpointError
from ..files.json_files import read_object
from ..files.writing import write_text
from .comfyui_servers import ServersFailedError
from .data import DataConfig
from .page import PageTable, write_page
from .results import TableResult
from .stages import Row

MINUTES_FILE = "minutes.json"
"""In the output: by task the minutes that it took, over all runs."""


class Measure(Protocol):
    """Runs a task into a folder, and returns its results."""

    def __call__(self, task: str, config: Any, output: Path) -> list[TableResult]: ...


@dataclass(frozen=True)
class PresetTask:
    """One task of a preset, as it can be run here.

    Args:
        config: None if no row is left.
        left_out: of each row that is not, why.
        minutes: of one CPU core, by what the preset says; 0 if it says nothing.
    """

    task: str
    title: str
    config: Any
    claims: Sequence[Any]
    left_out: tuple[str, ...]
    minutes: float


def preset_task(task: str, title: str, config: Any, count: int | None) -> PresetTask:
    """A task with so many items of each set, and without the rows whose files are missing."""
    smaller = with_count(config, count) if count else config
    kept, left_out = without_missing(smaller)
    share = _items(smaller) / _items(config) if count and _items(config) else 1.0
    share *= 1 - len(left_out) / len((config if hasattr(config, "rows") else config.t2i).rows)
    return PresetTask(task, title, kept, config.claims, tuple(left_out), config.minutes * share)


def run_all(
    tasks: Sequence[PresetTask],
    output: Path,
    measure: Measure,
    page: Path | None,
    command: str,
    alone: bool = True,
) -> list[str]:
    """Run tasks one after the other, and write the page of all; a task that fails does not stop the others.

    Args:
        page: written after each task; None for a process that writes none.
        alone: False for one of several processes, which a failure stops: the others would wait for it without end.

    Returns:
        A line for each task that failed, other than for a missing file.
    """
    say = _say if page is not None else _silent
    _say_costs(tasks, say, alone)
    failed: list[str] = []
    tables: list[PageTable] = []
    for one in tasks:
        results: list[TableResult] = []
        left_out = list(one.left_out)
        start = time.monotonic()
        try:
            if one.config is not None:
                results = measure(one.task, one.config, output / one.task)
        except (FileNotFoundError, ModuleNotFoundError) as error:
            if not alone:
                raise
            left_out.append(f"the whole table: {error}")
        except (ValueError, EndpointError, ServersFailedError) as error:
            if not alone:
                raise
            left_out.append(f"the whole table: {error}")
            failed.append(f"{one.task}: {error}")
        for line in left_out:
            say(f"{one.task}: left out {line}")
        minutes = _add_minutes(output / MINUTES_FILE, one.task, start) if page else 0.0
        tables.append(PageTable(one.title, results, one.claims, left_out, minutes))
        if page is not None:
            write_page(page, tables, command)
    return failed


def with_count(config: Any, count: int) -> Any:
    """A configuration whose evaluation sets have at most so many items."""
    if isinstance(config, DataConfig):
        return replace(config, count=count if config.count is None else min(count, config.count))
    return _mapped(config, lambda value: with_count(value, count))


def without_missing(config: Any) -> tuple[Any, list[str]]:
    """A configuration without the rows that name files which are not there, and a line for each of these rows.

    Returns:
        None in the configuration's place if no row is left.
    """
    parts = [config] if hasattr(config, "rows") else [config.t2i, config.fill]
    reasons = {row.name: missing for part in parts for row in part.rows if (missing := missing_file(row))}
    if len(reasons) == len(parts[0].rows):
        return None, [f"{name}: {reason}" for name, reason in reasons.items()]

    def kept(part: Any) -> Any:
        return replace(part, rows=tuple(row for row in part.rows if row.name not in reasons))

    whole = (
        kept(config) if hasattr(config, "rows") else replace(config, t2i=kept(parts[0]), fill=kept(parts[1]))
    )
    return whole, [f"{name}: {reason}" for name, reason in reasons.items()]


def missing_file(row: Row) -> str:
    """What a row names and is not there, as a sentence; empty if nothing is missing."""
    embedder, painter = row.embedder, row.painter
    named = {
        "embedder.language": embedder.language,
        "embedder.head": embedder.head,
        "embedder.vision": embedder.vision,
    }
    named["restorer"] = row.restorer
    kind, _, path = row.chat.engine.partition(":")
    if kind == "folder" and not embedder.kind:
        named["chat.engine"] = path
    if painter.kind in ("diffusers", "scene"):
        named |= {"painter.base": painter.base, "painter.unet": painter.unet}
    gone = next(
        (
            f"{value} ({key}) does not exist"
            for key, value in named.items()
            if value and not Path(value).exists()
        ),
        "",
    )
    return gone


def _mapped(config: Any, change: Callable[[Any], Any]) -> Any:
    """A dataclass with its dataclasses, and those in its tuples, changed."""
    if isinstance(config, tuple):
        return tuple(_mapped(item, change) if isinstance(item, tuple) else change(item) for item in config)
    if not is_dataclass(config) or isinstance(config, type):
        return config
    return replace(config, **{field.name: change(getattr(config, field.name)) for field in fields(config)})


def _items(config: Any) -> int:
    """The largest number of items that a set of the configuration has; 0 where none says."""
    if isinstance(config, DataConfig):
        return config.count or 0
    inner = config if isinstance(config, tuple) else ()
    if is_dataclass(config) and not isinstance(config, type):
        inner = tuple(getattr(config, field.name) for field in fields(config))
    return max((_items(value) for value in inner), default=0)


def _say_costs(tasks: Sequence[PresetTask], say: Callable[[str], object], alone: bool) -> None:
    known = [one for one in tasks if one.minutes and one.config is not None]
    for one in tasks:
        cost = f"about {max(one.minutes, 1):.0f} minutes" if one.minutes else "not known beforehand"
        say(f"{one.task}: {cost if one.config is not None else 'cannot be run'} ({one.title})")
    if known:
        total = sum(one.minutes for one in known)
        here = "this is one process" if alone else "shared by several processes"
        say(f"together about {total:.0f} minutes of one core, {here}; what was done is not done again")


def _add_minutes(path: Path, task: str, start: float) -> float:
    spent: dict[str, Any] = read_object(path) if path.is_file() else {}
    spent[task] = round(float(spent.get(task, 0.0)) + (time.monotonic() - start) / 60, 2)
    write_text(path, json.dumps(spent, indent=1) + "\n")
    return spent[task]


def _say(line: str) -> None:
    sys.stderr.write(f"llmga evaluate: {line}\n")


def _silent(line: str) -> None:
    pass
