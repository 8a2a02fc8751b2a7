"""Tiny tokenizers in the formats that ComfyUI reads out of weight files, each with its family's control tokens."""

from __future__ import annotations

import base64
import io
import json
from functools import lru_cache
from typing import Any

import torch

GEMMA_PIECES = (
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
)
GEMMA4_IDS = {
    **{
        "<pad>": 0,
        "<eos>": 1,
        "<bos>": 2,
        "<unk>": 3,
        "<|tool_response>": 50,
        "<|think|>": 98,
        "<|channel>": 100,
    },
    **{"<channel|>": 101, "<|turn>": 105, "<turn|>": 106, "<|image>": 255999, "<|audio>": 256000},
    **{"<|image|>": 258880, "<|audio|>": 258881, "<image|>": 258882, "<audio|>": 258883, "<|video|>": 258884},
}
TEKKEN = (
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
)
TEKKEN += (
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
)
TEKKEN += ("[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]")


def tensor_of(data: bytes) -> torch.Tensor:
    """As ComfyUI finds it in a weight file: a byte tensor."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


@lru_cache(maxsize=1)
def gemma_pieces() -> bytes:
    """A SentencePiece model with the settings of Gemma's: no prefix, no normalisation, bytes where it has no piece."""
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(  # type: ignore[attr-defined]
        sentence_iterator=iter(["a red fox in the snow at dawn; you write short prompts, user model"] * 50),
        model_writer=out,
        vocab_size=500,
        model_type="bpe",
        user_defined_symbols=[
            *GEMMA_PIECES,
            *(f"<unused{index}>" for index in range(100)),
        ],  # 106 and 107 are unused
        hard_vocab_limit=False,
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        minloglevel=2,
        **{"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3},
    )
    return out.getvalue()


@lru_cache(maxsize=1)
def gemma4_json() -> bytes:
    """A tokenizer.json of bytes, with Gemma 4's control tokens at their own ids."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: 1000 + index for index, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocab={**GEMMA4_IDS, **vocabulary}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in GEMMA4_IDS])
    return tokenizer.to_str().encode()


@lru_cache(maxsize=1)
def tekken_json() -> bytes:
    """A tekken file of the 256 bytes."""
    letters: list[dict[str, Any]] = [
        {"rank": byte, "token_bytes": base64.b64encode(bytes([byte])).decode(), "token_str": None}
        for byte in range(256)
    ]
    special = [{"rank": rank, "token_str": token, "is_control": True} for rank, token in enumerate(TEKKEN)]
    sizes = {"default_vocab_size": 256 + len(TEKKEN), "default_num_special_tokens": len(TEKKEN)}
    return json.dumps({"config": sizes, "vocab": letters, "special_tokens": special}).encode()


def tokenizer_data() -> dict[str, Any]:
    """Everything that a tokenizer of ComfyUI may ask for."""
    return {
        "spiece_model": tensor_of(gemma_pieces()),
        "gemma_spiece_model": tensor_of(gemma_pieces()),
        "jina_spiece_model": tensor_of(gemma_pieces()),
        "tokenizer_json": tensor_of(gemma4_json()),
        "tekken_model": tensor_of(tekken_json()),
    }
