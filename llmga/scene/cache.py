"""ObjectCache: objects that were painted alone, so that a plan whose boxes only moved is not painted again."""

from __future__ import annotations

from collections import OrderedDict

from .synthesis import AloneRun

CACHED_OBJECTS = 16


class ObjectCache:
    """Objects that were painted, by all that they follow from; the oldest is dropped beyond ``limit``."""

    def __init__(self, limit: int = CACHED_OBJECTS) -> None:
        self.limit = limit
        self._runs: OrderedDict[str, AloneRun] = OrderedDict()

    def __len__(self) -> int:
        return len(self._runs)

    def get(self, key: str) -> AloneRun | None:
        if key in self._runs:
            self._runs.move_to_end(key)
        return self._runs.get(key)

    def put(self, key: str, run: AloneRun) -> None:
        self._runs[key] = run
        while len(self._runs) > self.limit:
            self._runs.popitem(last=False)
