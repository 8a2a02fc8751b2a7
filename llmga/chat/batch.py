"""The same request about each picture of a batch; ``respond`` shows a whole batch in one turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from .assistant import Reply, respond
from .conversation import Conversation, Picture
from .engines.base import ChatEngine, Sampling
from .engines.endpoint import EndpointError
from .tasks import Task, get_task

MAX_FAILURES_IN_A_ROW = 3
"""After so many endpoint errors in a row the remaining pictures are not sent."""
_SEEDS = 2**64
_T = TypeVar("_T")


class StopAfterFailures:
    """Calls functions that ask an engine until the endpoint has failed ``MAX_FAILURES_IN_A_ROW`` times in a row.

    A success and an error of any other kind end the row.
    """

    def __init__(self) -> None:
        self._in_a_row = 0

    def call(self, ask: Callable[[], _T]) -> _T:
        """``ask()``.

        Raises:
            EndpointError: ``ask`` raised it, or it was not called because the endpoint has failed too often.
        """
        failed = self._in_a_row
        if failed == MAX_FAILURES_IN_A_ROW:
            raise EndpointError(f"not asked, because the endpoint failed {failed} times in a row")
        self._in_a_row = 0
        try:
            return ask()
        except EndpointError:
            self._in_a_row = failed + 1
            raise


@dataclass(frozen=True)
class Failed:
    """Why a picture has no reply; the reason begins with the picture's number."""

    reason: str


def respond_each(
    engine: ChatEngine,
    conversation: Conversation,
    *,
    pictures: Sequence[Picture],
    sampling: Sampling,
    holes: Sequence[bool] | None = None,
    **settings: Any,
) -> list[Reply | Failed]:
    """One reply for each picture, in order; each is asked about as if it were the only one.

    All replies continue the same conversation, so a local engine reads that once. Picture ``i`` has the seed
    ``seed + i``: alone with that seed it gets the same reply. A picture that fails does not stop the others;
    after ``MAX_FAILURES_IN_A_ROW`` endpoint errors in a row the rest is not asked, and its reason says so.

    Args:
        holes: for each picture, whether it has one; a task that fills a hole is not asked about a picture without, which
            then fails. ``None`` says that each has.
        settings: what else ``respond`` takes.

    Raises:
        ValueError: there is no picture, or not one of ``holes`` for each; and, if no picture gets a reply, what ``respond``
            raised for the first, with the picture's number in front.
        EndpointError: likewise.
    """
    if not pictures:
        raise ValueError("one reply for each picture needs a picture; connect 'image'")
    if holes is not None and len(holes) != len(pictures):
        raise ValueError(
            f"holes says of {len(holes)} pictures whether they have one, but there are {len(pictures)}"
        )
    results: list[Reply | Failed] = []
    first_error: ValueError | EndpointError | None = None
    engine_calls = StopAfterFailures()
    for i, picture in enumerate(pictures):
        where = f"picture {i + 1} of {len(pictures)}: " if len(pictures) > 1 else ""
        own = replace(sampling, seed=(sampling.seed + i) % _SEEDS)
        ask = partial(respond, engine, conversation, pictures=(picture,), sampling=own, **settings)
        try:
            if holes is not None and not holes[i]:
                _check_hole(settings["task"], i + 1)
            results.append(engine_calls.call(ask))
        except EndpointError as error:
            first_error = first_error or EndpointError(f"{where}{error}", error.retry_in)
            results.append(Failed(f"{where}{error}"))
        except ValueError as error:
            first_error = first_error or ValueError(f"{where}{error}")
            results.append(Failed(f"{where}{error}"))
    if first_error is not None and all(isinstance(result, Failed) for result in results):
        raise first_error
    return results


def shortcomings(results: Sequence[Reply | Failed]) -> list[str]:
    """A line for each picture without a reply and for each remark on a reply, with the picture's number in front."""
    lines: list[str] = []
    for i, result in enumerate(results):
        where = f"picture {i + 1} of {len(results)}: " if len(results) > 1 else ""
        failed = isinstance(result, Failed)
        lines += [result.reason] if failed else [f"{where}{remark}" for remark in result.remarks]
    return lines


def _check_hole(task: str | Task, number: int) -> None:
    asked = get_task(task)
    if asked.needs_mask:
        raise ValueError(
            f"mask {number} is empty, and the task {asked.name!r} fills a hole; paint into it (1 = to be generated), or "
            "leave this picture out of 'image'"
        )
