"""Encoded inputs of stage 2, either computed on demand or read from a cache on disk; both give the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from ..files.writing import sweep
from ..text import CLIPPromptEncoder, number_chunks
from .cache import Table, TableRows, cache_folder, fill, open_table, write_rows
from .captioned_images import ExampleVariants
from .components import Chunk, Components, encode_images, weights_hash

ExampleVariant = tuple[int, int]
"""An example and its variant."""

Lookup = Callable[[torch.Tensor], TableRows]
"""From chunk numbers (u,), 0 the empty chunk, to the columns that ``Encoder.chunks`` gives."""

_AT_ONCE = 16
"""Pictures or chunks in one encoder call while a cache is filled."""


class InputSource(Protocol):
    """Gives the encoded images and captions of examples."""

    def images(self, pairs: Sequence[ExampleVariant]) -> TableRows:
        """What ``Encoder.images`` gives."""
        ...

    def captions(self, pairs: Sequence[ExampleVariant]) -> tuple[torch.Tensor, Lookup]:
        """(B, n) chunk numbers on the CPU, each caption's followed by zeros, and what the numbers mean."""
        ...


@dataclass(frozen=True)
class Encoder:
    """The frozen networks, applied to draws. ``dtype`` is what results are rounded to, kept or not."""

    components: Components
    draws: ExampleVariants
    device: torch.device
    dtype: torch.dtype
    max_chunks: int
    frozen_text: bool

    @property
    def prompts(self) -> CLIPPromptEncoder:
        return self.components.prompt_encoder(self.max_chunks)

    def images(self, pairs: Sequence[ExampleVariant]) -> TableRows:
        """``moments`` (B, C or 2C, h, w); for inpainting ``mask`` (B, 1, h, w) and ``masked`` like moments; for
        SDXL ``size`` (B, 6); and what ``ExampleVariants.hints`` adds.

        Source: LLMGA, llmga/diffusers/train_text_to_image_inpaint.py:790-800 (commit 7e32eb6): the hole is grey
        (0 in -1 .. 1), and the mask is resized to the nearest.
        """
        pictures, masks = zip(*(self.draws.picture(*pair) for pair in pairs), strict=True)
        image = torch.stack(pictures).to(self.device)
        rows = {"moments": encode_images(self.components.vae, image).to(self.dtype)}
        if self.draws.inpainting:
            mask = torch.stack(masks).to(image)
            rows["masked"] = encode_images(self.components.vae, image * (1 - mask)).to(self.dtype)
            rows["mask"] = F.interpolate(mask, rows["moments"].shape[-2:]).to(self.dtype)
        if self.components.is_sdxl:
            sizes = [self.draws.size(i) for i, _ in pairs]
            rows["size"] = torch.tensor(sizes, dtype=torch.float32, device=self.device)
        return rows | self.draws.hints(pairs, image)

    @torch.no_grad()
    def chunks(self, chunks: Sequence[Chunk]) -> TableRows:
        """``hidden`` (u, 77, dim), for SDXL ``pooled``; ``ids`` (u, 1, 77) if the text encoder is trained."""
        ids = self.prompts.ids(chunks).to(self.device)
        if not self.frozen_text:
            return {"ids": ids}
        hidden, pooled = self.prompts.hidden_states(ids)
        rows = {"hidden": hidden.to(self.dtype)}
        return rows if pooled is None else {**rows, "pooled": pooled.to(self.dtype)}

    def number(self, pairs: Iterable[ExampleVariant]) -> tuple[torch.Tensor, list[Chunk]]:
        """(B, n) numbers of the captions' chunks, and the chunk behind each number."""
        prompts = self.prompts
        captions = (prompts.chunks(self.draws.caption(*pair)) for pair in pairs)
        numbers, chunks = number_chunks(captions, known=[()])
        width = max(map(len, numbers))
        padded = [row + [0] * (width - len(row)) for row in numbers]
        return torch.tensor(padded, dtype=torch.int64), chunks


class EncodeOnDemand:
    """Source that encodes every example when it is asked for."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.images = encoder.images

    def captions(self, pairs: Sequence[ExampleVariant]) -> tuple[torch.Tensor, Lookup]:
        numbers, chunks = self.encoder.number(pairs)
        return numbers, lambda rows: self.encoder.chunks([chunks[row] for row in rows.tolist()])


class ReadFromCache:
    """Source that reads ``variants`` variants of each example from tables filled before."""

    def __init__(
        self, images: Table, numbers: torch.Tensor, chunks: Table, variants: int, device: torch.device
    ) -> None:
        self._images, self._numbers, self._chunks = images, numbers, chunks
        self._variants, self._device = variants, device

    def images(self, pairs: Sequence[ExampleVariant]) -> TableRows:
        return self._images.take(self._rows(pairs), self._device)

    def captions(self, pairs: Sequence[ExampleVariant]) -> tuple[torch.Tensor, Lookup]:
        return self._numbers[self._rows(pairs)].long(), lambda rows: self._chunks.take(rows, self._device)

    def _rows(self, pairs: Sequence[ExampleVariant]) -> torch.Tensor:
        return torch.tensor([i * self._variants + variant for i, variant in pairs])


def fill_cache(
    encoder: Encoder,
    root: Path,
    variants: int,
    in_memory: bool,
    rank: int,
    world: int,
    barrier: Callable[[], None],
) -> ReadFromCache:
    """Encode ``variants`` draws of every example into a folder under ``root``, or what is missing of them.

    The folder belongs to these weights, settings and pictures: with others, another is made.
    """
    from safetensors.torch import load_file

    c, draws = encoder.components, encoder.draws
    inputs: dict[str, Any] = {
        "version": 1,
        "pictures": draws.pictures.fingerprint(),
        "draws": {key: value for key, value in vars(draws).items() if key != "pictures"},
        "variants": variants,
        "dtype": str(encoder.dtype),
        "max_chunks": encoder.max_chunks,
        "vae": weights_hash(c.vae),
        "text": [weights_hash(net) for net in c.text_encoders] if encoder.frozen_text else None,
    }
    count = len(draws.pictures) * variants
    if rank == 0:
        folder = cache_folder(root, inputs)
        sweep(folder, alone=True)  # no other process writes into it before the barrier
        if not (folder / "captions.safetensors").exists():
            numbers, chunks = encoder.number(divmod(row, variants) for row in range(count))
            ids = encoder.prompts.ids(chunks)[:, 0].int()
            lengths = torch.tensor([len(chunk) for chunk in chunks])
            write_rows(
                folder / "captions.safetensors", {"numbers": numbers.int(), "ids": ids, "lengths": lengths}
            )
    barrier()
    folder = cache_folder(root, inputs)
    captions = load_file(folder / "captions.safetensors")
    ids, lengths = captions["ids"], captions["lengths"]

    def images(start: int, stop: int) -> TableRows:
        pairs = [divmod(row, variants) for row in range(start, stop)]
        return _concatenated(
            [encoder.images(pairs[i : i + _AT_ONCE]) for i in range(0, len(pairs), _AT_ONCE)]
        )

    def chunks_between(start: int, stop: int) -> TableRows:
        parts = []
        for first in range(start, stop, _AT_ONCE):
            rows = range(first, min(first + _AT_ONCE, stop))
            parts.append(encoder.chunks([tuple(ids[row, 1 : 1 + lengths[row]].tolist()) for row in rows]))
        return _concatenated(parts)

    fill(folder, "images", count, images, rank, world)
    fill(folder, "chunks", len(ids), chunks_between, rank, world)
    barrier()
    tables = [open_table(folder, "images", count), open_table(folder, "chunks", len(ids))]
    if in_memory:
        tables = [table.to(encoder.device) for table in tables]
    return ReadFromCache(tables[0], captions["numbers"], tables[1], variants, encoder.device)


def _concatenated(parts: Sequence[TableRows]) -> TableRows:
    return {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}
