"""Prompt-lookup decoding: propose tokens that followed the same n-gram earlier, and verify them in one forward pass.

A caption of an edited picture repeats most of the one before. The greedy choice is the same with and without; where
the numbers of a step depend on how many tokens it reads (half precision on a GPU), a tie may fall otherwise.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from .transformers_names import cache_name

_LONGEST, _SHORTEST = 3, 2  # tokens that have to recur before their continuation is guessed


def guess(ids: Sequence[int], ahead: int) -> list[int]:
    """What followed the last tokens where they stood before: up to ``ahead`` tokens, or none.

    The latest place counts, unless it is so late that less than ``ahead`` tokens have followed and another has more.
    """
    best: list[int] = []
    for size in range(_LONGEST, _SHORTEST - 1, -1):
        tail = list(ids[-size:])
        for start in range(len(ids) - size - 1, -1, -1):
            if ids[start] == tail[0] and list(ids[start : start + size]) == tail:
                found = list(ids[start + size : start + size + ahead])
                best = max(best, found, key=len)
                if len(best) == ahead:
                    return best
        if best:
            return best
    return best


@torch.no_grad()
def decode_greedily(
    net: Any,
    inputs: dict[str, Any],
    cache: Any,
    cached: int,
    stream: Any,
    max_new_tokens: int,
    ahead: int,
    named: Any,
    penalty: Any,
) -> tuple[list[int], Any]:
    """The greedy reply's tokens after those of ``inputs``, and the cache of all but its last.

    Args:
        inputs: ``input_ids`` (1, tokens) and what else the first step takes, on the network's device.
        cache: of the first ``cached`` tokens, or None.
        stream: has ``put(tokens)`` and ``stopped``; see ``stream.Stream``.
        ahead: guesses in one step.
        named, penalty: logits processors; see ``stream.NamedTokens`` and ``stream.RepetitionPenalty``.
    """
    ids = inputs["input_ids"][0].tolist()
    first = {name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask")}
    last_only = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(net.forward).parameters else {}
    device = inputs["input_ids"].device

    def step(tokens: list[int], **more: Any) -> Any:
        length = cached_length() + len(tokens)
        mask = torch.ones(1, length, dtype=torch.long, device=device)
        fed = torch.tensor([tokens], device=device)
        return net(input_ids=fed, attention_mask=mask, use_cache=True, **{cache_name(): cache}, **more)

    def cached_length() -> int:
        return cache.get_seq_length() if cache is not None else 0

    def choose(logits: torch.Tensor, following: list[int]) -> list[int]:
        """The likeliest token behind all so far, and behind each of ``following`` in turn; ``logits`` (positions, rows)."""
        scores = named(None, logits.float())
        for i in range(len(scores)):
            before = torch.tensor([[*ids, *new, *following[:i]]], device=device)
            scores[i : i + 1] = penalty(before, scores[i : i + 1])
        return scores.argmax(-1).tolist()

    new: list[int] = []
    output = step(ids[cached:], **first, **last_only)
    cache = output[cache_name()]
    new += choose(output.logits[0, -1:], [])
    stream.put(new)
    while not stream.stopped and len(new) < max_new_tokens:
        guesses = guess(ids + new, min(ahead, max_new_tokens - len(new) - 1))
        output = step([new[-1], *guesses])
        cache = output[cache_name()]
        chosen = choose(output.logits[0], guesses)
        right = next((i for i, token in enumerate(guesses) if token != chosen[i]), len(guesses))
        if wrong := len(guesses) - right:
            cache.crop(-wrong)
        for token in chosen[: right + 1]:
            new.append(token)
            stream.put([token])
            if stream.stopped:
                break
    return new, cache
