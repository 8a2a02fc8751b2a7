"""The three losses of GILL: captioning, retrieval and generation, of captions that may be read in pairs.

Source: kohjingyu/gill 4600b71, gill/data.py:110-137, gill/models.py:166-442, gill/losses.py and main.py:484-563.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from ..gill.language import FrozenLanguage
from ..gill.parts import GILLParts
from .turns import IGNORED

MODES = ("captioning", "retrieval", "generation")


class Captions(NamedTuple):
    """Tokens of captions, each followed by all [IMG] tokens, then padding."""

    ids: torch.Tensor
    """(B, L)"""
    lengths: torch.Tensor
    """(B,), without the padding."""

    def to(self, device: torch.device) -> Captions:
        return Captions(self.ids.to(device), self.lengths.to(device))


class Sequences(NamedTuple):
    """What the language model reads in one mode."""

    embeddings: torch.Tensor
    """(S, T, d); S is B, or B/2 where captions stand in pairs."""
    labels: torch.Tensor
    """(S, T), ``IGNORED`` where nothing is to be learnt."""
    img_places: torch.Tensor
    """(B, K, 2): sequence and position of the K [IMG] tokens of each caption; unused in captioning."""


class Losses(NamedTuple):
    """The parts of a step's loss, each a number."""

    ce_captioning: torch.Tensor
    ce_retrieval: torch.Tensor
    nce: torch.Tensor
    ce_generation: torch.Tensor
    distance: torch.Tensor
    recall_at_1: torch.Tensor
    """How often a caption finds its own picture among those of the part; not a part of the loss."""


@dataclass(frozen=True)
class GILLLossWeights:
    """Factors of the losses of each mode, ``--cap-loss-scale`` and its two sisters."""

    captioning: float = 1.0
    retrieval: float = 1.0
    generation: float = 1.0


def tokenise(
    language: FrozenLanguage, captions: Sequence[str], img_tokens: int, length: int = 32
) -> Captions:
    """Captions as ids, cut to ``length`` and padded to the longest: what stands behind a caption changes nothing in it. Of
    one that is too long the end gives way to the [IMG] tokens.

    Raises:
        ValueError: ``length`` has no room for a word before the [IMG] tokens.
    """
    begin, img = language.bos, language.img_ids(img_tokens)
    if length <= len(begin) + img_tokens:
        raise ValueError(
            f"max_length ({length}) must be above {len(begin) + img_tokens}, the tokens that every caption has"
        )
    rows = []
    for caption in captions:
        # their tokenizer strips the white space before an added token
        words = language.token_ids(caption.rstrip(), 0)[: length - len(begin) - img_tokens]
        rows.append(torch.tensor([*begin, *words, *img]))
    ids = pad_sequence(rows, batch_first=True, padding_value=language.pad)
    return Captions(ids, torch.tensor([len(row) for row in rows]))


def captioning_sequences(
    language: FrozenLanguage, parts: GILLParts, captions: Captions, pooled: torch.Tensor, in_pairs: bool
) -> Sequences:
    """A picture's visual tokens before its caption; the [IMG] tokens and the padding are not learnt."""
    visual = parts.visual_tokens(pooled)
    before = visual.shape[1]
    embeddings = torch.cat([visual.to(language.dtype), language.embed(captions.ids, parts.img_rows)], 1)
    words = captions.lengths - parts.sizes.img_tokens
    labels = F.pad(_masked_from(captions.ids, words), (before, 0), value=IGNORED)
    ends = before + words
    nowhere = torch.zeros(0, 0, 2, dtype=torch.int64)
    if not in_pairs:
        return Sequences(embeddings, labels, nowhere)
    order = _pair_order(ends, embeddings.shape[1], before, bool(language.bos))
    return Sequences(_in_pairs(embeddings, order), _in_pairs(labels, order), nowhere)


def text_sequences(
    language: FrozenLanguage, parts: GILLParts, captions: Captions, in_pairs: bool
) -> Sequences:
    """Captions alone, learnt up to and including [IMG0].

    Of a pair all behind the first caption's [IMG0] is masked, and so the whole second caption, as in the released code.
    """
    count = parts.sizes.img_tokens
    embeddings = language.embed(captions.ids, parts.img_rows)
    labels = _masked_from(captions.ids, captions.lengths)
    last = captions.lengths - 1
    sequence = torch.arange(len(last), device=last.device)
    if in_pairs:
        order = _pair_order(captions.lengths, embeddings.shape[1], 0, bool(language.bos))
        embeddings, labels = _in_pairs(embeddings, order), _in_pairs(labels, order)
        second = captions.lengths[::2] + captions.lengths[1::2] - 1 - int(bool(language.bos))
        last = torch.stack([last[::2], second], 1).flatten()
        sequence = sequence // 2
    first_img = language.text_rows
    behind = (labels > first_img).cumsum(1) > 0
    labels = labels.masked_fill(behind, IGNORED)
    positions = last[:, None] + torch.arange(1 - count, 1, device=last.device)
    return Sequences(embeddings, labels, torch.stack([sequence[:, None].expand_as(positions), positions], -1))


def gill_losses(
    language: FrozenLanguage,
    parts: GILLParts,
    captions: Captions,
    pooled: torch.Tensor,
    targets: torch.Tensor,
    in_pairs: Sequence[bool] = (False, False, False),
) -> Losses:
    """The losses of B captions with their pictures.

    Args:
        pooled: what the vision encoder makes of the pictures, (B, vision).
        targets: what the image generator's text encoder makes of the captions, (B, text_rows, text).
        in_pairs: for each of ``MODES``, whether two captions stand in one sequence; B is even then.
    """
    sequences = captioning_sequences(language, parts, captions, pooled, in_pairs[0])
    _, ce_captioning = _read(language, parts, sequences)
    states, ce_retrieval = _read(language, parts, text_sequences(language, parts, captions, in_pairs[1]))
    # cosines as logits, (pictures, captions)
    logits = parts.logit_scale.exp() * parts.picture_embedding(pooled) @ parts.query_embedding(states).T
    own = torch.arange(len(logits), device=logits.device)
    nce = (F.cross_entropy(logits.T, own) + F.cross_entropy(logits, own)) / 2
    ce_generation = ce_retrieval
    if in_pairs[2] != in_pairs[1]:
        states, ce_generation = _read(language, parts, text_sequences(language, parts, captions, in_pairs[2]))
    distance = (targets - parts.conditioning(states)).norm(dim=-1).mean()
    recall = (logits.T.argmax(1) == own).float().mean()
    return Losses(ce_captioning, ce_retrieval, nce, ce_generation, distance, recall)


def total_loss(losses: Losses, weights: GILLLossWeights) -> torch.Tensor:
    """The loss of a step; the words of captions that stand without a picture count half."""
    return (
        weights.captioning * losses.ce_captioning
        + weights.retrieval * (0.5 * losses.ce_retrieval + losses.nce)
        + weights.generation * (0.5 * losses.ce_generation + losses.distance)
    )


def _read(
    language: FrozenLanguage, parts: GILLParts, sequences: Sequences
) -> tuple[torch.Tensor, torch.Tensor]:
    """The hidden states (B, K, d) of the [IMG] tokens, and the cross-entropy of the next tokens."""
    read = language.read(sequences.embeddings, parts.img_rows)
    vocabulary = read.logits.shape[-1]
    ce = F.cross_entropy(
        read.logits[:, :-1].reshape(-1, vocabulary).float(),
        sequences.labels[:, 1:].reshape(-1),
        ignore_index=IGNORED,
    )
    places = sequences.img_places
    return read.hidden[places[..., 0], places[..., 1]].to(parts.img_rows.dtype), ce


def _masked_from(ids: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Labels (B, L): the ids before ``ends`` (B,)."""
    return ids.masked_fill(torch.arange(ids.shape[1], device=ids.device) >= ends[:, None], IGNORED)


def _pair_order(ends: torch.Tensor, length: int, begin: int, has_bos: bool) -> torch.Tensor:
    """Where the positions of each pair come from, (B/2, 2·length − 1), in two sequences one behind the other.

    What is learnt of the first, then of the second without its first token, then what is left of both.
    """
    if len(ends) % 2:
        raise ValueError(f"captions cannot stand in pairs where there are {len(ends)} of them")
    places = torch.arange(2 * length, device=ends.device)
    rows = []
    for first, second in ends.reshape(-1, 2).tolist():
        skipped = length + begin if has_bos else -1
        own, other = places[:first], places[length : length + second]
        rows.append(
            torch.cat([own, other[other != skipped], places[first:length], places[length + second :]])
        )
    return torch.stack(rows)


def _in_pairs(values: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Values (B, L, ...) of each pair in one row, (B/2, T, ...)."""
    joined = values.reshape(len(values) // 2, -1, *values.shape[2:])
    return torch.stack([row[places] for row, places in zip(joined, order, strict=True)])
