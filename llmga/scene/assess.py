"""Semantic alignment assessment: choose, among the descriptions that a model wrote for each object, those that agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch.nn.functional import cosine_similarity, normalize

from ..aligned import aligned
from ..edit.positions import text_positions
from ..text.encoder import PromptEncoder, longest
from .plan import MAX_DESCRIPTION, ScenePlan

AssessRule = Literal["rfnet", "joint", "all"]
"""The released code's rule, our own, or every description of each object joined."""

EXACT = 4096
"""Combinations that the rule ``joint`` looks at one by one; beyond them it improves one object at a time."""


class TokenStates(NamedTuple):
    """One text as a text encoder sees it."""

    states: torch.Tensor
    """(T, d) float32: the hidden state of each token, paddings included; one T for all texts of a call."""
    is_text: torch.Tensor
    """(T,) bool: the text's own tokens."""


EncodeTexts = Callable[[Sequence[str]], list[TokenStates]]
"""Any text encoder: texts to their token states."""


@dataclass(frozen=True)
class Assessment:
    """What was chosen, and why."""

    plan: ScenePlan
    """The plan with one description for each object: the chosen ones, joined by commas. Where they would be longer than a
    description may be, they stay apart; the prompts are the same, for these join them by commas too."""
    rule: AssessRule
    chosen: tuple[tuple[int, ...], ...]
    """For each object the numbers of its descriptions that were taken, from 0."""
    scores: tuple[dict[str, float], ...]
    """For each object what was compared and how alike it is, by name; a cosine, -1 to 1."""

    def report(self) -> str:
        """A table of what was compared for each object, and what was taken."""
        rows: dict[str, dict[str, str]] = {}
        for one, scores, chosen in zip(self.plan.objects, self.scores, self.chosen, strict=True):
            taken = " + ".join(str(number + 1) for number in chosen) or "none"
            name = one.name if one.name not in rows else f"{one.name} ({len(rows) + 1})"
            rows[name] = {**{what: f"{score:.2f}" for what, score in scores.items()}, "taken": taken}
        columns = list(dict.fromkeys(what for row in rows.values() for what in row))
        cells = [["", *columns], *([name, *(row.get(c, "") for c in columns)] for name, row in rows.items())]
        lines = [f"rule {self.rule}", aligned(cells) if rows else "no objects"]
        lines += [f"{one.name}: {text}" for one in self.plan.objects for text in one.descriptions]
        return "\n".join(lines)


def assess(plan: ScenePlan, encode: EncodeTexts, rule: AssessRule = "joint") -> Assessment:
    """Choose descriptions.

    ``rfnet`` takes, for each object on its own, the pair of its first three descriptions that is most alike: the mean over
    all token positions, paddings included, of the cosine between the hidden states of both. ``joint`` takes one description
    of each object: the set whose pooled states (the mean over the text's own tokens) agree best across the objects, as the
    sum of all cosines between two; a single object's is the one most like the background, or else the sentence.

    Args:
        encode: a text encoder; ``rfnet`` is meant for CLIP's last hidden states.

    Raises:
        ValueError: the rule is unknown.

    Source: Yao et al., The Fabrication of Reality and Fantasy (ECCV 2024), SAA; ``rfnet`` is what
    leo81005/Reality-and-Fantasy fa3eb4b ``func.py`` does, which compares descriptions of one object, while the paper speaks
    of compatible descriptions of different ones, which ``joint`` looks for.
    """
    if rule not in get_args(AssessRule):
        raise ValueError(f"rule must be one of {', '.join(get_args(AssessRule))}, got {rule!r}")
    descriptions = [one.descriptions for one in plan.objects]
    if rule == "all":
        chosen, scores = [tuple(range(len(texts))) for texts in descriptions], [{} for _ in descriptions]
    elif rule == "rfnet":
        chosen, scores = _most_alike_pairs(descriptions, encode)
    else:
        chosen, scores = _agreeing_set(plan, encode)
    objects = tuple(
        replace(one, descriptions=_joined([one.descriptions[i] for i in numbers]))
        for one, numbers in zip(plan.objects, chosen, strict=True)
    )
    return Assessment(replace(plan, objects=objects), rule, tuple(chosen), tuple(scores))


def _joined(texts: Sequence[str]) -> tuple[str, ...]:
    """One text of all, or all as they are where one text would be too long for a description."""
    text = ", ".join(texts)
    if len(text) > MAX_DESCRIPTION:
        return tuple(texts)
    return (text,) if texts else ()


def clip_states(encoder: PromptEncoder[Any], states_of: Callable[[Any], torch.Tensor]) -> EncodeTexts:
    """``EncodeTexts`` on a prompt encoder, all texts of a call padded to one length.

    Args:
        states_of: the (1, T, d) states of what the encoder returns; of an ``EncodedPrompt`` they are its ``states``.
    """

    def encode(texts: Sequence[str]) -> list[TokenStates]:
        plans = [encoder.plan(text) for text in texts]
        chunks = longest(*plans) if plans else 1
        found = []
        for each in plans:
            states = states_of(encoder.encode(each, chunks))[0].float().cpu()
            is_text = torch.zeros(len(states), dtype=torch.bool)
            is_text[text_positions(each["l"].padded(chunks), encoder.layout)] = True
            found.append(TokenStates(states, is_text))
        return found

    return encode


def _most_alike_pairs(
    descriptions: Sequence[Sequence[str]], encode: EncodeTexts
) -> tuple[list[tuple[int, ...]], list[dict[str, float]]]:
    chosen: list[tuple[int, ...]] = []
    scores: list[dict[str, float]] = []
    for texts in descriptions:
        states = [each.states for each in encode(texts)] if len(texts) > 2 else []
        pairs = [(0, 1), (1, 2), (0, 2)] if states else []  # in the order in which the reference breaks ties
        alike = {pair: float(cosine_similarity(*(states[i] for i in pair), dim=1).mean()) for pair in pairs}
        chosen.append(max(pairs, key=lambda pair: alike[pair]) if pairs else tuple(range(len(texts))))
        scores.append({f"{i + 1} ~ {j + 1}": value for (i, j), value in alike.items()})
    return chosen, scores


def _agreeing_set(
    plan: ScenePlan, encode: EncodeTexts
) -> tuple[list[tuple[int, ...]], list[dict[str, float]]]:
    owners = [i for i, one in enumerate(plan.objects) if one.descriptions]
    texts = [text for i in owners for text in plan.objects[i].descriptions]
    anchor = plan.background or plan.prompt
    alone = len(owners) == 1 and bool(anchor)
    if not texts:
        return [()] * len(plan.objects), [{} for _ in plan.objects]
    pooled = iter(_pooled(encode([*texts, *[anchor] * alone])))
    vectors = [torch.stack([next(pooled) for _ in plan.objects[i].descriptions]) for i in owners]
    others = [next(pooled)[None]] if alone else []
    best = _best_set(vectors, others)
    chosen: list[tuple[int, ...]] = [()] * len(plan.objects)
    scores: list[dict[str, float]] = [{} for _ in plan.objects]
    for place, i in enumerate(owners):
        chosen[i] = (best[place],)
        rest = [v[best[j]] for j, v in enumerate(vectors) if j != place] + [v[0] for v in others]
        if rest:
            means = (vectors[place] @ torch.stack(rest).T).mean(1)  # (descriptions,)
            scores[i] = {str(k + 1): float(mean) for k, mean in enumerate(means)}
    return chosen, scores


def _pooled(states: Sequence[TokenStates]) -> list[torch.Tensor]:
    """The mean over each text's own tokens at length 1; a text without tokens is pooled over all positions."""
    kept = [one.states[one.is_text] if one.is_text.any() else one.states for one in states]
    return [normalize(each.mean(0), dim=0) for each in kept]


def _best_set(vectors: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> tuple[int, ...]:
    """For each object the number of its description, so that the sum of the cosines between all is greatest."""
    places = [*vectors, *others]
    alike = {(i, j): places[i] @ places[j].T for i, j in combinations(range(len(places)), 2)}
    fixed = (0,) * len(others)

    def total(numbers: tuple[int, ...]) -> float:
        every = numbers + fixed
        return sum(float(alike[i, j][every[i], every[j]]) for i, j in alike)

    counts = [len(each) for each in vectors]
    if torch.tensor(counts).prod() <= EXACT:
        return max(product(*map(range, counts)), key=total)
    starts = [tuple(min(k, count - 1) for count in counts) for k in range(max(counts))]
    return max((_improved(start, counts, total) for start in starts), key=total)


def _improved(
    numbers: tuple[int, ...], counts: Sequence[int], total: Callable[[tuple[int, ...]], float]
) -> tuple[int, ...]:
    """Change one object's description at a time as long as the sum grows."""
    best = total(numbers)
    while True:
        tries = [(*numbers[:i], k, *numbers[i + 1 :]) for i, count in enumerate(counts) for k in range(count)]
        found = max(tries, key=total)
        if total(found) <= best:
            return numbers
        numbers, best = found, total(found)
