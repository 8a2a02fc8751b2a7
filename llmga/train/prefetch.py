"""Inputs of coming steps, prepared in threads while a step is trained."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def prefetched(make: Callable[[int], Any], start: int, stop: int, count: int) -> Iterator[Any]:
    """make(start), …, make(stop − 1) in order, with up to ``count`` of them being made in threads."""
    if not count:
        yield from map(make, range(start, stop))
        return
    pool = ThreadPoolExecutor(count, thread_name_prefix="llmga-batch")
    try:
        waiting: deque[Any] = deque()
        for step in range(start, stop):
            while len(waiting) <= count and step + len(waiting) < stop:
                waiting.append(pool.submit(make, step + len(waiting)))
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
