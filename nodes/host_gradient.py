"""Gradients through the host's UNet with respect to its input, without touching how the host holds its weights.

Under ``torch.inference_mode`` the host's weights are inference tensors, which autograd cannot save; they may also be in
low memory, patched on the fly or quantised. Here no weight is saved: each layer asks the host for it again on the way
back, as its forward does. So no gradient of a parameter exists and no copy of the weights is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.grad
from comfy.ldm.modules.attention import attention_pytorch
from comfy.ops import cast_bias_weight, uncast_bias_weight
from torch.nn.functional import group_norm, layer_norm

LINEAR = (torch.nn.Linear, torch.nn.Conv2d)
NORMS = (torch.nn.GroupNorm, torch.nn.LayerNorm)


@contextmanager
def input_gradients(modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """A context in which linear layers, convolutions and norms differentiate with respect to their input only."""
    replaced: list[tuple[torch.nn.Module, Any]] = []
    try:
        for module in modules:
            if isinstance(module, (*LINEAR, *NORMS)):
                replaced.append((module, module.__dict__.get("forward")))
                module.forward = _InputGradient.of(module)
        yield
    finally:
        # Backwards: a module that came twice gets back what it had at first.
        for module, before in reversed(replaced):
            if before is None:
                del module.forward
            else:
                module.forward = before


def differentiable_attention(func: Any, *arguments: Any, **options: Any) -> torch.Tensor:
    """For ``optimized_attention_override``: torch's own attention, for not every faster one has a gradient."""
    return attention_pytorch(*arguments, **options)


class _InputGradient(torch.autograd.Function):
    """One layer's own forward; its backward has the gradient of the input."""

    @staticmethod
    def of(module: torch.nn.Module) -> Any:
        forward = module.forward

        def run(x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
            if arguments or options or not x.requires_grad:
                return forward(x, *arguments, **options)
            return _InputGradient.apply(x, module, forward)  # type: ignore[return-value] # apply is not typed

        return run

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, module: torch.nn.Module, forward: Any) -> torch.Tensor:
        ctx.module, ctx.shape = module, x.shape
        if isinstance(module, NORMS):
            ctx.save_for_backward(x)
        return forward(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,), module = gradients, ctx.module
        weight, bias, stream = _weights(module, gradient)
        if isinstance(module, torch.nn.Linear):
            found = gradient @ weight  # (..., out) @ (out, in)
        elif isinstance(module, torch.nn.Conv2d):
            gradient_of: Any = torch.nn.grad.conv2d_input  # it takes tuples, which its annotation leaves out
            found = gradient_of(
                ctx.shape, weight, gradient, module.stride, module.padding, module.dilation, module.groups
            )
        else:
            found = _through_norm(module, ctx.saved_tensors[0], weight, bias, gradient)
        if weight is not None:
            uncast_bias_weight(module, weight, bias, stream)
        return found, None, None


def _weights(module: Any, like: torch.Tensor) -> tuple[Any, Any, Any]:
    """The weight and bias as the forward has them: on the right device, patched, dequantised."""
    if module.weight is None:
        return None, None, None
    return cast_bias_weight(module, like, offloadable=True)


def _through_norm(
    module: Any, x: torch.Tensor, weight: Any, bias: Any, gradient: torch.Tensor
) -> torch.Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        # Clones, for autograd saves them and cannot save an inference tensor.
        weight, bias = (None if part is None else part.clone() for part in (weight, bias))
        if isinstance(module, torch.nn.GroupNorm):
            y = group_norm(x, module.num_groups, weight, bias, module.eps)
        else:
            y = layer_norm(x, module.normalized_shape, weight, bias, module.eps)
        (found,) = torch.autograd.grad(y, x, gradient)
    return found
