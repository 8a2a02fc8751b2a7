"""Prompt-to-prompt's options by words, and the ``Control`` by token positions that they resolve to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

import torch

from ..text import JoinLayout, Plan
from ..text.tokenizer import decode
from .alignment import MINIMUM_RATIO, Alignment, align
from .control import Blend, Control, level_cells
from .phrases import locate
from .positions import text_positions
from .reference_alignment import align_as_published

ModeOption = Literal["auto", "refine", "replace"]
AlignmentOption = Literal["runs", "reference"]
BlendOption = Literal["auto", "off", "up blocks"]

MAX_PHRASES = 100
MAX_WORD_WEIGHT = 20.0
_NUMBER = r"[+-]?(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})"
_ENTRY = re.compile(
    rf"(?P<phrase>.{{0,999}}\S)\s{{0,99}}[:=]\s{{0,99}}(?P<first>{_NUMBER})"
    rf"(?:\s{{0,99}}(?:to|-|–)\s{{0,99}}(?P<last>{_NUMBER}))?"
)
_SHOWN = 12  # words that a report lists


ALIGNERS: dict[AlignmentOption, Callable[..., Alignment]] = {"runs": align, "reference": align_as_published}


@dataclass(frozen=True)
class PromptToPromptOptions:
    """How an edit treats single words of the prompts.

    Args:
        weights: (phrase, weight): how strong a phrase of the target is, -20 .. 20; 1 changes nothing. Acts while the
            attention of the phrase is replaced.
        spans: (phrase, from, to): the part of the steps in which a phrase of the target takes its attention from the
            source, 0 .. 1, instead of the edit's own.
        blend: phrases of either prompt whose places may change; none: the words that differ.
        subtract: phrases of either prompt whose places must stay.
        threshold: the part of the greatest attention from which a place belongs to a phrase, 0 .. 1.
        start: the part of the steps in which the whole picture may still change, 0 .. 1.
        mode: ``refine`` keeps the attention of the words that both prompts have; ``replace`` gives each word that of the
            word in its place, and needs as many words in both; ``auto`` replaces where words were only swapped.
        self_max: self-attention with more queries than this part of the latent's cells is not replaced, 0 .. 1; see
            ``level_cells``.
        alignment: ``runs`` is ``align``; ``reference`` is ``align_as_published``, for comparing with the paper.

    Raises:
        ValueError: a value is out of range.
    """

    weights: tuple[tuple[str, float], ...] = ()
    spans: tuple[tuple[str, float, float], ...] = ()
    blend: tuple[str, ...] = ()
    subtract: tuple[str, ...] = ()
    threshold: float = 0.3
    start: float = 0.2
    mode: ModeOption = "auto"
    self_max: float = 0.25
    alignment: AlignmentOption = "runs"

    def __str__(self) -> str:
        """The settings that are not the usual ones, for a person to read."""
        usual = PromptToPromptOptions()
        given = [
            f"{one.name} {getattr(self, one.name)}"
            for one in fields(self)
            if getattr(self, one.name) != getattr(usual, one.name)
        ]
        return f"prompt-to-prompt options: {'; '.join(given) or 'the usual ones'}"

    def __post_init__(self) -> None:
        if self.mode not in get_args(ModeOption):
            raise ValueError(f"mode must be one of {', '.join(get_args(ModeOption))}; got {self.mode!r}")
        if self.alignment not in ALIGNERS:
            raise ValueError(f"alignment must be one of {', '.join(ALIGNERS)}; got {self.alignment!r}")
        for name in ("threshold", "start", "self_max"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)!r}")
        for phrase, weight in self.weights:
            if not abs(weight) <= MAX_WORD_WEIGHT:
                raise ValueError(
                    f"word_weights: {phrase!r} has weight {weight:g}, allowed is -{MAX_WORD_WEIGHT:g} to {MAX_WORD_WEIGHT:g}"
                )
        for phrase, first, last in self.spans:
            if not 0 <= first <= last <= 1:
                raise ValueError(
                    f"word_steps: {phrase!r} has {first:g} to {last:g}, allowed are parts of the steps from 0 to 1"
                )


@dataclass(frozen=True, eq=False)
class ResolvedEdit:
    """The control of an edit, and notes on it for a person."""

    control: Control
    alignment: Alignment
    notes: tuple[str, ...]

    @property
    def changes_nothing(self) -> bool:
        """Whether no word differs and none has a weight."""
        return not (self.alignment.removed or self.alignment.added) and self.control.equalizer is None


def read_phrases(text: str) -> tuple[str, ...]:
    """Read phrases, one a line or between commas.

    Raises:
        ValueError: there are more than ``MAX_PHRASES``.
    """
    return _limited(phrase for line in re.split(r"[,;\n]", text) if (phrase := line.strip()))


def read_weights(text: str) -> tuple[tuple[str, float], ...]:
    """Read ``phrase: weight`` entries, one a line or between commas.

    Raises:
        ValueError: an entry has another form.
    """
    return tuple((phrase, first) for phrase, first, _ in _entries("word_weights", text))


def read_spans(text: str) -> tuple[tuple[str, float, float], ...]:
    """Read ``phrase: end`` or ``phrase: start to end`` entries, one a line or between commas.

    Raises:
        ValueError: an entry has another form.
    """
    spans = []
    for phrase, first, last in _entries("word_steps", text):
        start, end = (0.0, first) if last is None else (first, last)
        spans.append((phrase, start, end))
    return tuple(spans)


def build_control(
    options: PromptToPromptOptions,
    source: Plan,
    target: Plan,
    layout: JoinLayout,
    *,
    size: tuple[int, int],
    cross_replace: float = 0.4,
    self_replace: float = 0.6,
    cfg: float = 7.5,
    local_blend: BlendOption = "auto",
    mask: torch.Tensor | None = None,
) -> ResolvedEdit:
    """Resolve the options of an edit from one planned prompt to another into token positions.

    Where the prompts align too little, only self-attention is taken from the source, and words that differ are no longer
    a place in the picture: the notes say so. Phrases that do not occur are left out and noted.

    Args:
        size: (h, w) of the latent.
        local_blend: ``auto`` lets the picture change only where ``options.blend`` is, or else the words that differ, or
            else those with a weight; ``up blocks`` does too, by the maps of the UNet's up blocks alone (see ``Blend``).
        mask: as in ``Control``.

    Raises:
        ValueError: see ``align`` and ``Control``.
    """
    alignment = align_auto(source, target, layout, options.mode, options.alignment)
    count = alignment.chunks
    finder = _PhraseFinder(source.padded(count), target.padded(count), layout)
    notes = [_description(alignment, finder)]
    if options.alignment == "reference":
        notes.append("aligned as published; the other alignment keeps more where prompts have unequal length")
    far_apart = alignment.aligned_ratio < MINIMUM_RATIO
    if far_apart:
        notes.append(
            "WARNING the prompts share too few words to carry attention over: only the layout (self-attention) is kept. "
            "Let the target prompt be the source prompt with few words changed, or paint a mask"
        )
    tokens = len(alignment.own)
    equalizer = torch.ones(tokens)
    spans = torch.tensor([0.0, 0.0 if far_apart else cross_replace]).repeat(tokens, 1)  # (T_tgt, 2)
    weighted: list[int] = []
    for phrase, weight in options.weights:
        found = finder.in_target("word_weights", phrase)
        equalizer[found] = weight
        weighted += found
    for phrase, first, last in options.spans:
        spans[finder.in_target("word_steps", phrase)] = torch.tensor([first, last])
    changed = ((), ()) if far_apart else (alignment.removed, alignment.added)
    blend = _blend(options, finder, changed if any(changed) else ((), tuple(weighted)))
    if local_blend == "off":
        blend = None
    elif blend is not None:
        blend = replace(blend, up_only=local_blend == "up blocks")
    else:
        notes.append("no words say where to change, so the whole picture may")
    control = Control(
        alignment.matrix,
        alignment.own,
        equalizer=equalizer if weighted else None,
        cross_replace=spans,
        self_replace=self_replace,
        self_max_pixels=level_cells(options.self_max, size),
        blend=blend,
        mask=mask,
        cfg=cfg,
    )
    return ResolvedEdit(control, alignment, (*notes, *finder.missing))


def align_auto(
    source: Plan,
    target: Plan,
    layout: JoinLayout,
    mode: ModeOption = "auto",
    alignment: AlignmentOption = "runs",
) -> Alignment:
    """Align two prompts by one of ``ALIGNERS``.

    The mode ``auto`` is ``replace`` for prompts in which words were only swapped, else ``refine``.
    """
    align = ALIGNERS[alignment]
    if mode != "auto":
        return align(source, target, layout, mode)
    refined = align(source, target, layout, "refine")
    try:
        replaced = align(source, target, layout, "replace")
    except ValueError:
        return refined
    # Only if words were swapped do both modes find the same changes; in `replace`, words that moved pair with others.
    swapped = (replaced.removed, replaced.added) == (refined.removed, refined.added)
    if not swapped:
        return refined
    # In `replace` every token is paired; the ratio of equal ones is that of `refine`.
    return replace(replaced, aligned_ratio=refined.aligned_ratio)


class _PhraseFinder:
    """Finds the token positions of phrases in both prompts, and notes those that do not occur."""

    def __init__(self, source: Plan, target: Plan, layout: JoinLayout) -> None:
        self.plans = (source, target)
        self.layout: JoinLayout = layout
        self.missing: list[str] = []

    def in_target(self, option: str, phrase: str) -> list[int]:
        found = self._positions(1, phrase)
        if not found:
            self.missing.append(f"{option}: {phrase!r} does not occur in the target prompt and was left out")
        return found

    def in_either(self, option: str, phrases: Sequence[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        source: list[int] = []
        target: list[int] = []
        for phrase in phrases:
            in_source, in_target = self._positions(0, phrase), self._positions(1, phrase)
            source += in_source
            target += in_target
            if not in_source and not in_target:
                self.missing.append(f"{option}: {phrase!r} occurs in neither prompt and was left out")
        return tuple(dict.fromkeys(source)), tuple(dict.fromkeys(target))

    def decode_positions(self, side: int, positions: Iterable[int]) -> str:
        """The text of tokens at some positions of the source (0) or target (1), cut after some."""
        plan = self.plans[side]
        tokens = [token.id for chunk in plan.chunks for token in chunk]
        id_at = dict(zip(text_positions(plan, self.layout), tokens, strict=True))
        chosen = [id_at[at] for at in positions]
        return decode(chosen[:_SHOWN]) + (" …" if len(chosen) > _SHOWN else "")

    def _positions(self, side: int, phrase: str) -> list[int]:
        return [at for each in locate(self.plans[side], phrase, self.layout) for at in each]


def _blend(
    options: PromptToPromptOptions, finder: _PhraseFinder, default: tuple[tuple[int, ...], tuple[int, ...]]
) -> Blend | None:
    """The blend of the options' phrases, or else of the default positions in source and target."""
    source, target = finder.in_either("blend_words", options.blend) if options.blend else default
    subtract_source, subtract_target = finder.in_either("subtract_words", options.subtract)
    if not source and not target:
        return None
    return Blend(
        source,
        target,
        subtract_source,
        subtract_target,
        threshold=options.threshold,
        subtract_threshold=options.threshold,
        start=options.start,
    )


def _description(alignment: Alignment, finder: _PhraseFinder) -> str:
    parts = [
        f"{alignment.aligned_ratio:.0%} of the target prompt's tokens take attention from the source prompt"
    ]
    if alignment.removed:
        parts.append(f"gone: {finder.decode_positions(0, alignment.removed)}")
    if alignment.added:
        parts.append(f"new: {finder.decode_positions(1, alignment.added)}")
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
