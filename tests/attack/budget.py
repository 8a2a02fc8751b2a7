"""A share of the time: sections ask whether there is some left, and never how late it is."""

from __future__ import annotations

import time


class Budget:
    """
    Args:
        seconds: from now on.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def restart(self) -> None:
        """Begin to count now: what came before (imports, models, a server's start) is not the attack."""
        self._end = time.monotonic() + self.seconds

    @property
    def left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def __bool__(self) -> bool:
        return self.left > 0

    def part(self, share: float) -> Budget:
        """A budget of a share of all the seconds, and at most of those left."""
        return Budget(min(self.left, share * self.seconds))
