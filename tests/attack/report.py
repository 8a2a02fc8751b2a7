"""What a section hands back: findings with their reproduction, and counts of what ran."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

KINDS = (
    "exit", "code ran", "secret", "open outside", "connect outside", "hang", "stuck", "HTTP 500", "damaged file",
    "wrongly accepted", "not equal", "bare", "memory", "slow", "left file", "unnamed", "lost reply", "harness",
)  # fmt: skip
"""Of findings, worst first."""
MAX_TEXT = 400


@dataclass(frozen=True)
class Finding:
    """One fault.

    Args:
        kind: one of ``KINDS``.
        where: what tells this fault from others of its kind, such as the exception and the line that raised it.
        case: how to get it again: the node or loader, and the inputs by name.
        said: what was seen.
    """

    kind: str
    where: str
    case: str
    said: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")


@dataclass
class Counts:
    """What ran: numbers by name, and samples of what was measured by name."""

    ran: Counter[str] = field(default_factory=Counter)
    measured: dict[str, list[float]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    """What could not run here, with the reason."""

    def measure(self, name: str, value: float) -> None:
        self.measured.setdefault(name, []).append(value)

    def add(self, other: Counts) -> None:
        self.ran.update(other.ran)
        self.skipped += other.skipped
        for name, values in other.measured.items():
            self.measured.setdefault(name, []).extend(values)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def write(path: Path, findings: Sequence[Finding], counts: Counts) -> None:
    ran = {"ran": dict(counts.ran), "measured": counts.measured, "skipped": counts.skipped}
    document = {"findings": [asdict(one) for one in findings], "counts": ran}
    path.write_text(json.dumps(document, default=str), encoding="utf-8")


def read(path: Path) -> tuple[list[Finding], Counts]:
    document = json.loads(path.read_text(encoding="utf-8"))
    counts = document["counts"]
    found = [Finding(**one) for one in document["findings"]]
    return found, Counts(Counter(counts["ran"]), counts["measured"], counts["skipped"])


@dataclass(frozen=True)
class Group:
    """All findings of one cause; ``first`` has the shortest case."""

    first: Finding
    count: int


def grouped(findings: Sequence[Finding]) -> list[Group]:
    """By kind and place, worst kind first, and within a kind the most frequent first."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for one in findings:
        groups.setdefault((one.kind, one.where), []).append(one)
    found = [Group(min(ones, key=lambda one: len(one.case)), len(ones)) for ones in groups.values()]
    return sorted(found, key=lambda group: (KINDS.index(group.first.kind), -group.count))


def clipped(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 1] + "…"
