"""Long prompts through CLIP text encoders: plan chunks, encode each different chunk once, join the outputs.

``PromptEncoder`` is that procedure for any CLIP; ``CLIPPromptEncoder`` runs it on Hugging Face models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import torch

from .chunks import (
    BOS,
    EOS,
    TRAINED_CHUNKS,
    JoinLayout,
    Plan,
    Token,
    check_count,
    chunk_ids,
    join_chunks,
    plan_prompt,
    weigh,
)
from .prompt import BreakAt

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

Plans = dict[str, Plan]
"""The plan of one prompt for each text encoder: ``l`` is CLIP-L, ``g`` is SDXL's second encoder, OpenCLIP bigG."""

ChunkIds = tuple[tuple[Any, ...], ...]
"""The 77 ids of one chunk for each text encoder; on the host an id may be the vector of a textual inversion."""

Context = TypeVar("Context")
Key = TypeVar("Key", bound=Hashable)


class PromptEncoder(ABC, Generic[Context]):
    """Encodes prompts of any length with the text encoder of SD1.5, or the two of SDXL.

    A subclass says how a text is tokenised, how ids are encoded, and what a context is.

    Args:
        encoders: ``("l",)`` for SD1.5, ``("l", "g")`` for SDXL.
        padding: the id of padding for each encoder.
        layout: how outputs are joined; SDXL always has ``llmga``, for LLMGA's SDXL runs as it was trained.
        max_chunks: tokens beyond so many chunks are left out.

    Raises:
        ValueError: ``max_chunks`` is out of range.
    """

    def __init__(
        self,
        encoders: Sequence[str],
        padding: Sequence[int],
        layout: JoinLayout = "llmga",
        max_chunks: int = TRAINED_CHUNKS,
    ) -> None:
        check_count("max_chunks", max_chunks)
        self.encoders = tuple(encoders)
        self.padding = tuple(padding)
        self.layout: JoinLayout = "llmga" if self.is_sdxl else layout
        self.max_chunks = max_chunks

    @property
    def is_sdxl(self) -> bool:
        return len(self.encoders) == 2

    def plan(
        self, text: str, *, weights: bool = False, break_at: BreakAt = "hard", break_word: bool = False
    ) -> Plans:
        """Tokenise a prompt and distribute its tokens over chunks, for each encoder.

        Raises:
            ValueError: see ``prompt.spans``.
        """
        return {name: self._plan(name, text, weights, break_at, break_word) for name in self.encoders}

    def encode(self, plans: Plans, chunks: int = 1) -> Context:
        """Encode one planned prompt, padded to ``chunks`` chunks if it has fewer, in one encoder call."""
        (padded,) = pad_plans([plans], chunks)
        (numbers,), different = self._number([padded])
        return self._context(self._encode_ids(different), numbers, padded)

    def encode_negative(self, text: str, chunks: int, like: Context) -> Context:
        """Encode a negative prompt at exactly ``chunks`` chunks, so that all rows of a UNet call are equally long.

        Text beyond these chunks is left out. For SDXL an empty prompt becomes zeros in the shape of ``like``.

        Source: LLMGA 7e32eb6, pipeline_stable_diffusion_xl_lpw.py: ``force_zeros_for_empty_prompt``.
        """
        if self.is_sdxl and not text.strip():
            return self.zeros_like(like)
        return self.encode(self.plan_negative(text, chunks), chunks)

    def plan_negative(self, text: str, chunks: int) -> Plans:
        """Plan a negative prompt at no more than ``chunks`` chunks; the plans say what is dropped for that."""
        plans = {}
        for name, plan in self.plan(text).items():
            beyond = tuple(chain.from_iterable(plan.chunks[chunks:]))
            plans[name] = Plan(plan.chunks[:chunks], plan.cuts[: chunks - 1], beyond + plan.dropped)
        return plans

    @abstractmethod
    def tokenize(self, encoder: str, text: str) -> Sequence[Any]:
        """The ids of a text for one of ``encoders``, without BOS, EOS and padding; see ``plan_prompt``."""

    @abstractmethod
    def zeros_like(self, context: Context) -> Context:
        """A context of zeros in the shape of another."""

    @abstractmethod
    def _encode_ids(self, chunks: Sequence[ChunkIds]) -> Any:
        """Run different chunks through the encoders in one call; what it returns is for ``_context``."""

    @abstractmethod
    def _context(self, encoded: Any, numbers: Sequence[int], plans: Plans) -> Context:
        """The context of one prompt: its chunks are the ``numbers`` among the encoded ones."""

    def _plan(
        self,
        encoder: str,
        text: str,
        weights: bool = False,
        break_at: BreakAt = "hard",
        break_word: bool = False,
    ) -> Plan:
        return plan_prompt(
            text,
            partial(self.tokenize, encoder),
            weights=weights,
            break_at=break_at,
            max_chunks=self.max_chunks,
            break_word=break_word,
        )

    def _number(self, prompts: Sequence[Plans]) -> tuple[list[list[int]], list[ChunkIds]]:
        """Number the different chunks of prompts; the last chunk of the last prompt is number 0.

        Chunks of padding, and of a prompt that comes twice, are encoded once. They are numbered backwards because the
        host pools the first chunk that it is given, and LLMGA the last chunk of a prompt.
        """
        ids = [self._chunk_ids(plans) for plans in reversed(prompts)]
        numbers, different = number_chunks(list(reversed(chunks)) for chunks in ids)
        return [list(reversed(row)) for row in reversed(numbers)], different

    def _chunk_ids(self, plans: Plans) -> list[ChunkIds]:
        of_each_encoder = [
            [tuple(chunk_ids(chunk, pad)) for chunk in plans[name].chunks]
            for name, pad in zip(self.encoders, self.padding, strict=True)
        ]
        return list(zip(*of_each_encoder, strict=True))

    def _join(self, hidden: torch.Tensor, numbers: Sequence[int], plans: Plans) -> torch.Tensor:
        """The rows (1, T, dim) of one prompt out of the different chunks' hidden states (U, 77, dim)."""
        rows = join_chunks(hidden[list(numbers)][None], self.layout)
        return weigh(rows, plans["l"], self.layout)


def number_chunks(
    prompts: Iterable[Iterable[Key]], known: Iterable[Key] = ()
) -> tuple[list[list[int]], list[Key]]:
    """Number the different chunks of several prompts in the order in which they appear, ``known`` ones first.

    Returns:
        For each prompt the numbers of its chunks, and the chunk behind each number.
    """
    found = {chunk: number for number, chunk in enumerate(known)}
    numbers = [[found.setdefault(chunk, len(found)) for chunk in prompt] for prompt in prompts]
    return numbers, list(found)


def longest(*prompts: Plans) -> int:
    """How many chunks the longest of some planned prompts has."""
    return max(len(plan.chunks) for plans in prompts for plan in plans.values())


def pad_plans(prompts: Sequence[Plans], chunks: int = 1) -> list[Plans]:
    """Pad planned prompts to one chunk count, at least ``chunks``, as LLMGA's training pads a batch of prompts.

    Raises:
        ValueError: ``chunks`` is out of range.
    """
    check_count("min_chunks", chunks)
    count = max(chunks, longest(*prompts))
    return [{name: plan.padded(count) for name, plan in plans.items()} for plans in prompts]


class EncodedPrompt(NamedTuple):
    """A prompt as a UNet reads it."""

    states: torch.Tensor
    """(1, T, dim): T is 75·n + 2 or 77·n, see ``join_chunks``."""
    pooled: torch.Tensor | None = None
    """(1, projection dim): SDXL's pooled vector of the last chunk, padding or not."""


class CLIPPromptEncoder(PromptEncoder[EncodedPrompt]):
    """``PromptEncoder`` on Hugging Face models.

    Args:
        tokenizers: one for SD1.5, two for SDXL.
        text_encoders: as many: ``CLIPTextModel``, for SDXL ``CLIPTextModelWithProjection`` as the second.

    Raises:
        ValueError: a tokenizer is not CLIP's, or ``max_chunks`` is out of range.
    """

    def __init__(
        self,
        tokenizers: Sequence[Any],
        text_encoders: Sequence[Any],
        layout: JoinLayout = "llmga",
        max_chunks: int = TRAINED_CHUNKS,
    ) -> None:
        for tokenizer in tokenizers:
            if (tokenizer.bos_token_id, tokenizer.eos_token_id) != (BOS, EOS):
                raise ValueError(
                    f"the tokenizer's BOS and EOS are {tokenizer.bos_token_id} and {tokenizer.eos_token_id}, CLIP's "
                    f"are {BOS} and {EOS}"
                )
        names: list[str] = ["l", "g"][: len(tokenizers)]
        super().__init__(names, [each.pad_token_id for each in tokenizers], layout, max_chunks)
        self.tokenizers = dict(zip(names, tokenizers, strict=True))
        self.text_encoders = tuple(text_encoders)

    def tokenize(self, encoder: str, text: str) -> list[int]:
        # Not verbose: a warning about more than 77 tokens would be wrong here.
        return self.tokenizers[encoder](text, add_special_tokens=False, verbose=False).input_ids

    def zeros_like(self, context: EncodedPrompt) -> EncodedPrompt:
        pooled = None if context.pooled is None else torch.zeros_like(context.pooled)
        return EncodedPrompt(torch.zeros_like(context.states), pooled)

    @torch.no_grad()
    def encode_all(self, prompts: Sequence[Plans], chunks: int = 1) -> EncodedPrompt:
        """Encode planned prompts at the length of the longest, at least ``chunks`` chunks, in one encoder call.

        Returns:
            ``states`` (prompts, T, dim), for SDXL ``pooled`` (prompts, projection dim).
        """
        padded = pad_plans(prompts, chunks)
        numbers, different = self._number(padded)
        encoded = self._encode_ids(different)
        contexts = [self._context(encoded, row, plans) for row, plans in zip(numbers, padded, strict=True)]
        pooled = [context.pooled for context in contexts if context.pooled is not None]
        return EncodedPrompt(
            torch.cat([context.states for context in contexts]), torch.cat(pooled) if pooled else None
        )

    def chunks(self, text: str) -> list[tuple[int, ...]]:
        """The ids of a prompt's chunks, up to 75 each; SDXL's two tokenizers give the same ones."""
        return [tuple(token.id for token in chunk) for chunk in self._plan("l", text).chunks]

    def ids(self, chunks: Iterable[Sequence[int]]) -> torch.Tensor:
        """The 77 positions of chunks of up to 75 ids for each encoder, (U, encoders, 77) int64."""
        rows = [[chunk_ids([Token(i) for i in chunk], pad) for pad in self.padding] for chunk in chunks]
        return torch.tensor(rows, dtype=torch.int64)

    def hidden_states(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Run chunks (U, encoders, 77) through CLIP, with gradients if they are on.

        Returns:
            For SD1.5 the last hidden state (U, 77, dim) and None; for SDXL the penultimate hidden states of both
            encoders side by side, (U, 77, dim of the first + dim of the second), and the second's projected pooled
            vector (U, projection dim).
        """
        if not self.is_sdxl:
            return self.text_encoders[0](ids[:, 0])[0], None
        outputs = [net(ids[:, k], output_hidden_states=True) for k, net in enumerate(self.text_encoders)]
        return torch.cat([output.hidden_states[-2] for output in outputs], -1), outputs[1].text_embeds

    @torch.no_grad()
    def _encode_ids(self, chunks: Sequence[ChunkIds]) -> tuple[torch.Tensor, torch.Tensor | None]:
        # In the order of their ids: to the last bit, the result does not depend on the order of the prompts.
        order = sorted(range(len(chunks)), key=lambda number: chunks[number])
        back = torch.tensor(order).argsort()
        ids = torch.tensor([chunks[number] for number in order], device=self.text_encoders[0].device)
        hidden, pooled = self.hidden_states(ids)
        return hidden[back], None if pooled is None else pooled[back]

    def _context(
        self, encoded: tuple[torch.Tensor, torch.Tensor | None], numbers: Sequence[int], plans: Plans
    ) -> EncodedPrompt:
        hidden, pooled = encoded
        last = numbers[-1]
        return EncodedPrompt(
            self._join(hidden, numbers, plans), None if pooled is None else pooled[last : last + 1]
        )


def encode_sd15(
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    text: str | Sequence[str],
    *,
    layout: JoinLayout = "llmga",
    weights: bool = False,
    break_at: BreakAt = "hard",
    max_chunks: int = TRAINED_CHUNKS,
    min_chunks: int = 1,
    break_word: bool = False,
) -> torch.Tensor:
    """Encode one prompt, or several at the length of the longest, for an SD1.5 UNet.

    Returns:
        The last hidden state, (prompts, 75·n + 2, dim) for ``llmga`` or (prompts, 77·n, dim) for
        ``llmga_lpw``: n is the chunk count of the longest text, at least ``min_chunks``. A text's tokens
        beyond ``max_chunks`` are left out; ``PromptEncoder.plan`` tells which.

    Raises:
        ValueError: an option is out of range, or the tokenizer is not CLIP's.

    Source: LLMGA, llmga/diffusers/my_utils/util.py, ``get_text_index`` and ``get_unweighted_text_embeddings``
    (layout ``llmga``), pipeline_stable_diffusion_inpaint_lpw.py, ``get_weighted_text_embeddings`` (layout
    ``llmga_lpw``), both at commit 7e32eb6. LLMGA's SD1.5 text-to-image runs with ``max_chunks=3``, its
    inpainting with 4; both read weights.
    """
    encoder = CLIPPromptEncoder((tokenizer,), (text_encoder,), layout, max_chunks)
    prompts = [
        encoder.plan(each, weights=weights, break_at=break_at, break_word=break_word) for each in _texts(text)
    ]
    return encoder.encode_all(prompts, min_chunks).states


def encode_sdxl(
    tokenizers: tuple[CLIPTokenizer, CLIPTokenizer],
    text_encoders: tuple[CLIPTextModel, CLIPTextModelWithProjection],
    text: str | Sequence[str],
    *,
    break_at: BreakAt = "hard",
    max_chunks: int = TRAINED_CHUNKS,
    min_chunks: int = 1,
    break_word: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode one prompt, or several at the length of the longest, for an SDXL UNet.

    LLMGA's SDXL runs as it was trained, in the layout ``llmga`` and without weights. An empty negative prompt
    is not encoded there: its embeddings and pooled vector are zeros (``PromptEncoder.encode_negative``).

    Returns:
        The penultimate hidden states of both encoders side by side, (prompts, 75·n + 2, dim of the first +
        dim of the second), and the second's projected pooled vector of the last chunk, padding or not,
        (prompts, projection dim).

    Raises:
        ValueError: an option is out of range, or a tokenizer is not CLIP's.

    Source: LLMGA, llmga/diffusers/pipeline_stable_diffusion_xl_lpw.py, ``encode_prompt`` and
    my_utils/util.py, ``get_unweighted_text_embeddings_SDXL1`` / ``SDXL2`` (commit 7e32eb6).
    """
    encoder = CLIPPromptEncoder(tokenizers, text_encoders, max_chunks=max_chunks)
    states, pooled = encoder.encode_all(
        [encoder.plan(each, break_at=break_at, break_word=break_word) for each in _texts(text)], min_chunks
    )
    if pooled is None:
        raise ValueError("encode_sdxl needs two tokenizers and two text encoders; for one take encode_sd15")
    return states, pooled


def _texts(text: str | Sequence[str]) -> list[str]:
    texts = [text] if isinstance(text, str) else list(text)
    if not texts or not all(isinstance(each, str) for each in texts):
        raise ValueError("text must be a prompt or a non-empty list of prompts")
    return texts
