"""Tokenizers from a ``tokenizer.model`` alone, which read as the slow ``LlamaTokenizer`` of LLMGA's training does.

LLMGA loads its tokenizers with ``use_fast=False`` and saves ``tokenizer.model`` without a ``tokenizer.json``. What the
installed transformers builds from that file may differ: merges by token id, not by score, so that two spaces in a row become
other tokens; no space of its own for a text that begins with one; and no start token unless the settings ask for one.

Source: transformers 4.37.2, models/llama/tokenization_llama.py:180-260 (``get_spm_processor``, ``tokenize``, ``_tokenize``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...files.json_files import read_object
from ..folder_copy import folder_copy
from .piece_merges import SentencePieceFile, merges_of, read_pieces

_SPACE = "▁"
_LLAMA = ("LlamaTokenizer", "LlamaTokenizerFast")


def read_language_tokenizer(folder: Path, text_type: str) -> Any:
    """The tokenizer of a language model's folder, from files of this machine alone.

    Args:
        text_type: ``model_type`` of the language model in transformers; the folder's own may be one it does not know.

    Raises:
        ValueError: a file is damaged.
    """
    import transformers

    with folder_copy(folder) as copy:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            copy,
            config=transformers.CONFIG_MAPPING[text_type](),
            local_files_only=True,
            trust_remote_code=False,
        )
        read_as_slow(tokenizer, copy)
    return tokenizer


def read_as_slow(tokenizer: Any, folder: Path) -> bool:
    """Let a tokenizer that was built from ``folder``'s ``tokenizer.model`` read as SentencePiece and the slow tokenizer do.

    A folder with a ``tokenizer.json`` is left alone: that file says how to read. Only BPE files have merges.

    Args:
        tokenizer: of transformers; it is changed in place.

    Returns:
        Whether it was changed.

    Raises:
        ValueError: the file is not a SentencePiece model.
    """
    path = folder / "tokenizer.model"
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not path.is_file() or (folder / "tokenizer.json").is_file():
        return False
    from tokenizers.models import BPE

    pieces = read_pieces(path)
    if pieces is None or not isinstance(backend.model, BPE):
        return False
    _rank_by_score(backend, pieces)
    settings = folder / "tokenizer_config.json"
    config = read_object(settings) if settings.is_file() else {}
    if pieces.adds_a_space and config.get("tokenizer_class", _LLAMA[0]) in _LLAMA:
        # Where the file has no such key, these are the values of 4.37.2; transformers 5 has others.
        _space_as_llama(
            backend, bool(config.get("legacy", True)), config.get("add_prefix_space") is not False
        )
        tokenizer.add_bos_token = bool(config.get("add_bos_token", True))
        tokenizer.add_eos_token = bool(config.get("add_eos_token", False))
    _add_whole_pieces(backend, pieces)
    return True


def needs_plain_class(tokenizer: Any) -> bool:
    """Whether a saved tokenizer must be a ``PreTrainedTokenizerFast``, which reads by its ``tokenizer.json`` alone.

    transformers 5 puts rules of its own in the place of those of a ``LlamaTokenizer``, which has no normaliser there; and
    calls the plain class by a name that transformers 4 does not know.
    """
    name = type(tokenizer).__name__
    return name == "TokenizersBackend" or (
        name in _LLAMA and tokenizer.backend_tokenizer.normalizer is not None
    )


def _rank_by_score(backend: Any, pieces: SentencePieceFile) -> None:
    from tokenizers.models import BPE

    model = backend.model
    vocabulary = backend.get_vocab(with_added_tokens=True)
    backend.model = BPE(
        vocab=backend.get_vocab(with_added_tokens=False),
        merges=[
            pair
            for pair in merges_of(pieces.scores)
            if all(part in vocabulary for part in (*pair, "".join(pair)))
        ],
        unk_token=model.unk_token,
        fuse_unk=model.fuse_unk,
        byte_fallback=model.byte_fallback,
        dropout=None,
    )


def _add_whole_pieces(backend: Any, pieces: SentencePieceFile) -> None:
    """Pieces such as Gemma's runs of spaces and of lines; the file writes a space in them as the normaliser does."""
    from tokenizers import AddedToken

    special = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    vocabulary = backend.get_vocab(with_added_tokens=False)
    found = [piece for piece in pieces.whole if piece in vocabulary and piece not in special]
    backend.add_tokens([AddedToken(piece, normalized=True, special=False) for piece in found])


def _space_as_llama(backend: Any, legacy: bool, adds_a_space: bool) -> None:
    """One space before the text, and before what follows a control token too if ``legacy``, even where there is one."""
    from tokenizers import AddedToken, normalizers, pre_tokenizers

    escape = normalizers.Replace(" ", _SPACE)
    if legacy:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), escape])
        backend.pre_tokenizer = None
    else:
        # The first Metaspace adds a plain space, for the text has none any more; one that saw the text's own would not.
        first = pre_tokenizers.Metaspace(" ", "first" if adds_a_space else "never", split=False)
        backend.normalizer = escape
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [first, pre_tokenizers.Metaspace(_SPACE, "never", split=False)]
        )
    # A control token is looked for in the text as it is, so that each part between two is normalised alone.
    for token in backend.get_added_tokens_decoder().values():
        backend.add_tokens(
            [
                AddedToken(
                    token.content,
                    single_word=token.single_word,
                    lstrip=token.lstrip,
                    rstrip=token.rstrip,
                    normalized=False,
                    special=token.special,
                )
            ]
        )
