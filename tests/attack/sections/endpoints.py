"""Every behaviour of an endpoint: one clear error or a reply, in time, cancellable, and without the key."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass

from support.openai_server import OpenAIServer

from tools import ROOT

from .. import entry_points
from ..behaviours import known
from ..budget import Budget
from ..isolated import Ended, each
from ..outcome import classify, place_of
from ..report import Counts, Finding, clipped
from .canary import KEY, VARIABLE, hits

DEADLINE = 3.0
LATE = 2.0  # seconds after the deadline, or after a cancel, at which the call must be back
LIMIT = DEADLINE + 15


@dataclass(frozen=True)
class Case:
    behaviour: str
    cancel_after: float
    """Seconds; 0 never cancels."""

    def __str__(self) -> str:
        cancelled = f", cancelled after {self.cancel_after:.2f} s" if self.cancel_after else ""
        return f"EndpointEngine.generate from a server that answers {self.behaviour!r}{cancelled}"


@dataclass(frozen=True)
class Result:
    outcome: str
    where: str = ""
    said: str = ""
    late: float = 0.0
    """Seconds after the deadline or the cancel."""
    longest: float = 0.0
    """Seconds between two calls of ``on_text``."""
    leaks: tuple[str, ...] = ()


class CancelledError(BaseException):
    """As ComfyUI's interrupt, no Exception."""


def run(budget: Budget, rng: random.Random) -> tuple[list[Finding], Counts]:
    findings, counts = [], Counts()
    names = list(known(rng))
    fixed = [Case(name, 0.0) for name in names if not name.startswith("chance_")]
    rng.shuffle(fixed)
    more = [Case(rng.choice(names), rng.choice((0.0, rng.uniform(0.05, 1.5)))) for _ in range(20_000)]
    os.environ[VARIABLE] = KEY
    first_call()
    budget.restart(counts.ran)
    for case, result in each([*fixed, *more], ask, budget, limit=LIMIT, together=10):
        counts.ran["endpoint faults"] += 1
        findings += judged(case, result, counts)
    return findings, counts


def first_call() -> None:
    """The imports of a first call."""
    with OpenAIServer("a reply") as server:
        entry_points.ask(server.url, 30.0, lambda _: None)


def ask(case: Case) -> Result:
    """One call in this (forked) process, with a server of its own."""
    texts: list[float] = []
    started = time.monotonic()

    def on_text(text: str) -> None:
        texts.append(time.monotonic())
        if case.cancel_after and texts[-1] - started > case.cancel_after:
            raise CancelledError

    with OpenAIServer("a reply of some length") as server:
        server.behave(case.behaviour)
        outcome, where, said = "ok", "", ""
        try:
            said = entry_points.ask(server.url, DEADLINE, on_text, key_env=VARIABLE)
        except CancelledError:
            outcome = "cancelled"
        except BaseException as error:
            kind = classify(type(error).__name__, str(error), ("attacked",))
            outcome = kind if isinstance(error, Exception) else "bare"
            where, said = place_of(error, (ROOT / "llmga",)), f"{type(error).__name__}: {error}"
        ended = time.monotonic()
    asked = started + min(DEADLINE, case.cancel_after or DEADLINE)
    gaps = [b - a for a, b in zip([started, *texts], [*texts, ended], strict=True)]
    where_found = "reply" if outcome == "ok" else "error"
    return Result(outcome, where, said[:2000], ended - asked, max(gaps), tuple(hits(said, where_found)))


def judged(case: Case, result: Result | Ended, counts: Counts) -> list[Finding]:
    if isinstance(result, Ended):
        return [Finding(result.kind, f"endpoint: {case.behaviour}", str(case), result.said)]
    counts.ran[f"endpoint {result.outcome}"] += 1
    found = []
    if case.cancel_after and result.outcome == "cancelled":
        counts.measure("cancel of an endpoint", max(0.0, result.late))
    if result.late > LATE:
        found.append(
            Finding("slow", f"endpoint: {case.behaviour}", str(case), f"back {result.late:.1f} s late")
        )
    if result.leaks:
        counts.ran["canary hits (endpoint)"] += 1
        found += [
            Finding("secret", f"endpoint: {one}", str(case), clipped(result.said)) for one in result.leaks
        ]
    if result.outcome == "bare":
        found.append(Finding("bare", f"endpoint: {result.where}", str(case), clipped(result.said)))
    return found
