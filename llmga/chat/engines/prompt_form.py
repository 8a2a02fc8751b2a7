"""The form of a reply with prompts, ``… <gen_image> a prompt </gen_image> …``, held token by token in a local model.

A server is held to it by what is sent with the request, see ``prompt_grammar``.
"""

from __future__ import annotations

from typing import Any

import torch

from ..refusal import is_refusal
from ..tags import count_closed, open_block
from .prompt_grammar import CLOSING, OPENING
from .stream import Stream

_FILLER = " picture"
"""The prompt that is left when the reply has no room for one of the model's own."""


class PromptForm:
    """Logits processor that lets a reply end only when its answer holds so many closed prompts.

    It stands last, behind the draw. A token that the model chose stays, unless it would end the reply too early or the rest
    of the reply's room is needed for the tags: then a tag is written in its place, and the model goes on behind it. So a
    reply that has the form is the same with and without. A thought and a refusal are left alone.
    """

    def __init__(self, stream: Stream, tokenizer: Any, end_ids: set[int], count: int, room: int) -> None:
        """Watch a stream.

        Args:
            stream: of the reply, which has every token so far when this is called.
            tokenizer: the model's.
            end_ids: tokens that end a reply.
            count: closed prompts that the answer must hold; 0 changes nothing.
            room: tokens that the reply may have, a thought included.
        """
        self._stream, self._end_ids, self._count, self._room = stream, end_ids, count, room
        self._opening, self._closing, self._filler = (
            tokenizer(text, add_special_tokens=False)["input_ids"] for text in (OPENING, CLOSING, _FILLER)
        )
        self._waiting: list[int] = []

    def __call__(self, input_ids: Any, scores: torch.Tensor) -> torch.Tensor:
        """Values (1, rows) with the model's choice as their maximum in, the same or with another maximum out."""
        if self._waiting or self._needs_a_tag(int(scores.argmax())):
            return _only(scores, self._waiting.pop(0)) if self._waiting else self._without_end(scores)
        return scores

    def _needs_a_tag(self, choice: int) -> bool:
        """Whether ``choice`` must not stand; what has to stand there is then waiting, if it is settled."""
        said = self._stream.said
        missing = self._count and self._count - count_closed(said.answer)
        if said.unfinished or missing <= 0:
            return False
        block = open_block(said.answer)
        needed = missing * sum(map(len, (self._opening, self._filler, self._closing)))
        short = min(self._stream.answer_room, self._room_left) <= needed
        if not (short or choice in self._end_ids) or is_refusal(said.answer):
            return False
        if choice not in (*self._end_ids, self._closing[0]):  # the model would have gone on
            self._stream.cut = "context" if self._room_left < self._stream.answer_room else "max_new_tokens"
        if block is None:
            self._waiting = list(self._opening)
        elif count_closed(said.answer + CLOSING) > self._count - missing:
            self._waiting = list(self._closing)
        elif short:
            self._waiting = list(self._filler)
        return True

    @property
    def _room_left(self) -> int:
        return self._room - self._stream.received

    def _without_end(self, scores: torch.Tensor) -> torch.Tensor:
        """The choice that comes next after those that would end the reply: a prompt was opened and is empty."""
        return scores.index_fill(-1, torch.tensor(sorted(self._end_ids), device=scores.device), -torch.inf)


def _only(scores: torch.Tensor, token: int) -> torch.Tensor:
    alone = torch.full_like(scores, -torch.inf)
    alone[..., token] = 0
    return alone
