"""LLMGA's prompt encoding on Hugging Face CLIP models, for any number of chunks in one encoder call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from .chunks import BOS, EOS, TRAINED_CHUNKS, Layout, Plan, chunk_ids, join, read, same_length, weigh
from .prompt import BreakAt

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer


@torch.no_grad()
def encode_sd15(
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    text: str | Sequence[str],
    *,
    layout: Layout = "llmga",
    weights: bool = False,
    break_at: BreakAt = "hard",
    max_chunks: int = TRAINED_CHUNKS,
    min_chunks: int = 1,
) -> torch.Tensor:
    """Encode one prompt, or several at the length of the longest, for an SD1.5 UNet.

    Returns:
        The last hidden state, (prompts, 75·n + 2, dim) for ``llmga`` or (prompts, 77·n, dim) for
        ``llmga_lpw``: n is the chunk count of the longest text, at least ``min_chunks``. A text's tokens
        beyond ``max_chunks`` are left out; ``read`` tells which.

    Raises:
        ValueError: an option is out of range, or the tokenizer is not CLIP's.

    Source: LLMGA, llmga/diffusers/my_utils/util.py, ``get_text_index`` and ``get_unweighted_text_embeddings``
    (layout ``llmga``), pipeline_stable_diffusion_inpaint_lpw.py, ``get_weighted_text_embeddings`` (layout
    ``llmga_lpw``), both at commit 7e32eb6. LLMGA's SD1.5 text-to-image runs with ``max_chunks=3``, its
    inpainting with 4; both read weights.
    """
    texts, options = _texts(text), {"weights": weights, "break_at": break_at, "max_chunks": max_chunks}
    plans = same_length([read(each, _content(tokenizer), **options) for each in texts], min_chunks)
    ids, where = _unique_ids(plans, tokenizer, text_encoder)
    hidden = text_encoder(ids)[0][where]  # (prompts, n, 77, dim)
    return torch.cat([weigh(join(h, layout), each, layout) for h, each in zip(hidden, plans, strict=True)])


@torch.no_grad()
def encode_sdxl(
    tokenizers: tuple[CLIPTokenizer, CLIPTokenizer],
    text_encoders: tuple[CLIPTextModel, CLIPTextModelWithProjection],
    text: str | Sequence[str],
    *,
    break_at: BreakAt = "hard",
    max_chunks: int = TRAINED_CHUNKS,
    min_chunks: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode one prompt, or several at the length of the longest, for an SDXL UNet.

    LLMGA's SDXL runs as it was trained, in the layout ``llmga`` and without weights. An empty negative prompt
    is not encoded there: its embeddings and pooled vector are zeros.

    Returns:
        The penultimate hidden states of both encoders side by side, (prompts, 75·n + 2, dim of the first +
        dim of the second), and the second's projected pooled vector of the last chunk, padding or not,
        (prompts, projection dim).

    Raises:
        ValueError: an option is out of range, or a tokenizer is not CLIP's.

    Source: LLMGA, llmga/diffusers/pipeline_stable_diffusion_xl_lpw.py, ``encode_prompt`` and
    my_utils/util.py, ``get_unweighted_text_embeddings_SDXL1`` / ``SDXL2`` (commit 7e32eb6).
    """
    texts = _texts(text)
    options = {"break_at": break_at, "max_chunks": max_chunks}
    plans = [read(each, _content(tokenizer), **options) for tokenizer in tokenizers for each in texts]
    plans = same_length(plans, min_chunks)  # the first tokenizer's, then the second's
    halves = []
    for i, (tokenizer, text_encoder) in enumerate(zip(tokenizers, text_encoders, strict=True)):
        ids, where = _unique_ids(plans[i * len(texts) : (i + 1) * len(texts)], tokenizer, text_encoder)
        output = text_encoder(ids, output_hidden_states=True)
        hidden = output.hidden_states[-2][where]  # (prompts, n, 77, dim)
        halves.append(torch.cat([join(h, "llmga") for h in hidden]))
    return torch.cat(halves, dim=-1), output.text_embeds[where[:, -1]]


def _texts(text: str | Sequence[str]) -> list[str]:
    texts = [text] if isinstance(text, str) else list(text)
    if not texts or not all(isinstance(each, str) for each in texts):
        raise ValueError("text must be a prompt or a non-empty list of prompts")
    return texts


def _content(tokenizer: CLIPTokenizer) -> Callable[[str], list[int]]:
    if (tokenizer.bos_token_id, tokenizer.eos_token_id) != (BOS, EOS):
        raise ValueError(
            f"the tokenizer's BOS and EOS are {tokenizer.bos_token_id} and {tokenizer.eos_token_id}, CLIP's "
            f"are {BOS} and {EOS}"
        )
    # Not verbose: a warning about more than 77 tokens would be wrong here.
    return lambda text: tokenizer(text, add_special_tokens=False, verbose=False).input_ids


def _unique_ids(plans: list[Plan], tokenizer: Any, text_encoder: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Each chunk's ids once, (unique, 77), for padding repeats; and where every prompt's are, (prompts, n)."""
    rows = [[chunk_ids(chunk, tokenizer.pad_token_id) for chunk in each.chunks] for each in plans]
    ids = torch.tensor(rows, device=text_encoder.device)  # (prompts, n, 77)
    unique, where = ids.flatten(0, 1).unique(dim=0, return_inverse=True)
    return unique, where.unflatten(0, ids.shape[:2])
