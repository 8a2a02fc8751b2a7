"""BPE merges of a SentencePiece file, ranked by the scores of its pieces as SentencePiece ranks them.

transformers 5 ranks the merges of a ``tokenizer.model`` by token id. Llama 2's and Vicuna's files hold runs of spaces with
low ids and the lowest score, so that two spaces in a row become other tokens than those of the training.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BPE = 2  # TrainerSpec.ModelType in sentencepiece_model.proto
_NORMAL, _UNUSED = 1, 5  # SentencePiece.Type: the pieces that a merge may make
_LONGEST = 1 << 26  # bytes of a tokenizer.model; Gemma's has 4 MB

Merges = list[tuple[str, str]]


def rank_by_score(tokenizer: Any, folder: Path) -> bool:
    """Give a tokenizer that was built from ``folder``'s ``tokenizer.model`` the merges of that file.

    A folder with a ``tokenizer.json`` is left alone: its merges were saved. Only BPE files have merges.

    Args:
        tokenizer: of transformers; it is changed in place.

    Returns:
        Whether the merges were set.

    Raises:
        ValueError: the file is not a SentencePiece model.
    """
    path = folder / "tokenizer.model"
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not path.is_file() or (folder / "tokenizer.json").is_file():
        return False
    from tokenizers.models import BPE

    model = backend.model
    pieces = read_pieces(path)
    if pieces is None or not isinstance(model, BPE):
        return False
    vocabulary = tokenizer.get_vocab()
    backend.model = BPE(
        vocab={piece: id_ for piece, id_ in backend.get_vocab(with_added_tokens=False).items()},
        merges=[
            pair for pair in merges_of(pieces) if all(part in vocabulary for part in (*pair, "".join(pair)))
        ],
        unk_token=model.unk_token,
        fuse_unk=model.fuse_unk,
        byte_fallback=model.byte_fallback,
        dropout=None,
    )
    return True


def read_pieces(path: Path) -> dict[str, float] | None:
    """The pieces of a SentencePiece BPE file that a text can become, and their scores; None for another kind of model.

    Raises:
        ValueError: it is not a SentencePiece model.
    """
    from transformers.convert_slow_tokenizer import import_protobuf

    if path.stat().st_size > _LONGEST:
        raise ValueError(f"{path.name} has {path.stat().st_size:,} bytes, too many for a tokenizer")
    messages: Any = import_protobuf()  # generated code, whose classes no type checker sees
    proto = messages.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError, of another class in each of its backends
        if not type(error).__name__ == "DecodeError":
            raise
        raise ValueError(f"{path.name} is not a SentencePiece model ({error})") from error
    if proto.trainer_spec.model_type != _BPE:
        return None
    return {piece.piece: piece.score for piece in proto.pieces if piece.type in (_NORMAL, _UNUSED)}


def merges_of(pieces: dict[str, float]) -> Merges:
    """Every pair of pieces that together are a piece, the best score first.

    Of equal scores, as runs of spaces have them, the longer left part comes first: SentencePiece merges from the left.
    """
    pairs = sorted(_pairs(pieces), key=lambda pair: (-pair[0], -len(pair[1]), -len(pair[2])))
    return [(left, right) for _, left, right in pairs]


def _pairs(pieces: dict[str, float]) -> Iterator[tuple[float, str, str]]:
    for piece, score in pieces.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in pieces and right in pieces:
                yield score, left, right
