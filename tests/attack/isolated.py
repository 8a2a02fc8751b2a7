"""Cases run in forked children: one that hangs, crashes or eats memory ends its child and becomes a result."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .budget import Budget

POSSIBLE = hasattr(os, "fork")
BUSY = 6
WHY_NOT = "this system cannot fork a process"


@dataclass(frozen=True)
class Ended:
    """The child did not live to answer: "hang" after the limit, or "exit" with the signal or code."""

    kind: str
    said: str


def each(
    cases: Sequence[Any],
    work: Callable[[Any], Any],
    budget: Budget,
    *,
    limit: float,
    memory: int = 0,
    together: int = 1,
) -> Iterator[tuple[Any, Any]]:
    """``(case, work(case))``, or ``(case, Ended)``, in order until the budget is spent.

    Args:
        work: runs in the child; what it returns must be picklable. An exception of it is the harness's fault and ends
            the child.
        limit: seconds of a processor that a case may take, or of waiting.
        memory: bytes that the child may map beyond what it has; 0 is no limit.
        together: how many cases one child runs before a new one is forked.
    """
    at = 0
    while at < len(cases) and budget:
        batch = cases[at : at + together]
        for case, result in _child(batch, work, budget, limit, memory):
            at += 1
            yield case, result


def _child(
    cases: Sequence[Any], work: Callable[[Any], Any], budget: Budget, limit: float, memory: int
) -> Iterator[tuple[Any, Any]]:
    receiver, sender = Pipe(duplex=False)
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _work(sender, cases, work, memory)
    sender.close()
    alive = True
    try:
        for case in cases:
            if not budget:
                return
            if not _answered(receiver, pid, limit):
                os.kill(pid, signal.SIGKILL)
                yield case, Ended("hang", f"still running after {limit:g} s")
                return
            try:
                result = receiver.recv()
            except EOFError:
                _, status = os.waitpid(pid, 0)
                alive = False
                yield case, Ended("exit", f"the process ended with code {os.waitstatus_to_exitcode(status)}")
                return
            yield case, result
    finally:
        receiver.close()
        if alive:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _answered(receiver: Connection, pid: int, limit: float) -> bool:
    """Wait for the child's next result.

    A child that computes is given up once it has had ``limit`` seconds of a processor, so that a busy machine makes no
    hang of a slow call; one that waits for something, after ``limit`` seconds; any, after ``BUSY`` times as many.
    """
    began, before = time.monotonic(), _processor_time(pid)
    last = before
    while not receiver.poll(limit / 4):
        now, passed = _processor_time(pid), time.monotonic() - began
        still = now is None or last is None or before is None or now == last
        if passed >= BUSY * limit or (passed >= limit and (still or now - before >= limit)):  # type: ignore[operator]
            return False
        last = now
    return True


def _processor_time(pid: int) -> float | None:
    """Seconds that a process has computed, or None where it is not known."""
    try:
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        )
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _work(sender: Connection, cases: Sequence[Any], work: Callable[[Any], Any], memory: int) -> None:
    """The child: never returns into the parent's code."""
    code = 0
    try:
        if memory:
            _limit_memory(memory)
        for case in cases:
            sender.send(work(case))
    except BaseException:
        traceback.print_exc()
        code = 70
    finally:
        sys.stderr.flush()
        os._exit(code)


def _limit_memory(more: int) -> None:
    import resource

    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:  # no Linux: the limit is left out
        return
    resource.setrlimit(resource.RLIMIT_AS, (mapped + more, resource.RLIM_INFINITY))


def peak() -> int:
    """The most bytes of memory that this process has held."""
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
