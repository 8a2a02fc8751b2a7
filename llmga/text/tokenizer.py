"""CLIP's tokenizer without a download: the vocabulary follows from the merges, and the merges ship with the
package.

``clip_merges.txt`` is OpenAI CLIP's list (MIT; see NOTICE). The order of the vocabulary is CLIP's own rule:
256 bytes, the same 256 closing a word, one entry per merge, then the two special tokens, 49,408 in all.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

_START, _END = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer(pad_token: str = _END) -> CLIPTokenizer:
    """OpenAI CLIP's tokenizer: 77 positions, ids equal to ``openai/clip-vit-large-patch14``.

    ``pad_token`` is ``"<|endoftext|>"`` (49407) for SD1.5 and SDXL's first encoder, ``"!"`` (0) for SDXL's
    second.
    """
    from transformers import CLIPTokenizer

    vocabulary, merges = _file_texts()
    # transformers 4 takes files, 5 takes values; a folder is what both read.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(vocabulary, encoding="utf-8")
        Path(folder, "merges.txt").write_text(merges, encoding="utf-8")
        settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": pad_token}
        Path(folder, "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder)


def decode(ids: Iterable[Any]) -> str:
    """Token ids as text, in lower case as CLIP reads it; the vector of a textual inversion shows as ``<embedding>``."""
    tokenizer: Any = _shared_tokenizer()
    text, run = [], []
    for token in ids:
        if isinstance(token, int):
            run.append(token)
        else:
            text += [tokenizer.decode(run), "<embedding>"]
            run = []
    return " ".join(part.strip() for part in (*text, tokenizer.decode(run)) if part.strip())


_shared_tokenizer = lru_cache(maxsize=1)(clip_tokenizer)


def byte_alphabet() -> dict[str, int]:
    """CLIP's character for each of the 256 bytes: printable bytes are their own, the others follow from 256 on."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


@lru_cache(maxsize=1)
def _file_texts() -> tuple[str, str]:
    """The texts of ``vocab.json`` and of ``merges.txt``: making them takes half of a tokenizer's time."""
    merges = Path(__file__).with_name("clip_merges.txt").read_text(encoding="utf-8")
    return json.dumps(_vocabulary(merges)), "#version: 0.2\n" + merges


def _vocabulary(merges: str) -> dict[str, int]:
    letters = list(byte_alphabet())
    closing = [letter + "</w>" for letter in letters]
    merged = [line.replace(" ", "") for line in merges.splitlines()]
    return {word: i for i, word in enumerate([*letters, *closing, *merged, _START, _END])}
