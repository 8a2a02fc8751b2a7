"""RFBench: prompts of nine sub-categories, and their scores by category with errors."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .estimates import Estimate, mean
from .rfbench_prompts import GROUPS, OWN_PROMPTS

PICTURES = 4
"""Pictures of a prompt."""
COLUMNS = ("id", "prompt", "group", "subcategory")
MAX_ROWS = 10_000


@dataclass(frozen=True)
class BenchPrompt:
    """One prompt of the benchmark."""

    id: str
    prompt: str
    group: str
    subcategory: str
    plan: str = ""
    """The plan of its scene as JSON, where the set has one; a chat engine is then not asked for it."""


def own_prompts() -> list[BenchPrompt]:
    """Our own prompts, twelve for each sub-category; their ids are ``subcategory-01`` and on."""
    return [
        BenchPrompt(f"{name}-{number:02}", text, GROUPS[name], name)
        for name, texts in OWN_PROMPTS.items()
        for number, text in enumerate(texts, 1)
    ]


def load_prompts(path: Path) -> list[BenchPrompt]:
    """Read a list such as the published one: UTF-8 CSV with the columns ``id, prompt, group, subcategory``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing or stands there twice, a row is incomplete or has more values than there are
            columns, an id comes twice, a sub-category is named as a group, or there are no or too many rows; the message
            names the line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        return _prompts(path, reader)
    except csv.Error as error:
        raise ValueError(f"{path}, after line {reader.line_num}: {error}") from error


def _prompts(path: Path, reader: csv.DictReader[str]) -> list[BenchPrompt]:
    columns = [*(reader.fieldnames or ())]
    missing = [name for name in COLUMNS if columns.count(name) != 1]
    if missing:
        raise ValueError(
            f"{path} must have the columns {', '.join(COLUMNS)}, once each; it lacks {', '.join(missing)}, or has it "
            f"twice: its first line is {','.join(columns)[:80]!r}"
        )
    found: dict[str, BenchPrompt] = {}
    for row in reader:
        if None in row:
            raise ValueError(
                f"{path}, line {reader.line_num}: it has {len(columns) + len(row[None])} values for {len(columns)} "
                'columns; put a prompt with commas into "quotes"'
            )
        values = [" ".join((row[name] or "").split()) for name in COLUMNS]
        if not all(values):
            raise ValueError(
                f"{path}, line {reader.line_num}: each of {', '.join(COLUMNS)} must be filled in"
            )
        if values[0] in found:
            raise ValueError(f"{path}, line {reader.line_num}: the id {values[0]!r} comes twice")
        if len(found) == MAX_ROWS:
            raise ValueError(f"{path} holds more than {MAX_ROWS} prompts")
        found[values[0]] = BenchPrompt(*values)
    if not found:
        raise ValueError(f"{path} holds no prompt")
    prompts = list(found.values())
    names = {one.group for one in prompts} | {"all"}
    if mixed := sorted(names & {one.subcategory for one in prompts}):
        raise ValueError(
            f"{path}: the sub-category {mixed[0]!r} has the name of a group, and both are in the table; rename it"
        )
    return prompts


def by_category(prompts: Sequence[BenchPrompt], scores: Mapping[str, Sequence[float]]) -> dict[str, Estimate]:
    """The mean score of each sub-category, of each group, and of all, with standard errors.

    The unit is the prompt: the scores of its pictures are averaged first, since they are not independent. So *all* is the
    mean over prompts, not over the two groups.

    Args:
        scores: of each prompt's id, one for each picture; NaN and prompts without scores are left out.
    """
    means = {one.id: mean(scores[one.id]).value for one in prompts if len(scores.get(one.id, ()))}

    def of(chosen: Callable[[BenchPrompt], bool]) -> Estimate:
        return mean([means[one.id] for one in prompts if one.id in means and chosen(one)])

    found = {
        name: of(lambda one, name=name: one.subcategory == name)
        for name in _names(p.subcategory for p in prompts)
    }
    found |= {name: of(lambda one, name=name: one.group == name) for name in _names(p.group for p in prompts)}
    return {**found, "all": of(lambda one: True)}


def _names(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
