"""The goals, each with what was measured beside it and N, and whether it was met on what ran."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .report import Counts, Finding, percentile

MET, MISSED, OPEN = "met", "MISSED", "not run"


@dataclass(frozen=True)
class Goal:
    """
    Args:
        key: of the row.
        text: the goal, with the N that a nightly run should reach.
        n: how many of what was tried.
        missed: how many times it was missed.
        timing: it depends on how fast and idle the machine is: a short run reports it and does not fail by it.
        measured: what is shown beside N.
    """

    key: str
    text: str
    n: Callable[[Counts], int]
    missed: Callable[[Sequence[Finding], Counts], int]
    timing: bool = False
    measured: Callable[[Counts], str] = lambda counts: ""


@dataclass(frozen=True)
class Row:
    goal: Goal
    n: int
    missed: int
    measured: str

    @property
    def verdict(self) -> str:
        if not self.n:
            return OPEN
        return MISSED if self.missed else MET


def ran(*names: str) -> Callable[[Counts], int]:
    return lambda counts: sum(counts.ran[name] for name in names)


def kinds(
    *wanted: str, where: Callable[[Finding], bool] = lambda one: True
) -> Callable[[Sequence[Finding], Counts], int]:
    return lambda findings, counts: sum(one.kind in wanted and where(one) for one in findings)


def counted(*names: str) -> Callable[[Sequence[Finding], Counts], int]:
    return lambda findings, counts: sum(counts.ran[name] for name in names)


def samples(prefix: str) -> Callable[[Counts], int]:
    return lambda counts: sum(
        len(values) for name, values in counts.measured.items() if name.startswith(prefix)
    )


def late(most: dict[str, float]) -> Callable[[Sequence[Finding], Counts], int]:
    """How many kinds have a 95th percentile beyond their seconds."""
    return lambda findings, counts: sum(
        percentile(counts.measured[f"cancel of {kind}"], 0.95) > seconds
        for kind, seconds in most.items()
        if counts.measured.get(f"cancel of {kind}")
    )


def percentiles(prefix: str) -> Callable[[Counts], str]:
    def shown(counts: Counts) -> str:
        return "; ".join(
            f"{name.removeprefix(prefix).strip()} p95 {percentile(values, 0.95):.2f} s "
            f"(max {max(values):.2f}, N {len(values)})"
            for name, values in sorted(counts.measured.items())
            if name.startswith(prefix)
        )

    return shown


def slope(counts: Counts) -> str:
    values = {
        name: mean(values) for name, values in counts.measured.items() if name.startswith("kB a prompt")
    }
    return "; ".join(f"{value:.1f} {name}" for name, value in values.items())


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def steeper(findings: Sequence[Finding], counts: Counts) -> int:
    pair = [counts.measured.get(f"kB a prompt with {name}") for name in ("the pack", "no pack")]
    return int(bool(pair[0] and pair[1] and mean(pair[0]) > mean(pair[1]) + 6))


def is_of_a_file(one: Finding) -> bool:
    return " with '" in one.case and "execute" not in one.case


def is_of_a_disk(one: Finding) -> bool:
    return one.where.startswith(("Save History:", "the panel"))


CANCEL = {
    "decode": 1.0, "denoise": 1.0, "inversion": 2.0, "restore": 2.0, "seam": 2.0, "prefill": 2.0, "endpoint": 2.0,
}  # fmt: skip
"""Seconds within which 95 of 100 cancels must take effect, by what is cancelled."""
CALLS = ("direct named", "direct unnamed", "direct bare", "prompts named", "prompts unnamed", "prompts bare")
GOALS = (
    Goal("S1", "random prompts over HTTP (20,000): 0 exits, 0 stuck", ran("prompts"), kinds("exit", "stuck")),
    Goal("S1b", "the same: 0 HTTP 500", ran("prompts"), kinds("HTTP 500")),
    Goal("S2", "direct calls (5,000 a node): 0 exits, 0 hangs, finite outputs", ran("direct calls"),
         lambda f, c: c.ran["direct exit"] + c.ran["direct hang"] + c.ran["direct not finite"]),
    Goal("S3", "failures of a node name the input: 0 bare exceptions", ran(*CALLS), counted("direct bare", "prompts bare")),
    Goal("S3b", "the same: 0 without the input's name", ran(*CALLS), counted("direct unnamed", "prompts unnamed")),
    Goal("S4", "hostile files (500): 0 code runs, 0 wrongly accepted, 0 opens outside", ran("hostile files"),
         kinds("code ran", "wrongly accepted", "open outside", where=is_of_a_file)),
    Goal("S4b", "the same: 0 bare exceptions, 0 exits", ran("hostile files"), counted("files bare", "files exit")),
    Goal("S4c", "the same: 0 hangs (12 s), at most twice the file's memory", ran("hostile files"),
         lambda f, c: c.ran["files hang"] + sum(one.kind == "memory" for one in f), True,
         percentiles("seconds to refuse")),
    Goal("S5", "path payloads (300 × inputs) and URLs (200): 0 opens, 0 connects outside",
         ran("path payloads", "URL payloads"),
         counted("open outside (paths)", "connect outside (paths)", "code ran (paths)", "connect outside (URLs)")),
    Goal("S6", "secret scenarios (60): 0 hits", ran("secret scenarios", "endpoint faults"), kinds("secret")),
    Goal("S8", "endpoint faults (400): 0 bare exceptions, 0 hangs", ran("endpoint faults"),
         kinds("bare", "hang", "exit", where=lambda one: one.where.startswith("endpoint"))),
    Goal("S8b", "the same: back within 2 s of deadline or cancel", ran("endpoint faults"),
         kinds("slow", where=lambda one: one.where.startswith("endpoint")), True),
    Goal("S8c", "disk faults: whole files, no reply lost, clear errors", ran("disk faults"),
         kinds("damaged file", "lost reply", "bare", "hang", "exit", where=is_of_a_disk)),
    Goal("S8d", "the same: 0 temporary files left", ran("disk faults"), counted("files left by a failing disk")),
    Goal("S9", "cancel: p95 1 s in decode and denoise, 2 s elsewhere", samples("cancel of"), late(CANCEL), True,
         percentiles("cancel of")),
    Goal("S9b", "cancel: never more than 30 s", ran("cancels"),
         kinds("hang", where=lambda one: one.where.startswith("cancel")), True),
    Goal("S10", "kill -9 (50): 0 partial files, the server starts again", ran("kills", "kills of a server"),
         counted("partial files")),
    Goal("S10b", "the same: 0 stale temporary files after the next start", ran("kills"),
         counted("temporary files after the next start")),
    Goal("S11", "queued prompts (1,000): all end", ran("queued prompts"),
         kinds("stuck", "exit", where=lambda one: "full queue" in one.where)),
    Goal("S12", "memory slope within 6 kB a prompt of a control without the pack", samples("kB a prompt"),
         steeper, True, slope),
    Goal("S13", "determinism over processes and cache modes (20 × 3)", ran("repeats"),
         kinds("not equal", where=lambda one: "process" in one.case)),
)  # fmt: skip


def rows(findings: Sequence[Finding], counts: Counts) -> list[Row]:
    return [Row(goal, goal.n(counts), goal.missed(findings, counts), goal.measured(counts)) for goal in GOALS]


def failed(table: Sequence[Row], *, timing: bool) -> list[Row]:
    """The goals that were missed; those of timing only if they count."""
    return [row for row in table if row.verdict == MISSED and (timing or not row.goal.timing)]


def written(table: Sequence[Row], *, timing: bool) -> str:
    lines = [f"{'':<5}{'N':>7}{'missed':>8}  {'':<9} goal"]
    for row in table:
        verdict = row.verdict
        if verdict == MISSED and row.goal.timing and not timing:
            verdict = "reported"
        lines.append(f"{row.goal.key:<5}{row.n:>7}{row.missed:>8}  {verdict:<9} {row.goal.text}")
        if row.measured:
            lines.append(f"{'':<31}{row.measured}")
    return "\n".join(lines)
