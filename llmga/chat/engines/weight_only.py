"""Weight-only quantisation: linear layers that hold whole numbers and scales, and compute in the type of their input.

int8 has one scale for each row of a weight, int4 one for each 32 numbers of a row (4.5 bits a weight, as in llama.cpp's
Q4_0). Only the linear layers inside the language model are replaced; embeddings, output head, norms, projector and vision
tower stay as they are. It is plain PyTorch, so it runs wherever PyTorch does; why no library: docs/decisions/0010.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

GROUP = 32
"""Numbers of a row that share a scale in int4."""
QUANTISED_BITS = (8, 4)
_ROWS = 1024  # of a weight in float32 at a time


class WeightOnlyLinear(nn.Module):
    """A linear layer whose weight is stored in 8 or 4 bits and unpacked at each use, one rounding away from q · scale.

    The parts move to the input's device when it is another one, so a layer may stay behind in ordinary memory.

    Attributes:
        weight: q; for 8 bits (out, in) int8, for 4 bits (out, in / 2) uint8 that hold q + 8, the even column below.
        scale: bfloat16, (out, 1) for 8 bits and (out, in / 32) for 4; exact in float32 and bfloat16.
        bias: (out,) or None.
    """

    def __init__(self, linear: nn.Linear, bits: int) -> None:
        """Take the weight and bias of a linear layer, which is left as it is.

        Raises:
            ValueError: bits is neither 8 nor 4, or 4 bits do not divide the layer's rows into groups.
        """
        super().__init__()
        if bits not in QUANTISED_BITS:
            raise ValueError(f"bits must be one of {QUANTISED_BITS}, got {bits!r}")
        if not fits(linear, bits):
            raise ValueError(f"4 bits need rows of a multiple of {GROUP} numbers, got {linear.in_features}")
        self.bits = bits
        self.in_features, self.out_features = linear.in_features, linear.out_features
        quantise = _to_int8 if bits == 8 else _to_int4
        parts = [quantise(rows.float()) for rows in linear.weight.detach().split(_ROWS)]
        self.weight = nn.Parameter(torch.cat([q for q, _ in parts]), requires_grad=False)
        self.scale: torch.Tensor
        self.register_buffer("scale", torch.cat([scale for _, scale in parts]))
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (…, in) → (…, out), both in the type of x."""
        bias = None if self.bias is None else self.bias.to(x)
        return nn.functional.linear(x, self.unpacked(x.dtype, x.device), bias)

    def unpacked(self, dtype: torch.dtype, device: torch.device | None = None) -> torch.Tensor:
        """The weight (out, in) in a floating-point type."""
        q, scale = self.weight.to(device), self.scale.to(device).to(dtype)
        if self.bits == 4:
            q = torch.stack((q & 15, q >> 4), dim=-1).view(self.out_features, -1, GROUP)
            return q.to(dtype).sub_(8).mul_(scale[..., None]).view(self.out_features, self.in_features)
        return q.to(dtype).mul_(scale)

    def extra_repr(self) -> str:
        """What printing the network says of the layer."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bits={self.bits}"


def fits(linear: nn.Linear, bits: int) -> bool:
    """Whether a layer can be stored in so many bits."""
    return bits == 8 or linear.in_features % GROUP == 0


def _to_int8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, in) float32 → q in -127 … 127 and its scales."""
    scale = _rounded(weight.abs().amax(dim=1, keepdim=True) / 127)
    return (weight / scale.float()).round_().clamp_(-127, 127).to(torch.int8), scale


def _to_int4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, in) float32 → q in -8 … 7, two in a byte, and its scales.

    The largest number of a group, whatever its sign, becomes -8, so all sixteen values are used.
    """
    groups = weight.unflatten(1, (-1, GROUP))
    largest = groups.gather(2, groups.abs().argmax(dim=2, keepdim=True))
    scale = _rounded(largest / -8)
    q = ((groups / scale.float()).round_().clamp_(-8, 7) + 8).to(torch.uint8).flatten(1)
    return q[:, ::2] | q[:, 1::2] << 4, scale.squeeze(2)


def _rounded(scale: torch.Tensor) -> torch.Tensor:
    """Scales in the type that is stored, so that quantising already knows their rounding; of a row of zeros it is 1."""
    rounded = scale.to(torch.bfloat16)
    return torch.where(rounded == 0, torch.ones_like(rounded), rounded)


@dataclass(frozen=True)
class Quantised:
    """What ``quantise`` has replaced; sizes in bytes.

    Args:
        bits: of a weight.
        layers: that are quantised.
        stored: their weights and scales now.
        before: their weights in 16 bits.
        left: linear layers of the language model that do not divide into groups.
    """

    bits: int
    layers: int
    stored: int
    before: int
    left: int

    def __str__(self) -> str:
        """In a sentence for a person."""
        share = self.stored / max(self.before, 1)
        left = f"; {self.left} of odd widths stay as they are" if self.left else ""
        return (
            f"int{self.bits}: {self.layers} linear layers of the language model take {self.stored / 1e9:.2f} GB, "
            f"{share:.0%} of what they take in bfloat16{left}"
        )


def quantise(net: Any, bits: int) -> Quantised:
    """Replace the linear layers of a transformers model's decoder, one after the other, so that each is freed in turn.

    Where the weights are views of a memory-mapped file, the memory it takes at most is what the new layers take.

    Args:
        net: any model with ``get_decoder``; it is changed.
        bits: 8 or 4.

    Raises:
        ValueError: bits is neither, or no layer can be stored so.
    """
    if bits not in QUANTISED_BITS:
        raise ValueError(f"bits must be one of {QUANTISED_BITS}, got {bits!r}")
    found = list(_linear_layers(net.get_decoder()))
    new: dict[nn.Linear, WeightOnlyLinear] = {}  # a layer may be used in several places
    before = 0
    for parent, name, linear in found:
        if linear not in new and fits(linear, bits):
            new[linear] = WeightOnlyLinear(linear, bits)
            before += 2 * linear.weight.numel()
            linear.weight = nn.Parameter(linear.weight.new_empty(0), requires_grad=False)
        if linear in new:
            setattr(parent, name, new[linear])
    if not new:
        raise ValueError(
            f"the language model has no linear layer that int{bits} fits; choose another precision"
        )
    stored = sum(layer.weight.nbytes + layer.scale.nbytes for layer in new.values())
    left = len({linear for _, _, linear in found} - new.keys())
    return Quantised(bits, len(new), stored, before, left)


def _linear_layers(decoder: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Every plain linear layer below a module, with its parent and its name there."""
    for parent in list(decoder.modules()):
        for name, child in list(parent._modules.items()):  # named_children gives a shared one once
            if type(child) is nn.Linear:
                yield parent, name, child
