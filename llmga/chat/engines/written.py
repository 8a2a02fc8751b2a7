"""A reply that a person has edited or chosen, as an engine: no language model is asked."""

from __future__ import annotations

from ..conversation import Conversation
from .base import OnText, Said, Sampling, check_conversation


class WrittenReply:
    """An engine that always gives one reply, so that an edited prompt takes the way of every other.

    Args:
        text: the reply, with its ``<gen_image>`` tags.
    """

    name = "the edited reply"
    supports_pictures = True
    knows_tags = True
    """It adds no system prompt to the conversation, so that the engine of the next turn brings its own."""

    def __init__(self, text: str) -> None:
        self._text = text

    def generate(self, conversation: Conversation, sampling: Sampling, on_text: OnText) -> Said:
        """See ``ChatEngine.generate``; ``on_text`` is called once, with the whole reply."""
        check_conversation(conversation, self)
        on_text(self._text)
        return Said.of(self._text)
