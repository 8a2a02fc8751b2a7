"""Control: which attention an edit takes from the source, at which steps, and where the picture may change."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ..diffusion.schedule import part_of

Share = float | tuple[float, float]
"""A part of the steps, 0 .. 1: its end, or its start and end."""


@dataclass(frozen=True)
class Blend:
    """The words of a ``LocalBlend``: the picture may change where they are attended to, and stays elsewhere.

    Args:
        source, target: positions of the words' tokens in either context; at least one position in all.
        subtract_source, subtract_target: positions of words whose places never change.
        threshold, subtract_threshold: the part of the greatest attention from which a place belongs to the words.
        start: the part of the steps in which the whole picture may still change.
        up_only: count the layers of the up blocks alone, as suits a UNet whose maps were taught there (see
            ``llmga.train.box_loss``); prompt-to-prompt's counts those of the down blocks too.

    Raises:
        ValueError: no position is given, or a number is out of range.
    """

    source: tuple[int, ...] = ()
    target: tuple[int, ...] = ()
    subtract_source: tuple[int, ...] = ()
    subtract_target: tuple[int, ...] = ()
    threshold: float = 0.3
    subtract_threshold: float = 0.3
    start: float = 0.2
    up_only: bool = False

    def __post_init__(self) -> None:
        if not (*self.source, *self.target):
            raise ValueError("blend needs the position of at least one token, in source or target; got none")
        for name in ("threshold", "subtract_threshold", "start"):
            _check_range(f"blend {name}", getattr(self, name), 1)


@dataclass(frozen=True, eq=False)
class Control:
    """Prompt-to-prompt: which attention the edited picture takes from the source, when, and where it may change.

    The probabilities of the T_tgt target tokens become ``P_source @ S + P_target * d``. At steps at which token n is
    replaced, column n of S is ``equalizer[n] * matrix[:, n]`` and d[n] is ``equalizer[n] * own[n]``; at others they are 0
    and 1. Nothing is normalised again.

    Args:
        matrix: (T_src, T_tgt): the share of target token n's probability that comes from each source token.
        own: (T_tgt,): the share that it keeps of its own.
        equalizer: (T_tgt,): how strong each target token is; 1 leaves it as it is. Acts while the token is replaced.
        cross_replace: up to which part of the steps, or (from, to); (T_tgt,) or (T_tgt, 2) for each token by itself.
        self_replace: likewise for self-attention, which keeps the layout.
        self_max_pixels: self-attention with more queries is not replaced; None: those of the UNet's second level, a quarter
            of the latent's cells; see ``level_cells``.
        blend: None: the whole picture may change.
        mask: (B or 1, 1, h, w) in the latent's size, 0 .. 1: outside it (0) the picture stays as it was, bit for bit. With a
            blend both must agree.
        cfg: guidance; 1 leaves the negative prompt out.

    Raises:
        ValueError: a shape or a range is wrong.
    """

    matrix: torch.Tensor
    own: torch.Tensor
    equalizer: torch.Tensor | None = None
    cross_replace: Share | torch.Tensor = 0.4
    self_replace: Share = 0.6
    self_max_pixels: int | None = None
    blend: Blend | None = None
    mask: torch.Tensor | None = None
    cfg: float = 7.5
    _spans: torch.Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or self.own.shape != self.matrix.shape[1:]:
            raise ValueError(
                f"matrix must be (source tokens, target tokens) and own (target tokens,); got {tuple(self.matrix.shape)} "
                f"and {tuple(self.own.shape)}"
            )
        if self.equalizer is not None and self.equalizer.shape != self.own.shape:
            raise ValueError(
                f"equalizer must have one value for each of {len(self.own)} target tokens, got {tuple(self.equalizer.shape)}"
            )
        if self.self_max_pixels is not None and self.self_max_pixels < 0:
            raise ValueError(f"self_max_pixels must be at least 0, got {self.self_max_pixels}")
        for end in _span(self.self_replace):
            _check_range("self_replace", end, 1)
        object.__setattr__(self, "_spans", self._token_spans())
        self._check_blend()

    @property
    def tokens(self) -> tuple[int, int]:
        """(T_src, T_tgt)."""
        return self.matrix.shape[0], self.matrix.shape[1]

    def cross(self, step: int, steps: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """S (T_src, T_tgt) and d (T_tgt,) of a step (0-based), float32 on the CPU; None if it edits no token."""
        # One more than there are steps, as the reference has it: 0.4 of 50 steps are 20, and so are 0.4 of 49.
        first, end = (self._spans * (steps + 1) + _ROUNDING).floor().unbind(1)
        acts = ((first <= step) & (step < end)).float()
        if not acts.any():
            return None
        strength = acts if self.equalizer is None else acts * self.equalizer.float().cpu()
        return self.matrix.float().cpu() * strength, self.own.float().cpu() * strength + (1 - acts)

    def replaces_self(self, step: int, steps: int) -> bool:
        """Whether a step (0-based) takes self-attention from the source."""
        first, end = (part_of(steps, at) for at in _span(self.self_replace))
        return first <= step < end

    def _token_spans(self) -> torch.Tensor:
        """(T_tgt, 2) float64: the start and end of the steps in which each token is replaced."""
        given = self.cross_replace
        if isinstance(given, (int, float, tuple)):
            spans = torch.tensor(_span(given), dtype=torch.float64).repeat(len(self.own), 1)
        else:
            spans = given.detach().double().cpu()
            if spans.ndim == 1:
                spans = torch.stack([torch.zeros_like(spans), spans], 1)
        if spans.shape != (len(self.own), 2):
            raise ValueError(
                f"cross_replace must be a number, two of them, or one or two for each of {len(self.own)} target tokens; "
                f"got {tuple(spans.shape)}"
            )
        if not ((spans >= 0) & (spans <= 1)).all():
            raise ValueError(f"cross_replace must be from 0 to 1, got {spans.min():g} to {spans.max():g}")
        return spans

    def _check_blend(self) -> None:
        if self.blend is None:
            return
        source, target = self.tokens
        for name, count in (
            ("source", source),
            ("subtract_source", source),
            ("target", target),
            ("subtract_target", target),
        ):
            wrong = [at for at in getattr(self.blend, name) if not 0 <= at < count]
            if wrong:
                raise ValueError(f"blend {name} must be positions below {count}, got {wrong}")


def level_cells(share: float, size: tuple[int, int]) -> int:
    """The cells of the largest level of a UNet that has at most a share of a latent's.

    Each level counts as a quarter of the one above, though its sides are halved rounding up: that of 65 × 65 has 33 × 33.

    Args:
        share: 0 .. 1.
        size: (h, w) of the latent.

    Returns:
        0 where not even a single cell is so little.
    """
    (height, width), part = size, 1.0
    while part > share and height * width > 1:
        height, width, part = -(-height // 2), -(-width // 2), part / 4
    return height * width if part <= share else 0


_ROUNDING = 1e-5  # 10 times the float32 number 0.7 is less than 7


def _span(share: Share) -> tuple[float, float]:
    return share if isinstance(share, tuple) else (0.0, share)


def _check_range(name: str, value: float, most: float) -> None:
    if not 0 <= value <= most:
        raise ValueError(f"{name} must be from 0 to {most:g}, got {value!r}")
