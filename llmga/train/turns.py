"""Tokenisation of conversations with labels: only the assistant's words and their end token are learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from PIL import Image

from ..chat.formats import control_tokens

IGNORED = -100
"""The label of a token that is not learned, as PyTorch's cross-entropy has it."""


class SpokenTurn(Protocol):
    """One turn of a conversation, such as ``llmga.data.samples.SampleTurn``."""

    @property
    def role(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def shows_image(self) -> bool: ...


class Encoded(NamedTuple):
    """One conversation: ids and labels (T,) int64, pixels (pictures, 3, side, side) float32; ``cut`` is whether its end
    was lost."""

    ids: torch.Tensor
    labels: torch.Tensor
    pixels: torch.Tensor
    cut: bool = False

    @property
    def learned(self) -> bool:
        """Whether it teaches anything."""
        return bool((self.labels != IGNORED).any())


class ConversationInputs(NamedTuple):
    """Conversations of one part, padded on the right: ids and labels (B, T), all their pictures in order.

    ``weights`` (B, T) float32 says how much each label counts; without it all count alike.

    There is no attention mask: attention is causal, so that no token sees the padding behind it.
    """

    ids: torch.Tensor
    labels: torch.Tensor
    pixels: torch.Tensor
    weights: torch.Tensor | None = None


class TurnEncoder:
    """Reads conversations as a LLaVA's processor and chat template spell them.

    The ids are those of the whole text. What is learned of it lies between two texts that are tokenised too: the one
    that asks for an answer, which is what the model reads when it is used, and the one that ends with it.

    The processor is set to squash pictures to its square, whatever their shape, and keeps that when it is saved.
    A conversation beyond ``max_length`` tokens loses its end, and with it a picture that does not fit as a whole.

    Source: LLMGA 7e32eb6, llmga/llava/datasets/utils.py:649-873 and sg_dataset.py:88-108. Deviations: there, lengths
    that disagree mask the whole conversation, which goes unnoticed, here they raise; the pictures are squashed once,
    not to 512 pixels first; the cut never leaves half a picture.

    Raises:
        ValueError: the processor squashes no picture to one size, or has no chat template.
    """

    def __init__(self, processor: Any, max_length: int) -> None:
        if not processor.chat_template:
            raise ValueError("the base has no chat template; add its chat_template.jinja")
        self.processor, self.max_length = processor, max_length
        self._tokenizer = processor.tokenizer
        self._control = control_tokens(processor)
        self._side = squash(processor.image_processor)
        self._image_id: int = self._tokenizer.convert_tokens_to_ids(processor.image_token)
        blank = Image.new("RGB", (self._side, self._side))
        probe = processor(text=[processor.image_token], images=[blank], return_tensors="pt")
        self.image_tokens = int((probe["input_ids"] == self._image_id).sum())
        special = {i for i, token in self._tokenizer.added_tokens_decoder.items() if token.special}
        self._ends = special - {self._image_id, self._tokenizer.unk_token_id}

    @property
    def pad_id(self) -> int:
        return pad_id_of(self._tokenizer, self._image_id)

    def encode(
        self, turns: Sequence[SpokenTurn], pictures: Sequence[Image.Image], system: str = ""
    ) -> Encoded:
        """The conversation, with its pictures in the order in which turns show them.

        Raises:
            ValueError: the template or the tokenizer gives the answers no exact place in the text.
        """
        whole, all_labels = self._whole(turns, system)
        ids, labels = self._fitted(whole, all_labels)
        pixels = self.pixels(pictures[: self.pictures_in(ids)])
        return Encoded(torch.tensor(ids), torch.tensor(labels), pixels, len(ids) < len(whole))

    def tokens(self, turns: Sequence[SpokenTurn], system: str = "") -> tuple[list[int], list[int]]:
        """Ids and labels, each picture as all of its tokens. Raises as ``encode`` does."""
        return self._fitted(*self._whole(turns, system))

    def _whole(self, turns: Sequence[SpokenTurn], system: str) -> tuple[list[int], list[int]]:
        """As ``tokens``, of any length."""
        messages = [self._message("system", system)] if system else []
        said = len(messages)
        messages += [self._message(turn.role, turn.text, turn.shows_image) for turn in turns]
        ids = self._ids(messages)
        labels = [IGNORED] * len(ids)
        for k, turn in enumerate(turns, start=said):
            if turn.role == "assistant":
                asked = self._ids(messages[:k], ask=True)
                answered = ids if k + 1 == len(messages) else self._ids(messages[: k + 1])
                start, stop = len(asked), self._stop(answered)
                if ids[:start] != asked or ids[: len(answered)] != answered or stop <= start:
                    raise ValueError(
                        f"the chat template gives answer {k} no exact place: it writes no control token behind it, or "
                        "what it writes of a conversation's start is not the start of what it writes of the whole: "
                        f"{turn.text[:80]!r}. Set transcript to the family that the base was trained on"
                    )
                labels[start:stop] = ids[start:stop]
        return self._with_images(ids, labels)

    def pictures_in(self, ids: Sequence[int]) -> int:
        """How many pictures these ids show."""
        return list(ids).count(self._image_id) // self.image_tokens

    def pixels(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """(pictures, 3, side, side), as the vision tower takes them."""
        if not pictures:
            return torch.empty(0, 3, self._side, self._side)
        return self.processor.image_processor(images=list(pictures), return_tensors="pt")["pixel_values"]

    def collate(self, rows: Sequence[Encoded], device: torch.device) -> ConversationInputs:
        """A part of conversations, on the device."""
        pad = torch.nn.utils.rnn.pad_sequence
        ids = pad([row.ids for row in rows], batch_first=True, padding_value=self.pad_id)
        labels = pad([row.labels for row in rows], batch_first=True, padding_value=IGNORED)
        pixels = torch.cat([row.pixels for row in rows])
        return ConversationInputs(ids.to(device), labels.to(device), pixels.to(device))

    def _message(self, role: str, text: str, shows_image: bool = False) -> dict[str, Any]:
        # As LocalEngine: text that spells a control token is text.
        plain = self._control.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
        return {
            "role": role,
            "content": [{"type": "image"}] * shows_image + [{"type": "text", "text": plain}],
        }

    def _ids(self, messages: list[dict[str, Any]], ask: bool = False) -> list[int]:
        text = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)
        bos = self._tokenizer.bos_token
        return self._tokenizer(text, add_special_tokens=not (bos and text.startswith(bos)))["input_ids"]

    def _stop(self, ids: list[int]) -> int:
        """Behind the last control token, which ends the answer; the template may write more, such as a newline."""
        return next((i + 1 for i in reversed(range(len(ids))) if ids[i] in self._ends), 0)

    def _with_images(self, ids: list[int], labels: list[int]) -> tuple[list[int], list[int]]:
        counts = [self.image_tokens if token == self._image_id else 1 for token in ids]
        return tuple(  # type: ignore[return-value]
            [value for value, n in zip(row, counts, strict=True) for _ in range(n)] for row in (ids, labels)
        )

    def _fitted(self, ids: list[int], labels: list[int]) -> tuple[list[int], list[int]]:
        end = self.max_length
        if len(ids) > end:
            end -= ids[:end].count(self._image_id) % self.image_tokens
        return ids[:end], labels[:end]


def squash(image_processor: Any) -> int:
    """Make an image processor scale any picture to its square, aspect not kept; returns the side in pixels.

    Raises:
        ValueError: its pictures have no one size.
    """
    setting = image_processor.crop_size if image_processor.do_center_crop else image_processor.size
    side = _get(setting, "height") or _get(setting, "shortest_edge")
    if not side:
        raise ValueError(f"the base's image processor has no fixed size: {setting}")
    image_processor.size = {"height": side, "width": side}
    return side


def _get(setting: Any, name: str) -> int | None:
    return setting.get(name) if isinstance(setting, dict) else getattr(setting, name, None)


def pad_id_of(tokenizer: Any, image_id: int | None) -> int:
    """What fills the end of a row; any id will do, for nothing sees it, but a picture's: they are counted. Vicuna pads with
    ``<unk>``, which stands for a picture where its vocabulary has no room for another token."""
    candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0, 1)
    return next(i for i in candidates if i is not None and i != image_id)
