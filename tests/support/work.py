"""How the work of a function grows with the length of its text."""

from __future__ import annotations

import time
from collections.abc import Callable

GROWTH = 8
_SLACK = 4
_LEAST_S = 1e-3


def grows_linearly(function: Callable[[str], object], text_of: Callable[[int], str], length: int) -> bool:
    """Whether a text of ``length`` characters costs about ``GROWTH`` times one of ``length / GROWTH``.

    The work is the processor time of this thread, so that a busy machine does not count, and only the ratio of two sizes
    is looked at: a quadratic pass is at ``GROWTH`` squared, twice as far as what is allowed. A third try is the last.
    """

    def work(size: int) -> float:
        text = text_of(size)
        start = time.thread_time()
        function(text)
        return time.thread_time() - start

    if work(length) <= GROWTH * _SLACK * _LEAST_S:
        return True  # whatever the smaller one costs
    small = max(min(work(length // GROWTH) for _ in range(2)), _LEAST_S)
    return any(work(length) <= GROWTH * _SLACK * small for _ in range(3))
