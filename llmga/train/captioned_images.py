"""Captioned images for stage 2: the dataset protocol, LLMGA's list format, and random variants of an example."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from ..images import check_files, picture_size, read_picture
from .box_loss import NamedBox
from .example_order import derive, generator

MicroConditioning = tuple[int, int, int, int, int, int]
"""SDXL's micro-conditioning in pixels: original height, width, crop top, left, target height, width."""


class Pictures(Protocol):
    """A dataset of captioned images of one size."""

    def __len__(self) -> int: ...

    def image(self, i: int) -> torch.Tensor:
        """(3, H, W) float in -1 .. 1, one size for all."""
        ...

    def caption(self, i: int, rng: random.Random) -> str: ...

    def mask(self, i: int, generator: torch.Generator) -> torch.Tensor:
        """(1, H, W) of 0 and 1, 1 = to be generated. Asked for inpainting only."""
        ...

    def fingerprint(self) -> str:
        """A hash of all images and captions, which keys the caches."""
        ...


_READING = "upright, 16 bits scaled"
"""How pictures are read; caches of pictures that were read in another way are not theirs."""


class CaptionedPictures:
    """LLMGA's own list: JSON records ``{image, caption, ori_caption?, noun_chunks?}``, ``image`` a path under ``root``.

    ``noun_chunks`` says where the caption names what, as GRIT has it: ``[start, end, left, top, right, bottom]`` each,
    with a score behind that is not read; ``start`` and ``end`` count characters, the sides are shares of the picture's.

    Pictures are resized (bilinear) by their short side and cropped at the centre; transparency becomes white.

    Args:
        resolution: of the square pictures, in pixels.
        short_captions: how often ``ori_caption``, the short one, stands in.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a JSON array, or a record lacks a text; the message names file and record.

    Source: LLMGA, llmga/diffusers/my_datasets/dataset_text2img.py:54-77 and dataset_inpainting.py:399-409
    (commit 7e32eb6). There greyscale pictures fail; here they become RGB.
    """

    def __init__(
        self,
        records: Path,
        root: Path,
        resolution: int,
        short_captions: float = 0.0,
    ) -> None:
        self.root, self.resolution, self.short_captions = root, resolution, short_captions
        self._records, self._rows = records, _read_rows(records)
        self._has_boxes = any(row.get("noun_chunks") for row in self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def check(self) -> None:
        """Raise FileNotFoundError unless every picture is there; see ``check_files``."""
        check_files((self.root / row["image"] for row in self._rows), self._records)

    def image(self, i: int) -> torch.Tensor:
        import numpy as np
        from PIL import Image

        picture = read_picture(self.root / self._rows[i]["image"], background="white")
        scale = self.resolution / min(picture.size)
        # max: rounding must not leave the short side a pixel short
        width, height = (max(int(side * scale), self.resolution) for side in picture.size)
        left, top = (width - self.resolution) // 2, (height - self.resolution) // 2
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        picture = picture.crop((left, top, left + self.resolution, top + self.resolution))
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1

    def size(self, i: int) -> MicroConditioning:
        r = self.resolution
        width, height = picture_size(self.root / self._rows[i]["image"])
        scale = r / min(width, height)
        return (
            height,
            width,
            (max(int(height * scale), r) - r) // 2,
            (max(int(width * scale), r) - r) // 2,
            r,
            r,
        )

    def caption(self, i: int, rng: random.Random) -> str:
        row = self._rows[i]
        short = row.get("ori_caption")
        return short if short is not None and rng.random() < self.short_captions else row["caption"]

    def named_boxes(self, i: int, caption: str) -> list[NamedBox]:
        """The noun chunks of a record's caption in the cropped picture; none of its short one. Of what the crop leaves
        less than a half, no box is given.

        Raises:
            ValueError: no record of the list has noun chunks.
        """
        if not self._has_boxes:
            raise ValueError(
                "no record has noun_chunks, from which box_loss learns; add them to the list or set box_loss=0"
            )
        row = self._rows[i]
        if caption != row["caption"] or not row.get("noun_chunks"):
            return []
        height, width, top, left, side, _ = self.size(i)
        width, height = (max(int(each * side / min(width, height)), side) for each in (width, height))
        found = []
        for start, end, *edges in row["noun_chunks"]:
            x0, x1 = ((edge * width - left) / side for edge in edges[0:4:2])
            y0, y1 = ((edge * height - top) / side for edge in edges[1:4:2])
            box = tuple(min(max(edge, 0.0), 1.0) for edge in (x0, y0, x1, y1))
            if (box[2] - box[0]) * (box[3] - box[1]) >= 0.5 * (x1 - x0) * (y1 - y0):
                found.append(NamedBox(start, end, box))  # type: ignore[arg-type] # four
        return found

    def mask(self, i: int, generator: torch.Generator) -> torch.Tensor:
        import numpy as np

        from ..paint.masks import MIXES

        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        return torch.from_numpy(MIXES["stage2"].draw(rng, self.resolution, self.resolution))[None]

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{_READING} {self._rows} {self.resolution} {self.short_captions}".encode())
        for row in self._rows:
            status = (self.root / row["image"]).stat()
            digest.update(f"{status.st_size} {status.st_mtime_ns} ".encode())
        return digest.hexdigest()


def _read_rows(records: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(records.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{records} is not valid JSON in UTF-8 ({error}); it must hold an array of objects"
        ) from error
    if not isinstance(rows, list):
        raise ValueError(f"{records} must hold an array of objects, got {type(rows).__name__}")
    for i, row in enumerate(rows):
        if not isinstance(row, dict) or not {"image", "caption"} <= row.keys():
            had = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise ValueError(f"{records}, record {i}: 'image' and 'caption' are needed, it has {had}")
        short = row.get("ori_caption")
        wrong = next((key for key in ("image", "caption") if not isinstance(row[key], str)), None)
        if wrong is None and not isinstance(short, str | None):
            wrong = "ori_caption"
        if wrong is not None:
            raise ValueError(
                f"{records}, record {i}: {wrong!r} must be a text, got {type(row[wrong]).__name__} {row[wrong]!r:.80}"
            )
        if not row["image"].strip():
            raise ValueError(f"{records}, record {i}: 'image' is empty")
        chunks = row.get("noun_chunks")
        if not isinstance(chunks, list | None):
            raise ValueError(
                f"{records}, record {i}: 'noun_chunks' must be a list, got {type(chunks).__name__} {chunks!r:.80}"
            )
        for chunk in chunks or ():
            if not _is_noun_chunk(chunk, row["caption"]):
                raise ValueError(
                    f"{records}, record {i}: a noun chunk must be [start, end, left, top, right, bottom], characters of "
                    f"the caption ({len(row['caption'])}) and shares 0 to 1 of the picture's sides, got {chunk!r:.80}"
                )
    return rows


def _is_noun_chunk(chunk: Any, caption: str) -> bool:
    if not isinstance(chunk, list) or len(chunk) < 6 or not all(isinstance(x, (int, float)) for x in chunk):
        return False
    start, end, left, top, right, bottom = chunk[:6]
    within = isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(caption)
    return within and 0 <= left < right <= 1 and 0 <= top < bottom <= 1


_SIDES = re.compile(r"\b(?:left|right|clockwise|counterclockwise|anticlockwise)|[左右]", re.IGNORECASE)


def names_a_side(caption: str) -> bool:
    """Whether the caption would be wrong beside the mirrored picture."""
    return _SIDES.search(caption) is not None


@dataclass(frozen=True)
class ExampleVariants:
    """Random variants of examples: caption, mirroring and mask, each a function of seed, example and variant.

    A variant never changes, so it can be computed once and kept.
    """

    pictures: Pictures
    seed: int
    flip: bool
    inpainting: bool

    def caption(self, i: int, variant: int) -> str:
        return self.pictures.caption(i, random.Random(derive(self.seed, i, variant, "caption")))

    def picture(self, i: int, variant: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(3, H, W) and, for inpainting, the mask (1, H, W).

        Half of the pictures whose caption names no side are mirrored; LLMGA mirrors whatever the caption says.
        """
        image = self.pictures.image(i)
        if self._is_mirrored(i, variant):
            image = image.flip(-1)
        if not self.inpainting:
            return image, None
        return image, self.pictures.mask(i, generator(self.seed, i, variant, "mask"))

    def hints(self, pairs: Sequence[tuple[int, int]], images: torch.Tensor) -> dict[str, torch.Tensor]:
        """What else a network is given beside the pictures (B, 3, H, W) of these variants, by name; here nothing."""
        return {}

    def named_boxes(self, i: int, variant: int) -> list[NamedBox]:
        """What the variant's caption names and where it is; mirrored with its picture."""
        caption = self.caption(i, variant)
        named: list[NamedBox] = self.pictures.named_boxes(i, caption)  # type: ignore[attr-defined]
        if not self._is_mirrored(i, variant):
            return named
        return [each._replace(box=(1 - r, t, 1 - left, b)) for each in named for left, t, r, b in [each.box]]

    def _is_mirrored(self, i: int, variant: int) -> bool:
        mirror = random.Random(derive(self.seed, i, variant, "flip")).random() < 0.5
        return self.flip and mirror and not names_a_side(self.caption(i, variant))

    def size(self, i: int) -> MicroConditioning:
        if hasattr(self.pictures, "size"):
            return self.pictures.size(i)  # type: ignore[attr-defined]
        height, width = self.pictures.image(i).shape[-2:]
        return height, width, 0, 0, height, width
