"""The host's CLIP as a ``PromptEncoder``: its own tokenizers, textual inversions, clip skip, hooks and schedules."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any, get_args

import torch

from ..llmga.text import JoinLayout, Plans, PromptEncoder, Whole
from ..llmga.text.chunks import BOS, CONTENT, EOS, TRAINED_CHUNKS
from ..llmga.text.encoder import ChunkIds
from . import check, embeddings

LAYOUTS = get_args(JoinLayout)
PADDING = {"l": EOS, "g": 0}
"""The padding of SD1.5's and SDXL's encoders, by the names ComfyUI gives their tokens."""

Conditioning = list[list[Any]]
"""The host's: [rows (1, tokens, dim), {"pooled_output": …}] for each stretch of the schedule."""


class HostPromptEncoder(PromptEncoder[Conditioning]):
    """``PromptEncoder`` on a CLIP of ComfyUI.

    Args:
        encoders: what ``clip_encoders`` says of the CLIP.
    """

    def __init__(
        self,
        clip: Any,
        encoders: Sequence[str],
        layout: JoinLayout = "llmga",
        max_chunks: int = TRAINED_CHUNKS,
    ) -> None:
        super().__init__(encoders, [PADDING[name] for name in encoders], layout, max_chunks)
        self.clip = clip

    def tokenize(self, encoder: str, text: str) -> list[Any]:
        # The host reads \( as ( even with weights off; doubled, the backslash stays the text it is.
        literal = re.sub(r"\\([()])", r"\\\\\1", text)
        options = {"return_word_ids": True, "disable_weights": True}
        chunks = embeddings.tokenize(self.clip, "the prompt", literal, **options)[encoder]
        # BOS, EOS and padding have the word number 0.
        pairs = [(token, word) for chunk in chunks for token, _, word in chunk if word]
        width = embeddings.width_of(self.clip, f"clip_{encoder}")
        ids: list[Any] = []
        for (_, is_vector), group in groupby(
            pairs, key=lambda pair: (pair[1], isinstance(pair[0], torch.Tensor))
        ):
            tokens = [token for token, _ in group]
            if not is_vector:
                ids += tokens
            # The host leaves out vectors of another width, in the middle of encoding; nodes say so.
            elif width in (None, tokens[0].shape[-1]):
                ids.append(Whole(tokens))
        return ids

    def zeros_like(self, context: Conditioning) -> Conditioning:
        return zeros_like(context)

    def _encode_ids(self, chunks: Sequence[ChunkIds]) -> Conditioning:
        # The host itself cuts, pads and weighs nothing here, so that clip skip, hooks and schedules work as usual. It
        # keeps the pooled vector of the first chunk that it is given.
        tokens = {
            name: [[(token, 1.0) for token in chunk[i]] for chunk in chunks]
            for i, name in enumerate(self.encoders)
        }
        return encode_tokens(self.clip, "the prompt", tokens)

    def _context(self, encoded: Conditioning, numbers: Sequence[int], plans: Plans) -> Conditioning:
        context = []
        for cond, extra in encoded:
            hidden = cond[0].unflatten(0, (-1, CONTENT + 2))  # (1, U · 77, dim) -> (U, 77, dim)
            context.append([self._join(hidden, numbers, plans), extra])
        return context


def encode_tokens(clip: Any, name: str, tokens: dict[str, Any]) -> Conditioning:
    """The host's conditioning of tokens.

    Args:
        name: of the input that holds the text, for the error.

    Raises:
        ValueError: its numbers are not finite, of which a sampler makes a black picture without a word.
    """
    found = clip.encode_from_tokens_scheduled(tokens)
    for rows, _ in found:
        check.finite(
            f"clip, for {name}, gives",
            rows,
            "write weights such as (word:1.2) nearer to 1, or load the text encoder in another precision",
        )
    return found


def clip_encoders(clip: Any) -> tuple[str, ...]:
    """The encoders of SD1.5's CLIP, ("l",), of SDXL's, ("l", "g"), or () for any other text encoder.

    They are known by what the tokenizer makes of an empty text: SD3 and Flux have more encoders, Long-CLIP more positions.

    Raises:
        ValueError: it is not a CLIP.
    """
    if not hasattr(clip, "tokenize") or not hasattr(clip, "encode_from_tokens_scheduled"):
        raise ValueError(
            f"clip must be a CLIP from a checkpoint or CLIP loader, got {type(clip).__name__}; "
            "the checkpoint may hold no text encoder"
        )
    empty = clip.tokenize("")
    for encoders in (("l",), ("l", "g")):
        if empty.keys() == set(encoders) and all(
            [[token[0] for token in chunk] for chunk in empty[name]]
            == [[BOS, EOS, *[PADDING[name]] * CONTENT]]
            for name in encoders
        ):
            return encoders
    return ()


def zeros_like(conditioning: Conditioning) -> Conditioning:
    """Zeros in the shape of a conditioning, its pooled vector included, as the host's ConditioningZeroOut."""
    zeros = []
    for cond, extra in conditioning:
        pooled = extra.get("pooled_output")
        if pooled is not None:
            extra = extra | {"pooled_output": torch.zeros_like(pooled)}
        zeros.append([torch.zeros_like(cond), extra])
    return zeros
