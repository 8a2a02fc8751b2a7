"""BPE merges of a SentencePiece file, ranked by the scores of its pieces as SentencePiece ranks them.

transformers 5 ranks the merges of a ``tokenizer.model`` by token id. Llama 2's and Vicuna's files hold runs of spaces with
low ids and the lowest score, so that two spaces in a row become other tokens than those of the training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BPE = 2  # TrainerSpec.ModelType in sentencepiece_model.proto
_NORMAL, _USER_DEFINED, _UNUSED = 1, 4, 5  # SentencePiece.Type
_LONGEST = 1 << 26  # bytes of a tokenizer.model; Gemma's has 4 MB

Merges = list[tuple[str, str]]


@dataclass(frozen=True)
class SentencePieceFile:
    """A SentencePiece BPE file.

    Args:
        scores: the pieces that a merge may make, and their scores.
        whole: pieces that are taken out of a text before anything is merged.
        adds_a_space: a text gets a space before its first word.
    """

    scores: dict[str, float]
    whole: tuple[str, ...]
    adds_a_space: bool


def read_pieces(path: Path) -> SentencePieceFile | None:
    """The pieces of a SentencePiece BPE file; None for another kind of model.

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
    scores = {piece.piece: piece.score for piece in proto.pieces if piece.type in (_NORMAL, _UNUSED)}
    whole = tuple(piece.piece for piece in proto.pieces if piece.type == _USER_DEFINED)
    return SentencePieceFile(scores, whole, proto.normalizer_spec.add_dummy_prefix)


def merges_of(scores: dict[str, float]) -> Merges:
    """Every pair of pieces that together are a piece, the best score first.

    Of equal scores, as runs of spaces have them, the longer left part comes first: SentencePiece merges from the left.
    """
    pairs = sorted(_pairs(scores), key=lambda pair: (-pair[0], -len(pair[1]), -len(pair[2])))
    return [(left, right) for _, left, right in pairs]


def _pairs(scores: dict[str, float]) -> Iterator[tuple[float, str, str]]:
    for piece, score in scores.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in scores and right in scores:
                yield score, left, right
