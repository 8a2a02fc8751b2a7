"""DiffRIR inference on images of any size, in strips of rows; pixels outside the mask are kept bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch

from .diffrir_strips import DIRformerInStrips, encode_prior
from .diffrir_tail import FoldedTail
from .network import Architecture, DiffRIRS2
from .network_input import FoldedInput, blend_weights, check_inputs
from .row_streams import nothing, noticed

MaskBlend = Literal["soft", "hard"]
_CACHE = 7_000_000
"""Bytes of a strip on a CPU: a larger one is hardly faster, and this is already a good part of what 512² pixels need."""
_SHARE = 0.5
"""Share of a GPU's free memory that a strip may take; the images themselves come on top."""


@torch.no_grad()
def restore(
    net: DiffRIRS2,
    image: torch.Tensor,
    reference: torch.Tensor,
    mask: torch.Tensor,
    seed: int = 0,
    *,
    blend: MaskBlend = "soft",
    strip: int | None = None,
    on_step: Callable[[int, int], Any] | None = None,
    on_strip: Callable[[], Any] = nothing,
) -> torch.Tensor:
    """Restore the generated content of a hole, conditioned on the preserved pixels around it.

    Each picture of a batch is restored by itself and starts from the same noise, so a batch is the loop. A batch of 1
    in one argument serves the whole batch of another.

    Args:
        image: (B, 3, h, w), 0 .. 1: what the painter gave, whole. Pasted into the preserved part it would hide how far
            its colours are off. Of another size than ``reference`` ÷ scale (rounded up) it is resized, bicubically. A
            fourth channel (alpha) is dropped, here and in ``reference``.
        reference: (B, 3, H, W), 0 .. 1: the preserved picture; what the hole holds does not matter. It may be larger
            or smaller than the image; its size is the result's.
        mask: (B, 1, any, any), 0 .. 1, resized bilinearly to ``reference``; a value below 1/64 is 0. The network sees
            a hole from 0.5 on.
        seed: of the noise that the prior starts from; its influence is small.
        blend: "soft" mixes by the mask's values; "hard" replaces from 0.5 on and keeps the rest.
        strip: how many rows of the result are worked on at a time, at least 4: the more, the more memory (see
            ``strip_rows``). The result is the same up to rounding. By default as many as suit the device and its free
            memory.
        on_step: ``on_step(i, n)`` after each block of the network; may raise.
        on_strip: called before each strip of rows that a block or the prior's encoder reads; may raise. A block of a
            large picture takes seconds on a CPU, a strip of it milliseconds.

    Returns:
        (B, 3, H, W) with the dtype and device of ``reference``, 0 .. 1; where the mask is 0 (or, with "hard", below
        0.5) ``reference``, bit for bit.

    Raises:
        ValueError: the shapes do not fit each other, or a value is not allowed.

    Source: DiffRIR 9f3931e ``inference_diffrir.py``. Deviations: it works for scales 2 and 4 too, as training does
    (theirs joins pictures of two sizes and fails); a side shorter than its padding is mirrored again; sizes may differ;
    soft masks blend; nothing is rounded to 8 bits.
    """
    check_inputs(image, reference, mask, blend, strip)
    architecture, weight = net.architecture, next(net.parameters())
    start = torch.randn(1, architecture.prior, generator=torch.Generator().manual_seed(seed)).to(weight)
    batch = max(len(image), len(reference), len(mask))
    result = reference[:, :3].expand(batch, -1, -1, -1).clone()
    step = _Steps(on_step, batch * _parts(architecture))
    tail = None
    for i, kept in enumerate(result):
        weights = blend_weights(mask[i % len(mask)][None], kept.shape[-2:], blend)[0].to(kept)
        if not weights.any():
            step.skip(_parts(architecture))
            continue
        truth = reference[i % len(reference)][:3]
        folded = FoldedInput(image[i % len(image)], truth, weights, architecture, weight)
        rows = max(1, (strip or strip_rows(architecture, kept.shape[-1], weight)) // 4)
        tail = tail or FoldedTail(net.G.tail, weight)
        for at, made in _restored(net, folded, start, tail, rows, step, on_strip):
            part, share = kept[:, at : at + made.shape[1]], weights[:, at : at + made.shape[1]]
            mixed = torch.lerp(part, made.clamp_(0, 1).to(part), share)
            part.copy_(torch.where(share > 0, mixed, part))
    return result


def strip_rows(
    architecture: Architecture, width: int, weight: torch.Tensor, memory: int | None = None
) -> int:
    """How many rows of a result of ``width`` pixels to work on at a time.

    Args:
        weight: of the network; its dtype and device count.
        memory: bytes that a strip may take. By default half of what is free on a GPU, and on a CPU what its caches hold.
    """
    rounded = memory is not None or weight.is_cuda
    if memory is None:
        memory = int(_SHARE * torch.cuda.mem_get_info(weight.device)[0]) if weight.is_cuda else _CACHE
    hidden = int(2 * architecture.dim * architecture.ffn_expansion_factor)
    # A strip, its norm, twice the hidden channels before and after their convolution, and what passes the gate.
    numbers = 6 * architecture.dim + 6 * hidden
    rows = memory // (numbers * weight.element_size() * -(-width // 4))
    # Below 4, more time goes into carrying rows from strip to strip than into computing them.
    rows = max(4, min(rows, 4096))
    # Rounded down to a power of 2: a little more or less free memory changes nothing then, not even rounding.
    return 4 * (2 ** (rows.bit_length() - 1) if rounded else rows)


class _Steps:
    """Counts progress steps over the whole batch and reports each one to ``on_step``."""

    def __init__(self, on_step: Callable[[int, int], Any] | None, total: int) -> None:
        self.on_step, self.done, self.total = on_step, 0, total

    def skip(self, count: int) -> None:
        self.done += count - 1
        self()

    def __call__(self) -> None:
        self.done += 1
        if self.on_step is not None:
            self.on_step(self.done, self.total)


def _parts(architecture: Architecture) -> int:
    """Progress steps of one image: the prior and every block; the first three levels have blocks on the way down and up."""
    first, second, third, deepest = architecture.num_blocks
    return 1 + 2 * (first + second + third) + deepest + architecture.num_refinement_blocks


def _restored(
    net: DiffRIRS2,
    folded: FoldedInput,
    start: torch.Tensor,
    tail: FoldedTail,
    rows: int,
    step: Callable[[], None],
    on_strip: Callable[[], Any],
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield the first row and the pixels (3, n, W) of each strip of the restored image."""
    condition = encode_prior(net.condition, noticed(folded.rows(rows), on_strip), folded.height)
    prior = net.diffusion(net.denoise, condition, start)
    step()
    former = DIRformerInStrips(net.G, tail, prior, rows, step, on_strip)
    at = 0
    for strip in former(noticed(folded.rows(rows), on_strip), folded.height, folded.width):
        n = strip.shape[1]
        made = strip[0].permute(2, 0, 1) + folded.enlarged(at // 4, (at + n) // 4)
        yield at, made[:, : folded.sides[0] - at, : folded.sides[1]]
        at += n
