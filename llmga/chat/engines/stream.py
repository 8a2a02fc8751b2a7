"""Per-token work of a generation: sampling, decoding the text so far, reporting it, and stopping."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..tags import count_closed
from .base import CutAt, OnText, Said, Sampling

QUIET = 0.1  # seconds between two calls of on_text while no token arrives


class Stream:
    """Stopping criterion that decodes and reports the reply token by token, in the thread that called ``generate``.

    It is not a streamer, because some versions of transformers call streamers before the stopping criteria and others
    after them, and whether to stop depends on the text so far.

    Attributes:
        said: the reply so far.
        stopped: the end token came, as many prompts as were asked for are closed in the answer, or the thought or the
            answer has as many tokens as it may have; later tokens are ignored.
        cut: what ended the answer before the model did.
    """

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        end_ids: set[int],
        on_text: OnText,
        sampling: Sampling,
        start: int = 0,
        thinking: bool = False,
    ) -> None:
        """Take the tokens from position ``start`` on.

        Args:
            decode: the text of a reply's tokens, with the marks of thinking.
            sampling: how long thought and answer may be, and after how many closed prompts to stop.
            thinking: the request ended inside a thought.
        """
        self.said = Said("", unfinished=thinking)
        self.stopped = False
        self.cut: CutAt = ""
        self._decode = decode
        self._end_ids = end_ids
        self._on_text = on_text
        self._sampling = sampling
        self._start = start
        self._thinking = thinking
        self._ids: list[int] = []
        self._received = 0
        self._thought_tokens = 0
        self._reported_at = time.monotonic()

    @property
    def received(self) -> int:
        """How many tokens have come."""
        return self._received

    @property
    def answer_room(self) -> int:
        """How many tokens the answer may still have."""
        return self._sampling.max_new_tokens - self._received + self._thought_tokens

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """Stopping criterion: the whole sequence (1, tokens) in, (1,) bool out."""
        self.put(input_ids[0, self._start + self._received :].tolist())
        return torch.tensor([self.stopped], device=input_ids.device)

    def put(self, tokens: list[int]) -> None:
        """Take the next tokens."""
        self._received += len(tokens)
        if self.stopped:
            return
        self._ids += [token for token in tokens if token not in self._end_ids]
        # All of it each time: a token's text depends on its neighbours. U+FFFD at its end is a character of
        # which only the first bytes have arrived.
        text = self._decode(self._ids).rstrip("\ufffd")
        self.said = Said.of(text, thinking=self._thinking)
        self.stopped = any(token in self._end_ids for token in tokens) or self._is_full(len(tokens))
        self._report()

    def _is_full(self, count: int) -> bool:
        """Whether nothing has to follow the last ``count`` tokens."""
        sampling = self._sampling
        if self.said.unfinished:
            self._thought_tokens += count
            return self._thought_tokens >= sampling.thought_tokens
        if 0 < sampling.stop_after <= count_closed(self.said.answer):
            return True
        full = self._received - self._thought_tokens >= sampling.max_new_tokens
        self.cut = self.cut or ("max_new_tokens" if full else "")
        return full

    def end(self, most: int, wanted: int) -> Said:
        """The whole reply, when no token follows.

        Args:
            most: tokens that it could have, a thought included.
            wanted: tokens that it should have; more than ``most`` where the context has less room.
        """
        if not self.stopped and self._received >= most:
            self.cut = "context" if most < wanted else "max_new_tokens"
        return replace(self.said, cut=self.cut)

    def on_block(self, *_: Any) -> None:
        """Forward-pre-hook: a long prompt or a large picture takes seconds before its first token."""
        if time.monotonic() - self._reported_at >= QUIET:
            self._report()

    def _report(self) -> None:
        self._on_text(self.said.shown)
        self._reported_at = time.monotonic()


class NamedTokens:
    """Logits processor that never lets a row be drawn that no token of the tokenizer has.

    Embeddings are padded to a round number of rows, and one of the padding rows may stand for a picture: drawn, it would
    be an empty text in the reply and a picture in the history.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._ids = torch.tensor(sorted(set(tokenizer.get_vocab().values())), dtype=torch.long)
        self._unnamed: dict[tuple[int, torch.device], torch.Tensor] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Logits (..., rows) in, the same out with minus infinity in the rows without a token."""
        key = (scores.shape[-1], scores.device)
        if key not in self._unnamed:
            unnamed = torch.ones(key[0], dtype=torch.bool)
            unnamed[self._ids[(self._ids >= 0) & (self._ids < key[0])]] = False
            self._unnamed = {key: unnamed.to(scores.device)}
        return scores.masked_fill(self._unnamed[key], -torch.inf)


@dataclass(frozen=True)
class FolderSampling:
    """What a model's makers ask for in its ``generation_config.json``, beside the temperature and top_p of a request.

    Args:
        top_k: a draw is between the likeliest so many tokens; 0 keeps all. A greedy reply has no draw.
        repetition_penalty: positive; the logit of a token that stands there already is divided by it where it is positive
            and multiplied where it is not. 1 changes nothing. It holds for a greedy reply too.
    """

    top_k: int = 0
    repetition_penalty: float = 1.0


class RepetitionPenalty:
    """Logits processor that makes tokens less likely that stand in the text already.

    Source: transformers' ``RepetitionPenaltyLogitsProcessor``.
    """

    def __init__(self, penalty: float, start: int) -> None:
        """Take a penalty, and from which position on tokens count: 0, or behind the request."""
        self._penalty = penalty
        self._start = start

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """All tokens so far (1, tokens) and logits (1, rows) in, logits out."""
        seen = input_ids[:, self._start :]
        if self._penalty == 1 or not seen.shape[1]:
            return scores
        found = scores.gather(1, seen)
        found = torch.where(found < 0, found * self._penalty, found / self._penalty)
        return scores.scatter(1, seen, found)


class GumbelMaxSampler:
    """Gumbel-max trick: ``argmax(p / e)``, ``e`` ~ Exp(1), draws a token with probability ``p``.

    A logits processor, so that the greedy choice of ``generate`` becomes a draw from the tempered nucleus, with noise of
    a CPU generator of its own.
    """

    def __init__(self, sampling: Sampling, top_k: int = 0) -> None:
        """Take a request's sampling and how many of the likeliest tokens are drawn from; 0 is all."""
        self._sampling = sampling
        self._top_k = top_k
        self._generator = torch.Generator().manual_seed(sampling.seed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Logits (1, vocabulary) in, values of the same shape with the drawn token as their maximum out."""
        tempered = scores.float() / max(self._sampling.temperature, 1e-5)
        if 0 < self._top_k < tempered.shape[-1]:
            tempered = tempered.masked_fill(
                tempered < tempered.topk(self._top_k).values[..., -1:], -torch.inf
            )
        probs = tempered.softmax(-1)
        if self._sampling.top_p < 1:
            ordered, index = probs.sort(dim=-1, descending=True, stable=True)
            outside = ordered.cumsum(-1) - ordered >= self._sampling.top_p  # the tokens before it reach top_p
            probs = probs.scatter(-1, index, ordered.masked_fill(outside, 0))
        noise = torch.empty(probs.shape).exponential_(generator=self._generator)
        return probs / noise.clamp_min_(1e-30).to(probs.device)
