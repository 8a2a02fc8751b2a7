"""Work that survives being killed: units whose results are files, shared among processes.

A unit is done once its files are whole, so a run that is started again does only what is missing. Which process does a
unit follows from its place in the list alone, and a unit's result from the unit alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

_T = TypeVar("_T")

UnitProgress = Callable[[int, int], object]
"""``on_step(i, n)``: i of the n units that this process had to do are done; may raise."""


class Processes(Protocol):
    """The processes of a run, this one among them."""

    @property
    def rank(self) -> int: ...

    @property
    def count(self) -> int: ...

    def wait(self) -> None:
        """Return once every process has come here."""
        ...


@dataclass(frozen=True)
class Alone:
    """One process."""

    rank: int = 0
    count: int = 1

    def wait(self) -> None:
        pass


class Launched:
    """The processes that ``accelerate launch`` (or torchrun) started."""

    def __init__(self) -> None:
        from accelerate import PartialState

        self._state = PartialState(
            cpu=os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
        )
        self.rank, self.count = self._state.process_index, self._state.num_processes

    def wait(self) -> None:
        self._state.wait_for_everyone()


def processes() -> Processes:
    """Those of this run: several if a launcher says so in ``WORLD_SIZE``."""
    return Launched() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else Alone()


def chunked(items: Sequence[_T], size: int) -> list[list[_T]]:
    """The items in lists of ``size``, the last perhaps shorter."""
    return [list(items[i : i + size]) for i in range(0, len(items), size)]


def run_units(
    units: Sequence[_T],
    is_done: Callable[[_T], bool],
    do: Callable[[_T], None],
    among: Processes,
    on_step: UnitProgress | None = None,
) -> None:
    """Do the units that are not done, this process's share of them, and wait for the other processes.

    Args:
        is_done: whether a unit's files are whole.
        do: does one unit; its last act is to put its files in place.
    """
    mine = [unit for unit in units[among.rank :: among.count] if not is_done(unit)]
    for i, unit in enumerate(mine, 1):
        do(unit)
        if on_step:
            on_step(i, len(mine))
    among.wait()


@dataclass
class Progress:
    """Writes a line about a stage now and then: what is done, what is left, and how long that will take."""

    name: str
    write: Callable[[str], object]
    every_s: float = 10.0

    def __post_init__(self) -> None:
        self._start = self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done < total and now - self._last < self.every_s:
            return
        self._last = now
        left = (now - self._start) / done * (total - done)
        self.write(f"{self.name}: {done} of {total}, about {left / 60:.0f} minutes left\n")
