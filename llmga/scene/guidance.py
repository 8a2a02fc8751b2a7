"""Layout guidance: move a latent down the gradient of a loss on cross-attention before a denoising step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch

from ..diffusion.denoiser import Denoiser, Site
from ..diffusion.gradient import autograd_enabled
from .attention import WordAttention, WordTaps
from .losses import LossWeights

StepScale = Literal["abar", "sigma"]
"""How far a gradient moves the latent: √(1 - ᾱ) as with DDIM, or 1 - ᾱ, which is σ² of a sampler in sigma space."""

RecordedLoss = Callable[[Mapping[Site, WordAttention]], torch.Tensor]


@dataclass(frozen=True)
class GuidanceSettings:
    """When and how strongly a latent is guided.

    Args:
        scale: of the loss, by which the gradient is multiplied; 0 guides nothing.
        threshold: a latent whose loss is at or below it is left alone, and so are all later ones.
        passes: the most gradient passes of a step, for each of the first steps of ``of_steps``.
        of_steps: how many steps ``passes`` is meant for; other numbers of steps are guided in the same parts of the way.
        step_scale: see ``StepScale``.
        weights: of the losses.

    Raises:
        ValueError: a value is out of range.

    Source: leo81005/Reality-and-Fantasy fa3eb4b ``generation/lmd.py``: loss_scale 5, loss_threshold 5, max_iter, 50 steps.
    """

    scale: float = 5.0
    threshold: float = 5.0
    passes: tuple[int, ...] = (4,) * 5 + (3,) * 5 + (2,) * 10 + (1,) * 10
    of_steps: int = 50
    step_scale: StepScale = "abar"
    weights: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        if self.step_scale not in get_args(StepScale):
            raise ValueError(
                f"step_scale must be one of {', '.join(get_args(StepScale))}; got {self.step_scale!r}"
            )
        for name in ("scale", "threshold"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a number from 0 on, got {getattr(self, name)!r}")
        if self.of_steps < 1 or any(each < 0 for each in self.passes):
            raise ValueError("of_steps must be at least 1 and passes at least 0 each")

    def passes_at(self, i: int, steps: int) -> int:
        """The most gradient passes before step ``i`` (from 0) of ``steps``."""
        place = i * self.of_steps // steps
        return self.passes[place] if self.scale and place < len(self.passes) else 0

    def most_passes(self, steps: int) -> int:
        """The most gradient passes of a whole run."""
        return sum(self.passes_at(i, steps) for i in range(steps))

    def guided_steps(self, steps: int) -> int:
        """How many of the first steps may be guided."""
        return max((i + 1 for i in range(steps) if self.passes_at(i, steps)), default=0)

    def distance(self, abar: float) -> float:
        """How far a gradient moves a latent at this noise level."""
        return (1 - abar) ** 0.5 if self.step_scale == "abar" else 1 - abar


@dataclass
class LayoutGuidance:
    """Guidance of one run; it remembers whether the loss has fallen to the threshold, and counts its passes.

    Args:
        sites: whose attention the loss reads.
        tokens: positions in the context that are recorded there.
    """

    settings: GuidanceSettings
    sites: Sequence[Site]
    tokens: Sequence[int]
    loss: float = float("inf")
    """The last one."""
    forward_passes: int = 0
    backward_passes: int = 0

    def guide(
        self,
        denoiser: Denoiser,
        x: torch.Tensor,
        timestep: int,
        context: Any,
        most: int,
        loss_of: RecordedLoss,
    ) -> torch.Tensor:
        """Move a latent (1, 4, h, w) until its loss is small, ``most`` times at most.

        Each pass ends after the last layer that the loss reads, and holds the probabilities of the chosen tokens alone.

        Source: ``latent_backward_guidance`` of the reference. Deviation: a latent whose loss is found to be at or below the
        threshold is not moved once more, which saves the backward pass.
        """
        for _ in range(most):
            if self.loss <= self.settings.threshold:
                break
            taps = WordTaps(self.sites, self.tokens, stop=True)
            with autograd_enabled():
                # A clone: a tensor made in inference mode cannot require a gradient.
                variable = x.detach().clone().requires_grad_()
                denoiser.with_gradient(variable, timestep, [context], taps)
                loss = loss_of(taps.recorded)
                self.loss = float(loss.detach())
                self.forward_passes += 1
                if self.loss <= self.settings.threshold:
                    break
                (found,) = torch.autograd.grad(loss, variable)
            self.backward_passes += 1
            distance = self.settings.scale * self.settings.distance(denoiser.schedule.abar(timestep))
            x = x - distance * found.to(x.device)
        return x
