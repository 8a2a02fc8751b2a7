"""A language model that ComfyUI itself loaded (a CLIP with ``generate``), as a chat engine."""

from __future__ import annotations

from typing import Any

import torch

from ..llmga.chat import Conversation, OnText, Said, Sampling
from ..llmga.chat.engines.base import check_conversation
from ..llmga.images import from_pil


class HostEngine:
    """Continues a conversation with the host's ``CLIP.tokenize``, ``generate`` and ``decode``.

    The host knows one user turn and no system prompt, so a longer conversation is written as a transcript inside that turn;
    its own chat template is then put around it. It streams no text: ``on_text`` is called before and after, and Cancel
    works inside, where the host checks it at every layer.
    """

    name = "ComfyUI's language model"

    def __init__(self, clip: Any, supports_pictures: bool) -> None:
        self.clip = clip
        self.supports_pictures = supports_pictures

    def generate(self, conversation: Conversation, sampling: Sampling, on_text: OnText) -> Said:
        check_conversation(conversation, self)
        on_text("")
        tokens = self.clip.tokenize(transcript(conversation), image=_batch(conversation), min_length=1)
        greedy = sampling.temperature == 0
        # The host draws from a generator of its own, so the global random state is left alone.
        ids = self.clip.generate(
            tokens,
            do_sample=not greedy,
            max_length=sampling.max_new_tokens,
            temperature=1.0 if greedy else sampling.temperature,
            top_k=0,
            top_p=sampling.top_p,
            min_p=0.0,
            repetition_penalty=1.0,
            seed=sampling.seed,
        )
        said = Said.of(self.clip.decode(ids))
        on_text(said.shown)
        return said


def transcript(conversation: Conversation) -> str:
    """The conversation as one text: alone, a first instruction stands as it is below the system prompt."""
    *earlier, last = conversation.turns
    parts = [conversation.system] if conversation.system else []
    if earlier:
        names = {"user": "User", "assistant": "Assistant"}
        parts += [f"{names[turn.role]}: {turn.text}" for turn in conversation.turns]
        parts.append("Answer the last message of the user as the assistant.")
    else:
        parts.append(last.text)
    return "\n\n".join(parts)


def _batch(conversation: Conversation) -> torch.Tensor | None:
    """All pictures as one IMAGE batch: the host takes no other form, so all are brought to the size of the last."""
    if not conversation.pictures:
        return None
    pictures = [picture.to_pil() for picture in conversation.pictures]
    return from_pil([picture.resize(pictures[-1].size) for picture in pictures])
