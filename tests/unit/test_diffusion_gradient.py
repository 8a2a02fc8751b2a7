"""Gradients through a diffusers UNet with respect to the latent, against finite differences in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.attention_loss import AttentionLoss
from support.tiny_clip import WIDTH_L
from support.tiny_unet import SD15, noise, tiny_unet

from llmga.diffusion import (
    DiffusersContext,
    DiffusersDenoiser,
    Site,
    StopForward,
    autograd_enabled,
    gradient,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SITES = [Site("input", 7, 0, "cross"), Site("middle", 0, 0, "cross"), Site("output", 4, 0, "cross")]
TIMESTEP = 681


@pytest.fixture(scope="module")
def denoiser() -> DiffusersDenoiser:
    return DiffusersDenoiser(tiny_unet(SD15).double())


@pytest.fixture
def x() -> torch.Tensor:
    return noise("x", 2, 4, 16, 16)


CONTEXTS = [DiffusersContext(noise(name, 1, 9, WIDTH_L)) for name in ("a", "b")]


def attention_gradient(denoiser: DiffusersDenoiser, x: torch.Tensor, stop: Any = StopForward) -> torch.Tensor:
    taps = AttentionLoss(SITES, 3, stop)
    return gradient(denoiser, x, TIMESTEP, CONTEXTS, taps.loss, taps)


def attention_at(denoiser: DiffusersDenoiser, x: torch.Tensor) -> float:
    taps = AttentionLoss(SITES, 3, StopForward)
    assert denoiser.eps(x, TIMESTEP, CONTEXTS, taps) is None
    return float(taps.loss())


def test_the_gradient_of_attention_is_that_of_finite_differences(
    denoiser: DiffusersDenoiser, x: torch.Tensor
) -> None:
    x = x.double()
    found = attention_gradient(denoiser, x)
    assert found.shape == x.shape and found.isfinite().all() and found.abs().max() > 1e-5
    for name in ("one", "two"):
        direction, step = noise(name, *x.shape).double(), 1e-5
        ahead, behind = (attention_at(denoiser, x + sign * step * direction) for sign in (1, -1))
        expected = (ahead - behind) / (2 * step)
        assert abs(expected) > 1e-5, "the direction sees nothing"
        assert float((found * direction).sum()) == pytest.approx(expected, rel=1e-5)


def test_a_pass_that_is_stopped_has_the_same_gradient(denoiser: DiffusersDenoiser, x: torch.Tensor) -> None:
    stopped, whole = (attention_gradient(denoiser, x, stop) for stop in (StopForward, None))
    torch.testing.assert_close(stopped, whole, rtol=1e-6, atol=0)


def test_the_noise_can_be_differentiated_too(denoiser: DiffusersDenoiser, x: torch.Tensor) -> None:
    plain = denoiser.eps(x, TIMESTEP, CONTEXTS)

    def loss(eps: torch.Tensor | None) -> torch.Tensor:
        assert eps is not None and torch.equal(eps, plain)  # type: ignore[arg-type] # not stopped
        return eps.square().sum()

    assert gradient(denoiser, x, TIMESTEP, CONTEXTS, loss).abs().max() > 1e-3


def test_it_is_the_same_in_inference_mode(denoiser: DiffusersDenoiser, x: torch.Tensor) -> None:
    expected = attention_gradient(denoiser, x)
    with torch.inference_mode():
        found = attention_gradient(denoiser, x.clone())
    assert torch.equal(found, expected) and not found.requires_grad
    with torch.no_grad():
        assert torch.equal(attention_gradient(denoiser, x), expected)


def test_parameters_get_no_gradient_and_keep_their_flags(
    denoiser: DiffusersDenoiser, x: torch.Tensor
) -> None:
    parameters = list(denoiser.unet.parameters())
    parameters[0].requires_grad_(False)
    flags = [parameter.requires_grad for parameter in parameters]
    assert any(flags) and not all(flags)
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        attention_gradient(denoiser, x)
    assert [parameter.requires_grad for parameter in parameters] == flags
    assert all(parameter.grad is None for parameter in parameters)
    with autograd_enabled(), torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        kept = sum(tensor.numel() for tensor in saved)
    saved.clear()
    with (
        autograd_enabled(),
        torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t),
    ):
        variable = x.clone().requires_grad_()
        denoiser._predict(variable, TIMESTEP, CONTEXTS, AttentionLoss(SITES, 3, StopForward))
    assert kept < sum(tensor.numel() for tensor in saved), "inputs are kept for gradients of parameters"
    parameters[0].requires_grad_(True)


def test_what_cannot_be_differentiated_is_refused(denoiser: DiffusersDenoiser, x: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="x must require a gradient"):
        denoiser.with_gradient(x, TIMESTEP, CONTEXTS)
    with torch.no_grad(), pytest.raises(ValueError, match="where autograd is on"):
        denoiser.with_gradient(x.clone().requires_grad_(), TIMESTEP, CONTEXTS)
    before = dict(denoiser.unet.attn_processors)

    def fail(eps: Any) -> torch.Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gradient(denoiser, x, TIMESTEP, CONTEXTS, fail, AttentionLoss(SITES, 3, StopForward))
    assert denoiser.unet.attn_processors == before
    assert all(parameter.requires_grad for parameter in denoiser.unet.parameters())
