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
    form: Any,
) -> tuple[list[int], Any]:
    """The greedy reply's tokens after those of ``inputs``, and the cache of all but its last.

    Args:
        inputs: ``input_ids`` (1, tokens) and what else the first step takes, on the network's device.
        cache: of the first ``cached`` tokens, or None.
        stream: has ``put(tokens)`` and ``stopped``; see ``stream.Stream``.
        ahead: guesses in one step.
        named, penalty, form: logits processors; see ``stream.NamedTokens``, ``stream.RepetitionPenalty`` and
            ``prompt_form.PromptForm``.
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

    def take(logits: torch.Tensor) -> int:
        """Append the likeliest token behind all so far; ``logits`` (rows,)."""
        before = torch.tensor([[*ids, *new]], device=device)
        scores = penalty(before, named(None, logits.float()[None]))
        new.append(int(form(before, scores).argmax()))
        stream.put(new[-1:])
        return new[-1]

    new: list[int] = []
    output = step(ids[cached:], **first, **last_only)
    cache = output[cache_name()]
    take(output.logits[0, -1])
    while not stream.stopped and len(new) < max_new_tokens:
        guesses = guess(ids + new, min(ahead, max_new_tokens - len(new) - 1))
        output = step([new[-1], *guesses])
        cache = output[cache_name()]
        right = 0
        while take(output.logits[0, right]) in guesses[right : right + 1] and not stream.stopped:
            right += 1
        if wrong := len(guesses) - right:
            cache.crop(-wrong)
    return new, cache
