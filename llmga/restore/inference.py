"""Restoring a generated picture of any size, exact outside the hole."""

from __future__ import annotations

import torch

from .network import DiffRIRS2, join


@torch.no_grad()
def restore(
    net: DiffRIRS2, image: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor, seed: int = 0
) -> torch.Tensor:
    """Restore what was generated inside a hole, looking at what was preserved around it.

    Each picture of a batch is restored by itself and starts from the same noise, so a batch is the loop.

    Args:
        image: (B, 3, h, w), 0 .. 1: what the painter gave, whole. Pasted into the preserved part it would hide how far
            its colours are off.
        reference: (B, 3, scale·h, scale·w), 0 .. 1: the preserved picture; what the hole holds does not matter.
        mask: (B or 1, 1, scale·h, scale·w), 0 .. 1; from 0.5 on it is hole.
        seed: of the noise that the prior starts from; its influence is small.

    Returns:
        (B, 3, scale·h, scale·w) with the dtype and device of ``reference``, 0 .. 1; outside the hole ``reference``,
        bit for bit.

    Raises:
        ValueError: the shapes do not fit each other.

    Source: DiffRIR 9f3931e ``inference_diffrir.py``. Deviations: it works for scales 2 and 4 too, as training does
    (theirs joins pictures of two sizes and fails); a side shorter than its padding is mirrored again; nothing is
    rounded to 8 bits.
    """
    architecture = net.architecture
    _check(image, reference, mask, architecture.scale)
    weight = next(net.parameters())
    start = torch.randn(1, architecture.prior, generator=torch.Generator().manual_seed(seed)).to(weight)
    restored = []
    for i, kept in enumerate(reference):
        hole = mask[i % len(mask)] >= 0.5
        if not hole.any():
            restored.append(kept)
            continue
        spoilt, truth, where = (part.to(weight)[None] for part in (image[i], kept, hole))
        inputs = _mirrored(join(spoilt, truth, where, architecture), architecture.multiple)
        made = net(inputs, start)[0, :, : kept.shape[-2], : kept.shape[-1]]
        restored.append(torch.where(hole.to(kept.device), made.clamp(0, 1).to(kept), kept))
    return torch.stack(restored)


def _check(image: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor, scale: int) -> None:
    batch, channels, height, width = image.shape
    wanted = (batch, 3, scale * height, scale * width)
    if channels != 3 or reference.shape != wanted:
        raise ValueError(
            f"image (B, 3, h, w) and a network of scale {scale} need a reference of (B, 3, {scale}·h, {scale}·w); "
            f"got {tuple(image.shape)} and {tuple(reference.shape)}"
        )
    if mask.shape not in ((1, 1, *wanted[2:]), (batch, 1, *wanted[2:])):
        raise ValueError(
            f"mask must be (1 or {batch}, 1, {wanted[2]}, {wanted[3]}), the size of reference; got {tuple(mask.shape)}"
        )


def _mirrored(x: torch.Tensor, multiple: int) -> torch.Tensor:
    """Padded below and on the right, by its mirror image, to sides that are multiples."""
    rows, columns = (_indices(size, -(-size // multiple) * multiple, x.device) for size in x.shape[-2:])
    return x[..., rows, :][..., columns]


def _indices(size: int, total: int, device: torch.device) -> torch.Tensor:
    period = max(1, 2 * (size - 1))
    index = torch.arange(total, device=device) % period
    return torch.minimum(index, period - index)
