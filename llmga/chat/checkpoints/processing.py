"""Processor of official checkpoints: tokenises a transcript piece by piece and prepares its pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..conversation import MAX_PICTURES, Picture
from .families import IMAGE
from .vision import SquashedPictures

_RESERVED = re.compile(r"<\|?(?:reserved_special_token_|placeholder|unused)(\d{1,9})\|?>")
_STRANGE = "狐\U0001f98a\u0378\x01"
"""Letters that no vocabulary has: a tokenizer with bytes to fall back on still says no ``<unk>`` for them."""


@dataclass(frozen=True)
class ImageToken:
    """A token id that no text becomes, to stand for one feature of a picture.

    Args:
        id: below the rows of the embedding, so that no layer has to grow.
        token: its text in the tokenizer, or None where the tokenizer does not reach it.
    """

    id: int
    token: str | None


def find_image_token(tokenizer: Any, rows: int) -> ImageToken:
    """Find one: ``<image>`` itself, a padding row, a reserved token, or an ``<unk>`` that is never said.

    Raises:
        ValueError: every row of the embedding is some text.
    """
    vocabulary = tokenizer.get_vocab()
    if IMAGE in vocabulary:
        return ImageToken(vocabulary[IMAGE], IMAGE)
    if (free := max(vocabulary.values()) + 1) < rows:
        return ImageToken(free, None)
    taken = {tokenizer.pad_token, tokenizer.unk_token}  # LLMGA pads Llama 3 with a reserved token
    reserved = [
        (int(match[1]), token)
        for token in vocabulary
        if (match := _RESERVED.fullmatch(token)) and token not in taken
    ]
    if reserved:
        token = max(reserved)[1]
        return ImageToken(vocabulary[token], token)
    unk = tokenizer.unk_token_id
    if unk is not None and unk not in tokenizer(_STRANGE)["input_ids"]:
        return ImageToken(unk, tokenizer.unk_token)
    raise ValueError("its tokenizer leaves no token id that could stand for a picture")


class OfficialProcessor:
    """A processor like transformers' own, that reads as LLMGA was trained to.

    The transcript is split at its pictures and each piece tokenised alone, the start token kept from the first only: a
    SentencePiece tokenizer puts a space before each piece that it would not put in one text.

    Attributes:
        tokenizer, chat_template: the transcript's; the template writes ``<image>`` for a picture.
        image_token: what no other text of a transcript may spell.
        placeholder_token: nor may it spell this one, if it is not None.

    Source: LLMGA 7e32eb6, llmga/llava/mm_utils.py:185-204.
    """

    image_token = IMAGE
    keeps_pictures = True
    """It takes a conversation's pictures as they are, and prepares each of the last ones once."""

    def __init__(
        self, tokenizer: Any, chat_template: str, image_token: ImageToken, size: int, features: int
    ) -> None:
        """Take pictures of ``size`` px that become ``features`` tokens each."""
        self.tokenizer = tokenizer
        self.chat_template = chat_template
        self.image_processor = SquashedPictures(size)
        self.placeholder_token = image_token.token
        self._id = image_token.id
        self._features = features
        self._prepared: dict[str, torch.Tensor] = {}

    def apply_chat_template(self, messages: list[dict[str, Any]], **settings: Any) -> str:
        return self.tokenizer.apply_chat_template(messages, chat_template=self.chat_template, **settings)

    def __call__(
        self, text: Sequence[str], images: Sequence[Sequence[Picture]] | None = None, **_: Any
    ) -> dict[str, torch.Tensor]:
        """One transcript's ``input_ids`` and ``attention_mask`` (1, tokens), and ``pixel_values`` (pictures, 3, size, size)
        if there are any."""
        bos = self.tokenizer.bos_token_id
        ids: list[int] = []
        for i, piece in enumerate(text[0].split(IMAGE)):
            tokens = self.tokenizer(piece)["input_ids"]
            if i:
                ids += [self._id] * self._features
                tokens = tokens[1:] if tokens and tokens[0] == bos else tokens
            ids += tokens
        inputs = {
            "input_ids": torch.tensor([ids]),
            "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
        }
        if images:
            inputs["pixel_values"] = torch.stack([self._prepare(picture) for picture in images[0]])
        return inputs

    def _prepare(self, picture: Picture) -> torch.Tensor:
        if picture.sha256 not in self._prepared:
            while len(self._prepared) >= MAX_PICTURES:
                del self._prepared[next(iter(self._prepared))]
            self._prepared[picture.sha256] = self.image_processor(picture.to_pil())
        return self._prepared[picture.sha256]
