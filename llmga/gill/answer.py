"""GILL's reply as an artist sees it: text and pictures in their order, each picture with what was decided about it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from ..chat.engines.base import CutAt
from .model import GILL, OnReply, PromptPart, ReplyOptions, Written
from .parts import DecisionModel

_log = logging.getLogger(__name__)

PictureSource = Literal["generate", "retrieve"]

ENDINGS: Mapping[CutAt, str] = {
    "max_new_tokens": "the reply ended at 'max_tokens', before its line had ended; raise it",
    "context": "the reply ended where the language model's context is full, before its line had ended; shorten 'message' or "
    "'history', or show fewer pictures in 'image'",
}
"""Why a reply ends in the middle, each said to a person with the way out."""


class Searches(Protocol):
    """An index of pictures, of which some are found by an embedding.

    Attributes:
        model: ``GILLParts.embedding_key`` of the GILL that it was made with; "" if that is not known.
    """

    @property
    def model(self) -> str: ...

    def search(self, query: torch.Tensor, count: int, without: Sequence[int] = ()) -> list[Match]: ...


@dataclass(frozen=True)
class Match:
    """A picture that was found.

    Args:
        row: its place in the index.
        path: where it is, as the index names it.
        score: cosine of its embedding and the query, -1 .. 1.
    """

    row: int
    path: str
    score: float


@dataclass(frozen=True)
class Decision:
    """Whether a picture is to be generated or retrieved, the probability of that, and why in a sentence."""

    source: PictureSource
    probability: float
    reason: str


@dataclass(frozen=True)
class ReplyPicture:
    """A picture of a reply.

    Args:
        states: hidden states (img_tokens, d) of its [IMG] tokens.
        conditioning: text states (text_rows, text) for the image generator, float32.
        decision: what the decision model says.
        matches: what the index found, the best first; none without an index.
    """

    states: torch.Tensor
    conditioning: torch.Tensor
    decision: Decision
    matches: tuple[Match, ...] = ()


@dataclass(frozen=True)
class GILLReply:
    """A whole reply.

    Args:
        pieces: text and pictures in their order.
        cut: text that was written and left out, a piece of it each; see ``answer``.
        img_text: how a picture is written in ``turn_text``.
        ended: why words or a picture may lack at its end, a key of ``ENDINGS``; "" where none do.
    """

    pieces: tuple[str | ReplyPicture, ...]
    cut: tuple[str, ...]
    img_text: str
    ended: CutAt = ""

    @property
    def pictures(self) -> tuple[ReplyPicture, ...]:
        return tuple(piece for piece in self.pieces if isinstance(piece, ReplyPicture))

    @property
    def text(self) -> str:
        """The words alone."""
        return " ".join(piece.strip() for piece in self.pieces if isinstance(piece, str) and piece.strip())

    @property
    def turn_text(self) -> str:
        """What the history holds of this reply: the words, and ``[IMG0]`` … where a picture is."""
        return " ".join(
            piece if isinstance(piece, str) else self.img_text for piece in self.pieces if piece != ""
        )


def answer(
    gill: GILL,
    prompt: Sequence[PromptPart],
    options: ReplyOptions | None = None,
    *,
    index: Searches | None = None,
    max_pictures: int = 1,
    matches: int = 3,
    on_reply: OnReply = lambda text: None,
) -> GILLReply:
    """Let GILL reply to text and pictures.

    A reply has at most ``max_pictures`` pictures. The words before each are cut behind their first sentence, and words
    behind the last picture are left out, as in the released code; ``GILLReply.cut`` holds what was left out. A picture of
    the index is shown once in a reply. Without an index every picture is to be generated.

    Args:
        index: of pictures to retrieve.
        matches: pictures to name for each one of the reply, 1 .. 100.

    Raises:
        ValueError: the prompt is empty, too long, or shows pictures that GILL cannot see; or the index was made with another
            GILL.

    Source: kohjingyu/gill 4600b71, gill/models.py:600-735 and gill/utils.py's ``truncate_caption``. There the second
    picture's words begin with the text "[IMG1]…[IMG7]" of the first; here they do not.
    """
    if max_pictures < 0 or not 1 <= matches <= 100:
        raise ValueError(
            f"max_pictures must not be negative, and matches be 1 .. 100; got {max_pictures}, {matches}"
        )
    if index is not None:
        check_index(gill, index)
    written = gill.write(prompt, options, on_reply)
    pieces: list[str | ReplyPicture] = []
    cut: list[str] = []
    shown: list[int] = []
    end = 0
    starts = _pictures(gill, written)[:max_pictures]
    for start in starts:
        _add_words(gill, written.ids[end:start], pieces, cut)
        end = start + gill.parts.sizes.img_tokens
        picture = read_picture_states(gill, written.states[start:end], index, matches, shown)
        shown += [match.row for match in picture.matches]
        pieces.append(picture)
    rest = written.ids[end:]
    if end == 0:
        _add_words(gill, rest, pieces, cut)
    elif words := gill.language.text_of(list(rest)):
        cut.append(words)
    words_go_on = end == 0 and not cut
    picture_may_lack = written.cut == "context" and len(starts) < max_pictures
    ended = written.cut if words_go_on or picture_may_lack else ""
    return GILLReply(tuple(pieces), tuple(cut), gill.img_text, ended)


@torch.no_grad()
def read_picture_states(
    gill: GILL,
    states: torch.Tensor,
    index: Searches | None = None,
    matches: int = 3,
    without: Sequence[int] = (),
) -> ReplyPicture:
    """Everything that hidden states (img_tokens, d) of one picture say.

    Args:
        without: rows of the index that are not to be found again.

    Raises:
        ValueError: the index was made with another GILL.
    """
    parts = gill.parts
    own = states[None].to(parts.img_rows.device, parts.img_rows.dtype)
    conditioning = parts.conditioning(own)[0].float().cpu()
    if index is None:
        sure = Decision("generate", 1.0, "there is no index of pictures to retrieve from")
        return ReplyPicture(states, conditioning, sure)
    check_index(gill, index)
    found = tuple(index.search(parts.query_embedding(own)[0].float().cpu(), matches, without))
    return ReplyPicture(states, conditioning, decide(gill.decision, states[0], bool(found)), found)


def check_index(gill: GILL, index: Searches) -> None:
    """Raise ``ValueError`` for an index that was made with another GILL: what it finds would be any picture.

    One that does not say with which, as the released embeddings, is searched, and the log says so.
    """
    if not index.model:
        _log.warning(
            "the index does not say with which GILL it was made; with another one it finds any picture"
        )
    elif index.model != gill.parts.embedding_key():
        raise ValueError(
            "the index was made with another GILL, so what it finds would be any picture; connect to 'index' one that was "
            "built with this GILL, under a 'name' of its own"
        )


@torch.no_grad()
def decide(model: DecisionModel | None, state: torch.Tensor, anything_found: bool = True) -> Decision:
    """Whether to generate or to retrieve, from the hidden state (d,) of [IMG0]."""
    if not anything_found:
        return Decision("generate", 1.0, "the index holds no picture that was not shown already")
    if model is None:
        return Decision("generate", 1.0, "there is no decision model")
    weight = model.linear.weight
    probability = model.eval()(state[None].to(weight.device, weight.dtype))[0].float().softmax(-1)
    chosen = int(probability.argmax())
    source: PictureSource = "generate" if chosen == DecisionModel.GENERATE else "retrieve"
    return Decision(source, float(probability[chosen]), "the decision model says so")


def first_sentence(text: str) -> str:
    """A text up to the end of its first line, or else of its first sentence; line ends around it go.

    Source: kohjingyu/gill 4600b71, gill/utils.py, ``truncate_caption``.
    """
    text = text.strip("\n")
    end = text.find("\n") + 1 or text.find(".") + 1
    return text[:end] if end else text


def _pictures(gill: GILL, written: Written) -> list[int]:
    first = gill.language.img_ids(1)[0]
    return [i for i, token in enumerate(written.ids) if token == first]


def _add_words(gill: GILL, ids: Sequence[int], pieces: list[str | ReplyPicture], cut: list[str]) -> None:
    text = gill.language.text_of(list(ids))
    words = first_sentence(text)
    pieces.append(words)
    if left := text.strip("\n")[len(words) :].strip():
        cut.append(left)
