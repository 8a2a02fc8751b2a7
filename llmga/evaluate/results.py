"""A table's measured rows with the conditions they hold under, as JSON, Markdown and LaTeX.

Rows may only stand in one table if everything that their figures depend on is equal: extractors and their weights, sizes,
resizing, the number of pictures, the data. ``joined`` refuses to mix others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files.json_files import read_object
from ..files.writing import write_text
from .estimates import Estimate, Samples
from .paper import LOWER, Claim

RESULT_FORMAT = "llmga-evaluation"
RESULT_VERSION = 1

Figures = Mapping[str, Estimate]


@dataclass(frozen=True)
class TableResult:
    """What was measured for one table.

    Args:
        table: its name, such as ``t2i``.
        conditions: everything that must be equal for rows to be compared; JSON values.
        rows: by name the estimates of each metric.
        notes: by row what was left out or replaced, such as replies without a prompt.
    """

    table: str
    conditions: Mapping[str, Any]
    rows: Mapping[str, Figures]
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)


def write_result(path: Path, result: TableResult) -> None:
    """Write a result as JSON; equal results give equal bytes."""
    document = {
        "format": RESULT_FORMAT,
        "version": RESULT_VERSION,
        "table": result.table,
        "conditions": dict(result.conditions),
        "rows": {
            name: {metric: _numbers(estimate) for metric, estimate in row.items()}
            for name, row in result.rows.items()
        },
        "notes": {name: list(lines) for name, lines in result.notes.items()},
    }
    write_text(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_result(path: Path) -> TableResult:
    """Read what ``write_result`` wrote.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or it holds no result; the message names it.
    """
    document = read_object(path)
    if document.get("format") != RESULT_FORMAT:
        raise ValueError(f"{path} is not a result of llmga evaluate: its 'format' is not {RESULT_FORMAT!r}")
    if document.get("version") != RESULT_VERSION:
        raise ValueError(
            f"{path} has version {document.get('version')!r}; this program reads {RESULT_VERSION}"
        )
    try:
        rows = {
            name: {metric: _estimate(numbers) for metric, numbers in row.items()}
            for name, row in document["rows"].items()
        }
        return TableResult(document["table"], document["conditions"], rows, document["notes"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error


def joined(results: Iterable[TableResult]) -> TableResult:
    """The rows of several results as one.

    Raises:
        ValueError: there are none, they are of different tables or under different conditions, or a row stands in two; the
            message names the condition and both values.
    """
    first, *others = results
    rows, notes = dict(first.rows), dict(first.notes)
    for other in others:
        if other.table != first.table:
            raise ValueError(
                f"these are different tables: {first.table!r} and {other.table!r}; join results of one"
            )
        for key in sorted({*first.conditions, *other.conditions}):
            mine, theirs = first.conditions.get(key), other.conditions.get(key)
            if mine != theirs:
                raise ValueError(
                    f"these rows cannot be compared: {key!r} is {mine!r} in one result and {theirs!r} in another"
                )
        if twice := rows.keys() & other.rows.keys():
            raise ValueError(f"the row {min(twice)!r} stands in two results; rename it or leave one out")
        rows |= other.rows
        notes |= other.notes
    return TableResult(first.table, first.conditions, rows, notes)


def markdown(
    result: TableResult, paper: Mapping[str, Mapping[str, float]] | None = None, claims: Sequence[Claim] = ()
) -> str:
    """A table of Markdown: measured rows, the paper's below them, each claim with its verdict, and the conditions."""
    metrics = _metrics(result)
    lines = []
    if metrics:
        lines.append(f"| {' | '.join(['', *map(_in_cell, map(_arrow, metrics)), 'N'])} |")
        lines.append(f"|{'---|' * (len(metrics) + 2)}")
    for name, row in result.rows.items():
        count = max((estimate.count for estimate in row.values()), default=0)
        lines.append(
            f"| {' | '.join([_in_cell(name), *(_cell(row.get(metric)) for metric in metrics), str(count)])} |"
        )
    for name, cells in _printed(paper, metrics):
        lines.append(f"| {' | '.join([f'*paper: {name}*', *cells, ''])} |")
    if claims:
        lines.append("")
        lines += [f"- {claim.words}: **{claim.verdict(result.rows)}**." for claim in claims]
    if result.notes:
        lines.append("")
        lines += [f"- {name}: {'; '.join(texts)}." for name, texts in result.notes.items() if texts]
    if result.conditions:
        conditions = "; ".join(f"{key}: {_shown(value)}" for key, value in result.conditions.items())
        lines += ["", f"Conditions: {conditions}."]
    return "\n".join([*lines, ""])


def latex(result: TableResult, paper: Mapping[str, Mapping[str, float]] | None = None) -> str:
    """The rows as a LaTeX ``tabular`` with booktabs' rules, the paper's below a line."""
    metrics = _metrics(result)
    arrows = {True: r"$\downarrow$", False: r"$\uparrow$"}
    head = [f"{_escaped(metric)} {arrows[_is_lower(metric)]}" for metric in metrics]
    lines = [
        rf"\begin{{tabular}}{{l{'r' * len(metrics)}}}",
        r"\toprule",
        _latex_row(["", *head]),
        r"\midrule",
    ]
    for name, row in result.rows.items():
        cells = (_cell(row.get(metric)).replace("±", r"$\pm$") for metric in metrics)
        lines.append(_latex_row([_escaped(name), *cells]))
    printed = _printed(paper, metrics)
    if printed:
        lines.append(r"\midrule")
    for name, cells in printed:
        lines.append(_latex_row([rf"\emph{{{_escaped(name)} (paper)}}", *cells]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _printed(
    paper: Mapping[str, Mapping[str, float]] | None, metrics: Sequence[str]
) -> list[tuple[str, list[str]]]:
    """The paper's rows that have one of the metrics, as cells."""
    return [
        (name, [f"{figures[metric]:g}" if metric in figures else "" for metric in metrics])
        for name, figures in (paper or {}).items()
        if any(metric in figures for metric in metrics)
    ]


def _metrics(result: TableResult) -> list[str]:
    return list(dict.fromkeys(metric for row in result.rows.values() for metric in row))


def _is_lower(metric: str) -> bool:
    return metric.partition(":")[0] in LOWER


def _arrow(metric: str) -> str:
    return f"{metric} {'↓' if _is_lower(metric) else '↑'}"


def _cell(estimate: Estimate | None) -> str:
    if estimate is None or math.isnan(estimate.value):
        return ""
    digits = 4 if abs(estimate.value) < 10 else 2
    return f"{estimate.value:.{digits}f}" if math.isnan(estimate.error) else estimate.text(digits)


def _in_cell(text: str) -> str:
    """Escape what would end a table cell in Markdown."""
    return text.replace("|", r"\|")


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


_LATEX = {character: rf"\{character}" for character in "_%&#${}"}
_LATEX |= {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
"""What LaTeX reads as a command, and what it has no letter for."""


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(inner)}" for key, inner in value.items())
    return str(value)


def _numbers(estimate: Estimate) -> dict[str, Any]:
    """JSON knows no NaN and no infinity, and would give each sample a line of its own: they stand in one text."""
    value, error = (_number(x) for x in (estimate.value, estimate.error))
    found: dict[str, Any] = {"value": value, "error": error, "count": estimate.count}
    if of := estimate.samples:
        found["samples"] = {"units": of.units, "least": of.least, "values": " ".join(map(repr, of.values))}
    return found


def _number(x: float) -> float | str | None:
    if math.isnan(x):
        return None
    return x if math.isfinite(x) else str(x)


def _estimate(numbers: Mapping[str, Any]) -> Estimate:
    value, error = (math.nan if numbers[key] is None else float(numbers[key]) for key in ("value", "error"))
    of = numbers.get("samples")
    samples = Samples(of["units"], tuple(map(float, of["values"].split())), of["least"]) if of else None
    return Estimate(value, error, int(numbers["count"]), samples)
