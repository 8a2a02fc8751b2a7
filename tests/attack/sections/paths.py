"""Paths in every text and choice of every node: nothing may be opened outside the folders that ComfyUI has."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from tools import ROOT

from ..audit import own_roots, watched
from ..budget import Budget
from ..inprocess import NodeRunner
from ..isolated import Ended, each
from ..report import Counts, Finding
from ..values import PATHS
from .direct import LIMIT, Call, Result, judged, perform


@dataclass(frozen=True)
class Watched:
    """A call's result and what it touched that it should not have."""

    result: Result
    opened: tuple[str, ...] = ()
    connected: tuple[str, ...] = ()
    started: tuple[str, ...] = ()


def run(budget: Budget, rng: random.Random) -> tuple[list[Finding], Counts]:
    from support.comfy_inprocess import comfy_path

    runner, findings, counts = NodeRunner(), [], Counts()
    roots = own_roots(ROOT, runner.base, comfy_path() or ROOT)
    calls = [
        Call(node, rng.randrange(2**32), ((socket.name, value),))
        for node, sockets in runner.sockets.items()
        for socket in sockets
        if socket.kind in ("STRING", "COMBO")
        for value in PATHS
    ]
    rng.shuffle(calls)

    def work(call: Call) -> Watched:
        with watched() as seen:
            result = perform(runner, call)
        return Watched(
            result, tuple(seen.outside(roots)), tuple(seen.outside_loopback()), tuple(seen.started)
        )

    work(replace(calls[0], hostile=()))  # imports of the first call are not its payload's doing
    budget.restart(counts.ran)
    for call, found in each(calls, work, budget, limit=LIMIT, together=40):
        counts.ran["path payloads"] += 1
        findings += judged(call, found if isinstance(found, Ended) else found.result, Counts())
        if isinstance(found, Watched):
            for kind, what in (
                ("open outside", found.opened), ("connect outside", found.connected), ("code ran", found.started)
            ):  # fmt: skip
                counts.ran[f"{kind} (paths)"] += bool(what)
                findings += [Finding(kind, f"{call.node}: {one}", str(call)) for one in set(what)]
    return findings, counts
