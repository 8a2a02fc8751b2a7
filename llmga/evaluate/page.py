"""One page of all tables: a plot, the measured rows beside the paper's, and for each claim whether its order holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..files.writing import write_text
from .estimates import Estimate
from .paper import PAPER, Claim, Verdict
from .plots import plot_lines, plot_rows
from .results import TableResult, markdown

PANELS = 3
"""Metrics of one plot at most; the table has all."""
ORDERED = ("turns", "story", "dialog")
"""Tables whose figures are measured at places that have an order, so that a line between them means something."""
WORDS: Mapping[Verdict, str] = {
    "holds": "order holds",
    "within the error": "not decided: within the error",
    "does not hold": "order does not hold",
    "not tested here": "not testable here",
}
"""What the page says of a claim."""


@dataclass(frozen=True)
class PageTable:
    """What a page says of one task.

    Args:
        title: such as ``Table 1: pictures from captions``.
        results: one for each table that the task gives; none if it could not be run.
        claims: of the paper.
        left_out: a line for each row, or for the whole task, that could not be measured, with the reason.
        minutes: what it took, over all runs of this output.
    """

    title: str
    results: Sequence[TableResult]
    claims: Sequence[Claim] = ()
    left_out: Sequence[str] = ()
    minutes: float = 0.0


def write_page(path: Path, tables: Sequence[PageTable], command: str) -> None:
    """Write the page as Markdown, and its plots into a folder of the same name beside it.

    Args:
        command: what makes the page again.
    """
    plots = path.with_suffix("")
    parts = [_head(tables, command)]
    for table in tables:
        parts.append(f"## {table.title}\n")
        if table.minutes:
            parts.append(f"Measured in {table.minutes:.0f} minutes.\n")
        for result in table.results:
            file = plots / f"{result.table}.png"
            plot_result(result, file)
            parts.append(f"![{result.table}: {', '.join(result.rows)}]({plots.name}/{file.name})\n")
            parts.append(_markdown(result))
        if table.claims:
            parts.append("\n".join(_claim_lines(table)) + "\n")
        if table.left_out:
            parts.append("Left out:\n\n" + "\n".join(f"- {line}" for line in table.left_out) + "\n")
    write_text(path, "\n".join(parts))


def plot_result(result: TableResult, path: Path) -> None:
    """Plot a result: lines where one metric was measured at several turns or in several contexts, else points."""
    series = series_of(result) if result.table in ORDERED else {}
    if not series:
        metrics = list(dict.fromkeys(metric for row in result.rows.values() for metric in row))
        plot_rows(result.rows, metrics[:PANELS], path)
        return
    metric, (ticks, lines) = (
        next(reversed(series.items())) if result.table == "turns" else next(iter(series.items()))
    )
    plot_lines(lines, path, f"{metric}, ± one standard error", ticks, result.table)


def series_of(result: TableResult) -> dict[str, tuple[list[str], dict[str, list[Estimate]]]]:
    """By metric what it was measured at, and the estimates of each row there; metrics with less than three are left out.

    A figure that is called ``METRIC: WHERE`` was measured there. A row without one has NaN in its place.
    """
    places: dict[str, list[str]] = {}
    for row in result.rows.values():
        for name in row:
            metric, colon, place = name.partition(": ")
            if colon and place not in places.setdefault(metric, []):
                places[metric].append(place)
    nothing = Estimate(float("nan"), float("nan"), 0)
    return {
        metric: (
            [place.removeprefix("turn ") for place in found],
            {
                name: [row.get(f"{metric}: {place}", nothing) for place in found]
                for name, row in result.rows.items()
            },
        )
        for metric, found in places.items()
        if len(found) >= 3
    }


def _markdown(result: TableResult) -> str:
    """The rows as one table, or a table for each metric that was measured at several places; and their conditions."""
    paper = PAPER.get(result.table, {})
    metrics = list(series_of(result))
    parts = []
    for metric in metrics:
        only = {
            name: {key: value for key, value in row.items() if key.startswith(f"{metric}: ")}
            for name, row in result.rows.items()
        }
        parts.append(markdown(TableResult(result.table, {}, only), paper))
    rest = {
        name: {key: value for key, value in row.items() if key.partition(": ")[0] not in metrics}
        for name, row in result.rows.items()
    }
    left = rest if any(rest.values()) else {}
    parts.append(markdown(TableResult(result.table, result.conditions, left, result.notes), paper))
    return "\n".join(parts)


def _head(tables: Sequence[PageTable], command: str) -> str:
    lines = [
        "# The paper's tables, measured",
        "",
        f"This page was written by `{command}`, which goes on where it was left.",
        "",
        "Every ± is one standard error, N what a figure sums up. A claim of the paper is a comparison of two figures: its "
        "*order holds* or *does not hold* where they differ by more than twice the error of the difference, is *not "
        "decided* where they differ by less, and is *not testable here* where one of them was not measured. Rows show the "
        "same items, so the error of a difference is taken over the same bootstrap samples of both, and is mostly less than "
        "both errors together. Where the networks or the data are not the paper's, its figures stand beside for their order "
        "alone.",
        "",
        "| | The paper's claim | Here |",
        "|---|---|---|",
    ]
    for table in tables:
        place, _, _ = table.title.partition(":")
        lines += [f"| {place} | {words} | {verdict} |" for words, verdict in _verdicts(table)]
        if not table.claims:
            lines.append(f"| {place} | none that rests on two measured rows | |")
    return "\n".join([*lines, ""])


def _claim_lines(table: PageTable) -> list[str]:
    return [f"- {words}: **{verdict}**." for words, verdict in _verdicts(table)]


def _verdicts(table: PageTable) -> list[tuple[str, str]]:
    """Each claim and what is found of it; of several tables of a task, in each of them."""
    found = []
    for claim in table.claims:
        by_table = {result.table: WORDS[claim.verdict(result.rows)] for result in table.results}
        if len(set(by_table.values())) == 1:
            found.append((claim.words, next(iter(by_table.values()))))
        elif by_table:
            found.append((claim.words, "; ".join(f"{name}: {words}" for name, words in by_table.items())))
        else:
            found.append((claim.words, WORDS["not tested here"]))
    return found
