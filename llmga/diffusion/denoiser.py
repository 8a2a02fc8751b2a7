"""What editing asks of a diffusion model: the noise in a latent, and a look into its attention on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch

from .schedule import Schedule


class Site(NamedTuple):
    """One attention layer, named as ComfyUI names the block that it is in."""

    block: Literal["input", "middle", "output"]
    number: int
    """Of the block: SD1.5 has attention in input 1, 2, 4, 5, 7, 8, middle 0 and output 3 to 11."""
    index: int
    """Of the transformer layer in the block; SD1.5 has one, SDXL up to ten."""
    kind: Literal["self", "cross"]


class StopForward(Exception):  # noqa: N818 - no error: nothing that comes later in the pass is needed
    """Raised by taps; ``Denoiser.eps`` then returns None."""


class Taps(Protocol):
    """Sees every attention layer of a pass, and may give what comes out of it."""

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
        """The noise in ``x``, (B, 4, h, w) float32 on any device; so is what is returned. None after a StopForward.

        Args:
            contexts: one per row; what a context is, the denoiser knows. Different numbers of tokens are repeated to a
                common multiple, which changes nothing.
        """
        ...


def noise(
    denoiser: Denoiser, x: torch.Tensor, timestep: int, contexts: Sequence[Any], taps: Taps | None = None
) -> torch.Tensor:
    """``denoiser.eps`` where it must not be None.

    Raises:
        RuntimeError: the pass was stopped.
    """
    eps = denoiser.eps(x, timestep, contexts, taps)
    if eps is None:
        raise RuntimeError("the pass was stopped before its end, so the noise is not known")
    return eps
