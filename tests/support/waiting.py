"""Waiting for events instead of sleeping, and growth of the work instead of seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tools.patience import PATIENCE


def until(happened: Callable[[], Any]) -> bool:
    """Ask again and again; whether it happened before patience ends."""
    end = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def growth(small: Callable[[], Any], large: Callable[[], Any], limit: float) -> float:
    """How many times the processor time of ``small`` the call ``large`` needs.

    Time that other processes get does not count. The least of up to five tries of each, because caches and the
    collector only ever add; it ends as soon as the result is below ``limit``.
    """
    best = [float("inf"), float("inf")]
    for _ in range(5):
        for k, call in enumerate((small, large)):
            start = time.thread_time()
            call()
            best[k] = min(best[k], time.thread_time() - start)
        if best[1] < limit * best[0]:
            break
    return best[1] / max(best[0], 1e-6)
