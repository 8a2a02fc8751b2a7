"""A section's time: its share of the minutes, and more of them while it has not tried what it should."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping


class Budget:
    """True as long as there is time; sections ask it before each case.

    Args:
        seconds: of attacking, from now on.
        most: seconds that it may take while one of the goals is not reached.
        goals: how many of what a section should try, by the names under which it counts.
    """

    def __init__(
        self, seconds: float, most: float | None = None, goals: Mapping[str, float] | None = None
    ) -> None:
        self.seconds = seconds
        self.most = max(seconds, most or 0.0)
        self.goals = dict(goals or {})
        self._ran: Counter[str] = Counter()
        self._begun = time.monotonic()

    def restart(self, ran: Counter[str] | None = None) -> None:
        """Begin to count now: what came before (imports, models, a server's start) is not the attack.

        Args:
            ran: where the section counts what it tries.
        """
        self._begun = time.monotonic()
        self._ran = self._ran if ran is None else ran

    @property
    def spent(self) -> float:
        return time.monotonic() - self._begun

    def __bool__(self) -> bool:
        short = any(self._ran[name] < wanted for name, wanted in self.goals.items())
        return self.spent < (self.most if short else self.seconds)

    def part(self, share: float, *goals: str) -> Budget:
        """A budget from now on of a share of the seconds, with those of the goals that are named."""
        wanted = {name: self.goals[name] for name in goals if name in self.goals}
        part = Budget(share * self.seconds, share * self.most, wanted)
        part.restart(self._ran)
        return part
