"""A conversation as the messages that a model's chat template reads, in the form that this template reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ..conversation import Conversation

PROBE = "llmga-probe"
PICTURE_MARK = "<image>"
"""The mark of a picture in LLaVA's own transcripts, which a template without parts leaves as it is."""
_WRITTEN_PART = re.compile(r"""["']type["']\s{0,4}:\s{0,4}["']text["']""")

ChatMessage = dict[str, Any]


class MessageWriter:
    """Writes messages whose content is a list of parts for a vision-language model, a text for another.

    Some folders have the template of the language model alone beside a vision tower: of a list it makes nothing, or
    Python's spelling of a list. There a picture is ``<image>`` and a line break before the text, if that is the
    processor's token of a picture.

    Args:
        render: the text of messages; raises ``ValueError`` where the template refuses them.
        has_vision: the model reads pictures.
        image_token: the processor's.

    Raises:
        ValueError: the template loses the text in both forms, or the pictures.
    """

    def __init__(
        self, render: Callable[[list[ChatMessage]], str], has_vision: bool, image_token: str
    ) -> None:
        self._render = render
        self._refusal: ValueError | None = None
        self._in_parts = has_vision
        if not self._keeps(self.message("user", PROBE)):
            self._in_parts = not has_vision
            if (has_vision and image_token != PICTURE_MARK) or not self._keeps(self.message("user", PROBE)):
                raise self._refusal or ValueError(
                    f"its chat template leaves out the text{' or the pictures' * has_vision} of a message; take "
                    "chat_template.jinja or chat_template.json from the model's page"
                )
        self._takes_system = self._keeps(self.message("system", PROBE), self.message("user", "?"))

    def messages(self, conversation: Conversation, plain: Callable[[str], str]) -> list[ChatMessage]:
        """The messages; a turn's pictures come before its text, a system prompt that the template drops before the first
        user's text.

        Args:
            plain: what becomes of each text.
        """
        system = plain(conversation.system)
        messages = [self.message("system", system)] if system and self._takes_system else []
        pending = "" if self._takes_system else system
        for turn in conversation.turns:
            text = plain(turn.text)
            if pending and turn.role == "user":
                text, pending = f"{pending}\n\n{text}", ""
            messages.append(self.message(turn.role, text, len(turn.pictures)))
        return messages

    def message(self, role: str, text: str, pictures: int = 0) -> ChatMessage:
        if not self._in_parts:
            return {"role": role, "content": f"{PICTURE_MARK}\n" * pictures + text}
        return {"role": role, "content": [{"type": "image"}] * pictures + [{"type": "text", "text": text}]}

    def _keeps(self, *messages: ChatMessage) -> bool:
        """Whether the template writes the probe that is the text of the first message, and as it is."""
        try:
            text = self._render(list(messages))
        except ValueError as error:
            self._refusal = self._refusal or error
            return False
        return PROBE in text and _WRITTEN_PART.search(text) is None
