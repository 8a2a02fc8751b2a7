"""Hostile values straight into every node's ``execute``: up to three inputs at a time, in this process's ComfyUI."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any

from tools import ROOT

from ..budget import Budget
from ..good_widgets import CHEAP
from ..inprocess import NodeRunner, is_finite
from ..isolated import Ended, each
from ..outcome import classify, place_of
from ..report import Counts, Finding, clipped
from ..values import python

LIMIT = 20.0  # seconds of a call on tiny models
MEMORY = 3 * 2**30
TOGETHER = 40
MOST = 100_000
SELDOM = ("control",)  # needs a ControlNet in it


@dataclass(frozen=True)
class Call:
    """A node, the seed of its good values, and the hostile ones by input and name."""

    node: str
    seed: int
    hostile: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        inputs = ", ".join(f"{name} = {value!r}" for name, value in self.hostile) or "good values only"
        return f"{self.node}.execute with {inputs} (seed {self.seed})"


@dataclass(frozen=True)
class Result:
    outcome: str
    where: str = ""
    said: str = ""
    seconds: float = 0.0


def run(budget: Budget, rng: random.Random) -> tuple[list[Finding], Counts]:
    runner, findings, counts = NodeRunner(), [], Counts()
    budget.restart(counts.ran)
    for call, result in each(
        calls(runner, rng, MOST),
        lambda one: perform(runner, one),
        budget,
        limit=LIMIT,
        memory=MEMORY,
        together=TOGETHER,
    ):
        counts.ran["direct calls"] += 1
        findings += judged(call, result, counts)
    return findings, counts


def calls(runner: NodeRunner, rng: random.Random, count: int) -> list[Call]:
    """Every node in turn; most with one hostile value, some with none, two or three."""
    names, values = list(runner.nodes), list(python())
    found = []
    for i in range(count):
        node = names[i % len(names)]
        sockets = runner.sockets[node]
        chosen = rng.sample(sockets, min(len(sockets), rng.choice((0, 1, 1, 1, 2, 3))))
        hostile = tuple((socket.name, rng.choice(values)) for socket in chosen)
        found.append(Call(node, rng.randrange(2**32), hostile))
    return found


def perform(runner: NodeRunner, call: Call) -> Result:
    """The call in this process; what it raises is a result."""
    rng, values = random.Random(call.seed), python()
    given: dict[str, Any] = {}
    for socket in runner.sockets[call.node]:
        needed = not socket.optional or socket.name in CHEAP  # a default of 50 steps tries nothing more
        if needed or (socket.name not in SELDOM and rng.random() < 0.5):
            given[socket.name] = runner.good(socket, rng)
    given |= {name: values[value]() for name, value in call.hostile}
    started = time.perf_counter()
    try:
        output = runner.execute(call.node, given)
    except BaseException as error:  # also what stops a server: that is the question
        names = [socket.name for socket in runner.sockets[call.node]]
        kind = classify(type(error).__name__, str(error), names)
        kind = kind if isinstance(error, Exception) else "bare"
        where = place_of(error, (ROOT / "nodes", ROOT / "llmga"))
        return Result(kind, where, f"{type(error).__name__}: {error}"[:2000], time.perf_counter() - started)
    finite = is_finite([one for one in output if not hasattr(one, "trajectory")])
    return Result("ok" if finite else "not finite", seconds=time.perf_counter() - started)


def judged(call: Call, result: Result | Ended, counts: Counts) -> list[Finding]:
    if isinstance(result, Ended):
        counts.ran[f"direct {result.kind}"] += 1
        return [Finding(result.kind, call.node, str(call), result.said)]
    counts.ran[f"direct {result.outcome}"] += 1
    if result.outcome in ("bare", "unnamed"):
        return [Finding(result.outcome, f"{call.node}: {result.where}", str(call), clipped(result.said))]
    if result.outcome == "not finite":
        return [
            Finding(
                "not equal",
                f"{call.node}: output is not finite",
                str(call),
                "NaN or infinite values came out",
            )
        ]
    return []
