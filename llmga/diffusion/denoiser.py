"""The Denoiser protocol: a diffusion model that predicts the noise in a latent, with taps on its attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import torch

from .schedule import Schedule

CELL = 8
"""Pixels of a picture on a side of one cell of its latent, in SD1.x, SD2.x and SDXL."""

Result = TypeVar("Result")


class Site(NamedTuple):
    """One attention layer, named as ComfyUI names the block that it is in."""

    block: Literal["input", "middle", "output"]
    number: int
    """The number of the block: SD1.5 has attention in input 1, 2, 4, 5, 7, 8, middle 0 and output 3 to 11."""
    index: int
    """The number of the transformer layer in the block; SD1.5 has one, SDXL up to ten."""
    kind: Literal["self", "cross"]


class StopForward(Exception):  # noqa: N818 - not an error: the rest of the pass is not needed
    """Raised by taps to end a pass; ``Denoiser.eps`` then returns None."""


class Taps(Protocol):
    """Observes every attention layer of a pass, and may replace its output."""

    def attend(
        self, site: Site, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, size: tuple[int, int]
    ) -> torch.Tensor | None:
        """Attend, or return None to leave it to the network.

        Args:
            q, k, v: (B, N, heads · dim), projected and not yet split; the rows are those of the call. The tokens of a
                context may come repeated as a whole, if another row of the call has more.
            size: (h, w) of the queries, N = h · w.

        Returns:
            (B, N, heads · dim) as it goes into the output projection.

        Raises:
            StopForward: nothing later in this pass is needed.
        """
        ...


class Denoiser(Protocol):
    """A diffusion model in variance-preserving space."""

    @property
    def schedule(self) -> Schedule: ...

    @property
    def sites(self) -> list[Site]:
        """All attention layers in the order in which they run."""
        ...

    def eps(
        self, x: torch.Tensor, timestep: int, contexts: Sequence[Any], taps: Taps | None = None
    ) -> torch.Tensor | None:
        """Predict the noise in ``x``, without gradients.

        Args:
            x: (B, 4, h, w) float32 on any device.
            contexts: one for each row; its type is the denoiser's own. Contexts of different lengths are repeated to a
                common multiple, which changes nothing.

        Returns:
            (B, 4, h, w) float32 on the device of ``x``; None after a StopForward.
        """
        ...

    def with_gradient(
        self, x: torch.Tensor, timestep: int, contexts: Sequence[Any], taps: Taps | None = None
    ) -> torch.Tensor | None:
        """The same as ``eps`` with autograd on for ``x``: its result and what taps see can be differentiated.

        No gradient of a parameter is computed. Call it, and compute the loss, inside ``gradient.autograd_enabled``, or
        take ``gradient.gradient``, which does both.

        Raises:
            ValueError: ``x`` does not require a gradient, or is an inference tensor.
        """
        ...


class DenoiserRunner(Protocol):
    """A model that is loaded for a piece of work: the host loads and unloads around it, a diffusers UNet just runs it."""

    def run(
        self,
        prompts: Mapping[str, Any],
        shape: Sequence[int],
        work: Callable[[Any, dict[str, Any]], Result],
    ) -> Result:
        """Call ``work(denoiser, contexts)`` and return its result.

        Args:
            prompts: encoded prompts by name; ``negative`` is the unconditional one. ``contexts`` has the same names.
            shape: (B, 4, h, w) of the latents.
        """
        ...


def predict_noise(
    denoiser: Denoiser, x: torch.Tensor, timestep: int, contexts: Sequence[Any], taps: Taps | None = None
) -> torch.Tensor:
    """``denoiser.eps`` where taps never stop the pass.

    Raises:
        RuntimeError: the pass was stopped.
    """
    eps = denoiser.eps(x, timestep, contexts, taps)
    if eps is None:
        raise RuntimeError("the pass was stopped before its end, so the noise is not known")
    return eps
