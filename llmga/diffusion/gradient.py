"""Gradients with respect to the latent of a denoiser: for guidance by a loss on the noise or on the attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from .denoiser import Denoiser, Taps


@contextmanager
def autograd_enabled() -> Iterator[None]:
    """Enable autograd, and leave ``torch.inference_mode``, in which no tensor can be differentiated."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def gradient(
    denoiser: Denoiser,
    x: torch.Tensor,
    timestep: int,
    contexts: Sequence[Any],
    loss: Callable[[torch.Tensor | None], torch.Tensor],
    taps: Taps | None = None,
) -> torch.Tensor:
    """Differentiate a loss with respect to the latent.

    It works in any mode, inference mode included, and keeps no graph and no gradient of a parameter.

    Args:
        x: (B, 4, h, w) float32.
        loss: called with the predicted noise, or None if the taps stopped the pass; it may use what the taps recorded.
            Returns a scalar. Other tensors in it that were made in inference mode must be cloned.

    Returns:
        d loss / d x, (B, 4, h, w) float32 on the device of ``x``.

    Raises:
        RuntimeError: the loss does not depend on ``x``.
    """
    with autograd_enabled():
        # A clone: a tensor made in inference mode cannot require a gradient.
        variable = x.detach().clone().requires_grad_()
        eps = denoiser.with_gradient(variable, timestep, contexts, taps)
        (found,) = torch.autograd.grad(loss(eps), variable)
    return found


def require_variable(x: torch.Tensor) -> None:
    """
    Raises:
        ValueError: ``x`` cannot be differentiated.
    """
    if x.is_inference() or not x.requires_grad or not torch.is_grad_enabled():
        raise ValueError(
            "x must require a gradient, be made outside inference mode and be used where autograd is on; make it with "
            "x.detach().clone().requires_grad_() inside autograd_enabled(), or call gradient()"
        )
