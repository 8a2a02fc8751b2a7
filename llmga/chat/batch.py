"""The same request about each picture of a batch; ``respond`` shows a whole batch in one turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .assistant import Reply, respond
from .conversation import Conversation, Picture
from .engines.base import ChatEngine, Sampling

_SEEDS = 2**64


def respond_each(
    engine: ChatEngine,
    conversation: Conversation,
    *,
    pictures: Sequence[Picture],
    sampling: Sampling,
    **settings: Any,
) -> list[Reply]:
    """One reply for each picture, in order; each is asked about as if it were the only one.

    All replies continue the same conversation, so a local engine reads that once. Picture ``i`` has the seed
    ``seed + i``: alone with that seed it gets the same reply.

    Args:
        settings: what else ``respond`` takes.

    Raises:
        ValueError: there is no picture; and what ``respond`` raises, with the picture's number in front.
    """
    if not pictures:
        raise ValueError("one reply for each picture needs a picture; connect 'image'")
    replies = []
    for i, picture in enumerate(pictures):
        seed = (sampling.seed + i) % _SEEDS
        try:
            replies.append(
                respond(
                    engine,
                    conversation,
                    pictures=(picture,),
                    sampling=replace(sampling, seed=seed),
                    **settings,
                )
            )
        except ValueError as error:
            where = f"picture {i + 1} of {len(pictures)}: " if len(pictures) > 1 else ""
            raise ValueError(f"{where}{error}") from error
    return replies
