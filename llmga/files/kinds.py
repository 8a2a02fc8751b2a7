"""Registry of what a file can be: each kind has a name, a test and advice, in an order that is stated and checked.

The order is a partial one: a kind that also matches files of another names it in ``before``. Any order that respects
these is right, and two kinds that match the same file without being ordered are a fault that the tests look for.

Source: the design of spandrel's ``ArchRegistry`` (``before``, topological order, one error class).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Generic, TypeVar

Subject = TypeVar("Subject")
AGAIN = "download it again"


@dataclass(frozen=True)
class Kind(Generic[Subject]):
    """One thing that a file can be. ``Subject`` is what it is told by: a header, or the first bytes."""

    name: str
    """With its article, to stand after "is"."""
    matches: Callable[[Subject], bool]
    advice: str
    """What to do with such a file; names the node that loads it where there is one."""
    before: tuple[str, ...] = ()
    """Names of kinds that match some of the same files and must be asked later."""


def fault(name: str, advice: str) -> Kind:
    """A kind that is met while a file is read, so that no test of its own finds it."""
    return Kind(name, lambda subject: False, advice)


class WrongFileError(ValueError):
    """A file is another kind than the one that was asked for, or damaged: "NAME is KIND; ADVICE"."""

    def __init__(self, path: Path, kind: Kind, detail: str = "") -> None:
        """``detail`` follows the kind's name, in parentheses."""
        more = f" ({detail})" if detail else ""
        super().__init__(f"{shown(path)} is {kind.name}{more}; {kind.advice}")
        self.kind = kind


class Registry(Generic[Subject]):
    """Kinds in an order that respects every ``before``."""

    def __init__(self, kinds: Iterable[Kind[Subject]]) -> None:
        """
        Raises:
            ValueError: two kinds have one name, ``before`` names no kind, or the order has a cycle.
        """
        by_name: dict[str, Kind[Subject]] = {}
        for kind in kinds:
            if kind.name in by_name:
                raise ValueError(f"two kinds are called {kind.name!r}")
            by_name[kind.name] = kind
        sorter: TopologicalSorter[str] = TopologicalSorter({name: () for name in by_name})
        for kind in by_name.values():
            for later in kind.before:
                if later not in by_name:
                    raise ValueError(f"{kind.name!r} is to come before {later!r}, which is not a kind")
                sorter.add(later, kind.name)
        try:
            self._kinds = tuple(by_name[name] for name in sorter.static_order())
        except CycleError as error:
            raise ValueError(f"the order of the kinds has a cycle: {' < '.join(error.args[1])}") from error

    def __iter__(self) -> Iterator[Kind[Subject]]:
        return iter(self._kinds)

    def find(self, subject: Subject) -> Kind[Subject] | None:
        """The first kind that matches."""
        return next((kind for kind in self._kinds if kind.matches(subject)), None)

    def matching(self, subject: Subject) -> list[Kind[Subject]]:
        """All kinds that match, in order; the first is the answer."""
        return [kind for kind in self._kinds if kind.matches(subject)]

    def comes_before(self, first: str, second: str) -> bool:
        """Whether ``before``, followed from kind to kind, puts ``first`` ahead of ``second``."""
        by_name = {kind.name: kind for kind in self._kinds}
        reached, waiting = set(), [first]
        while waiting:
            later = by_name[waiting.pop()].before
            waiting += [name for name in later if name not in reached]
            reached.update(later)
        return second in reached


def shown(path: Path) -> str:
    """How errors call a file: its name and that of its folder, without the rest of somebody's disk."""
    folder = path.parent.name
    return f"{folder}/{path.name}" if folder else path.name
