"""The same request about each picture of a batch; ``respond`` shows a whole batch in one turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .assistant import Reply, respond
from .conversation import Conversation, Picture
from .engines.base import ChatEngine, Sampling
from .engines.endpoint import EndpointError

MAX_FAILURES_IN_A_ROW = 3
"""After so many endpoint errors in a row the remaining pictures are not sent."""
_SEEDS = 2**64


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
    **settings: Any,
) -> list[Reply | Failed]:
    """One reply for each picture, in order; each is asked about as if it were the only one.

    All replies continue the same conversation, so a local engine reads that once. Picture ``i`` has the seed
    ``seed + i``: alone with that seed it gets the same reply. A picture that fails never costs the others their replies;
    after ``MAX_FAILURES_IN_A_ROW`` endpoint errors in a row the rest is not asked, and its reason says so.

    Args:
        settings: what else ``respond`` takes.

    Raises:
        ValueError: there is no picture; and, if no picture gets a reply, what ``respond`` raised for the first, with the
            picture's number in front.
        EndpointError: likewise.
    """
    if not pictures:
        raise ValueError("one reply for each picture needs a picture; connect 'image'")
    results: list[Reply | Failed] = []
    first_error: ValueError | EndpointError | None = None
    in_a_row = 0
    for i, picture in enumerate(pictures):
        where = f"picture {i + 1} of {len(pictures)}: " if len(pictures) > 1 else ""
        if in_a_row == MAX_FAILURES_IN_A_ROW:
            results.append(
                Failed(f"{where}not asked, for the endpoint failed {MAX_FAILURES_IN_A_ROW} times in a row")
            )
            continue
        own = replace(sampling, seed=(sampling.seed + i) % _SEEDS)
        try:
            results.append(respond(engine, conversation, pictures=(picture,), sampling=own, **settings))
            in_a_row = 0
        except EndpointError as error:
            first_error = first_error or EndpointError(f"{where}{error}", error.retry_in)
            results.append(Failed(f"{where}{error}"))
            in_a_row += 1
        except ValueError as error:
            first_error = first_error or ValueError(f"{where}{error}")
            results.append(Failed(f"{where}{error}"))
            in_a_row = 0
    if first_error is not None and all(isinstance(result, Failed) for result in results):
        raise first_error
    return results
