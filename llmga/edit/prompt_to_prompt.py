"""An edit as a person says it, in words, and as prompt-to-prompt needs it, in token positions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from ..text import Layout, Plan
from ..text.tokenizer import decode
from .alignment import MINIMUM_RATIO, Alignment, align
from .control import Blend, Control
from .phrases import locate
from .positions import text_positions

Mode = Literal["auto", "refine", "replace"]
LocalBlend = Literal["auto", "off"]

MAX_PHRASES = 100
MAX_WEIGHT = 20.0
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_ENTRY = re.compile(
    rf"(?P<phrase>.*\S)\s*[:=]\s*(?P<first>{_NUMBER})(?:\s*(?:to|-|–)\s*(?P<last>{_NUMBER}))?"
)
_SHOWN = 12  # words that a report lists


@dataclass(frozen=True)
class Words:
    """Prompt-to-prompt's options, by the words of the prompts.

    Args:
        weights: (phrase, weight): how strong a phrase of the target is, -20 .. 20; 1 changes nothing. Acts while the word
            is replaced.
        spans: (phrase, from, to): the part of the steps in which a phrase of the target takes its attention from the
            source, 0 .. 1, instead of the edit's own.
        blend: phrases of either prompt whose places may change; none: the words that differ.
        subtract: phrases of either prompt whose places must stay.
        threshold: from which part of the greatest attention on a place belongs to a phrase, 0 .. 1.
        start: the part of the steps in which the picture may still change everywhere, 0 .. 1.
        mode: ``refine`` keeps the attention of the words that both prompts have; ``replace`` gives each word that of the
            word in its place, and needs as many words in both; ``auto`` replaces where words were only swapped.
        self_max: self-attention with more queries than this part of the latent's cells is left alone, 0 .. 1.
    """

    weights: tuple[tuple[str, float], ...] = ()
    spans: tuple[tuple[str, float, float], ...] = ()
    blend: tuple[str, ...] = ()
    subtract: tuple[str, ...] = ()
    threshold: float = 0.3
    start: float = 0.2
    mode: Mode = "auto"
    self_max: float = 0.25

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}; got {self.mode!r}")
        for name in ("threshold", "start", "self_max"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)!r}")
        for phrase, weight in self.weights:
            if not abs(weight) <= MAX_WEIGHT:
                raise ValueError(
                    f"word_weights: {phrase!r} has weight {weight:g}, allowed is -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}"
                )
        for phrase, first, last in self.spans:
            if not 0 <= first <= last <= 1:
                raise ValueError(
                    f"word_steps: {phrase!r} has {first:g} to {last:g}, allowed are parts of the steps from 0 to 1"
                )


@dataclass(frozen=True, eq=False)
class Told:
    """An edit's control, and what to tell a person about it."""

    control: Control
    alignment: Alignment
    notes: tuple[str, ...]

    @property
    def asks_for_nothing(self) -> bool:
        """No word differs, and none has a weight."""
        return not (self.alignment.removed or self.alignment.added) and self.control.equalizer is None


def read_phrases(text: str) -> tuple[str, ...]:
    """Phrases from text, one a line or between commas."""
    return _limited(phrase for line in re.split(r"[,;\n]", text) if (phrase := line.strip()))


def read_weights(text: str) -> tuple[tuple[str, float], ...]:
    """``phrase: weight`` entries, one a line or between commas.

    Raises:
        ValueError: an entry has another form.
    """
    return tuple((phrase, first) for phrase, first, _ in _entries("word_weights", text))


def read_spans(text: str) -> tuple[tuple[str, float, float], ...]:
    """``phrase: end`` or ``phrase: start to end`` entries, one a line or between commas.

    Raises:
        ValueError: an entry has another form.
    """
    return tuple(
        (phrase, 0.0 if last is None else first, first if last is None else last)
        for phrase, first, last in _entries("word_steps", text)
    )


def control_of(
    words: Words,
    source: Plan,
    target: Plan,
    layout: Layout,
    *,
    size: tuple[int, int],
    cross_replace: float = 0.4,
    self_replace: float = 0.6,
    cfg: float = 7.5,
    local_blend: LocalBlend = "auto",
    mask: torch.Tensor | None = None,
) -> Told:
    """The control of an edit from one planned prompt to another.

    Where the prompts align too little, only self-attention is taken from the source, and words that differ are no longer
    a place in the picture: the notes say so. Phrases that do not occur are left out and noted.

    Args:
        size: (h, w) of the latent.
        local_blend: ``auto`` lets the picture change only where ``words.blend`` is, or else the words that differ, or
            else those with a weight.
        mask: as in ``Control``.

    Raises:
        ValueError: see ``align`` and ``Control``.
    """
    alignment = aligned(source, target, layout, words.mode)
    count = alignment.chunks
    finder = _Finder(source.padded(count), target.padded(count), layout)
    notes = [_described(alignment, finder)]
    far = alignment.aligned_ratio < MINIMUM_RATIO
    if far:
        notes.append(
            "WARNING the prompts share too few words to carry attention over: only the layout (self-attention) is kept. "
            "Let the target prompt be the source prompt with few words changed, or paint a mask"
        )
    tokens = len(alignment.own)
    equalizer, spans = (
        torch.ones(tokens),
        torch.tensor([0.0, 0.0 if far else cross_replace]).repeat(tokens, 1),
    )
    weighted: list[int] = []
    for phrase, weight in words.weights:
        found = finder.target("word_weights", phrase)
        equalizer[found] = weight
        weighted += found
    for phrase, first, last in words.spans:
        spans[finder.target("word_steps", phrase)] = torch.tensor([first, last])
    changed = ((), ()) if far else (alignment.removed, alignment.added)
    blend = _blend(words, finder, changed if any(changed) else ((), tuple(weighted)))
    if local_blend == "off":
        blend = None
    elif blend is None:
        notes.append("no words say where to change, so the whole picture may")
    control = Control(
        alignment.matrix,
        alignment.own,
        equalizer=equalizer if weighted else None,
        cross_replace=spans,
        self_replace=self_replace,
        self_max_pixels=int(words.self_max * size[0] * size[1]),
        blend=blend,
        mask=mask,
        cfg=cfg,
    )
    return Told(control, alignment, (*notes, *finder.missing))


def aligned(source: Plan, target: Plan, layout: Layout, mode: Mode = "auto") -> Alignment:
    """``align``, where ``auto`` takes replace for prompts in which words were swapped and none came or went."""
    if mode != "auto":
        return align(source, target, layout, mode)
    refined = align(source, target, layout, "refine")
    try:
        replaced = align(source, target, layout, "replace")
    except ValueError:
        return refined
    # Only then do both ways see the same words change; words that moved would pair with strangers.
    swapped = (replaced.removed, replaced.added) == (refined.removed, refined.added)
    # The ratio is that of the words that are equal in either way.
    return replace(replaced, aligned_ratio=refined.aligned_ratio) if swapped else refined


class _Finder:
    """Where phrases are in both prompts; remembers those that are nowhere."""

    def __init__(self, source: Plan, target: Plan, layout: Layout) -> None:
        self.plans = (source, target)
        self.layout: Layout = layout
        self.missing: list[str] = []

    def target(self, option: str, phrase: str) -> list[int]:
        found = self._positions(1, phrase)
        if not found:
            self.missing.append(f"{option}: {phrase!r} does not occur in the target prompt and was left out")
        return found

    def either(self, option: str, phrases: Sequence[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        found: tuple[list[int], list[int]] = [], []
        for phrase in phrases:
            both = [self._positions(side, phrase) for side in (0, 1)]
            for side in (0, 1):
                found[side].extend(both[side])
            if not any(both):
                self.missing.append(f"{option}: {phrase!r} occurs in neither prompt and was left out")
        return tuple(dict.fromkeys(found[0])), tuple(dict.fromkeys(found[1]))

    def said(self, side: int, positions: Iterable[int]) -> str:
        plan = self.plans[side]
        ids = dict(
            zip(
                text_positions(plan, self.layout),
                (token.id for chunk in plan.chunks for token in chunk),
                strict=True,
            )
        )
        chosen = [ids[at] for at in positions]
        return decode(chosen[:_SHOWN]) + (" …" if len(chosen) > _SHOWN else "")

    def _positions(self, side: int, phrase: str) -> list[int]:
        return [at for each in locate(self.plans[side], phrase, self.layout) for at in each]


def _blend(words: Words, finder: _Finder, instead: tuple[tuple[int, ...], tuple[int, ...]]) -> Blend | None:
    source, target = finder.either("blend_words", words.blend) if words.blend else instead
    less = finder.either("subtract_words", words.subtract)
    if not source and not target:
        return None
    return Blend(
        source,
        target,
        *less,
        threshold=words.threshold,
        subtract_threshold=words.threshold,
        start=words.start,
    )


def _described(alignment: Alignment, finder: _Finder) -> str:
    parts = [
        f"{alignment.aligned_ratio:.0%} of the target prompt's tokens take attention from the source prompt"
    ]
    if alignment.removed:
        parts.append(f"gone: {finder.said(0, alignment.removed)}")
    if alignment.added:
        parts.append(f"new: {finder.said(1, alignment.added)}")
    if not alignment.removed and not alignment.added:
        parts.append("no word differs")
    return "; ".join(parts)


def _entries(name: str, text: str) -> list[tuple[str, float, float | None]]:
    found = []
    for entry in read_phrases(text):
        match = _ENTRY.fullmatch(entry)
        if not match:
            raise ValueError(f"{name} must hold entries such as 'red fox: 1.5', got {entry[:60]!r}")
        last = match["last"]
        found.append((match["phrase"].strip(), float(match["first"]), None if last is None else float(last)))
    return found


def _limited(phrases: Iterable[str]) -> tuple[str, ...]:
    found = tuple(phrases)
    if len(found) > MAX_PHRASES:
        raise ValueError(f"at most {MAX_PHRASES} words or phrases can be given, got {len(found)}")
    return found
