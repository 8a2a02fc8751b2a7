"""Captioned pictures and labelled prompts for GILL's trainers, from tab-separated files."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image

from ..data.schemas import check_image_path
from ..images import read_picture
from .components import Components, weights_hash

PROMPT_LABELS = ("gen", "ret")
"""0 is generate, 1 is retrieve, as in ``DecisionModel``."""
_LARGEST = 2**17  # characters of one field


class CaptionedExamples(Protocol):
    """Pictures with a caption each."""

    def __len__(self) -> int: ...

    def caption(self, i: int) -> str: ...

    def picture(self, i: int) -> Image.Image: ...

    def fingerprint(self) -> str:
        """What a cache of them is known by."""
        ...


class TextStates(Protocol):
    """The text encoder of an image generator."""

    def __call__(self, captions: Sequence[str]) -> torch.Tensor:
        """States (B, text_rows, text), float32."""
        ...

    def to(self, device: torch.device) -> Any: ...

    def fingerprint(self) -> str: ...


class CaptionTable:
    """A file ``caption<TAB>image`` with a header, as Conceptual Captions is prepared for GILL.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line has other fields; the message names it.

    Source: kohjingyu/gill 4600b71, gill/data.py:66-95 and datasets/cc3m_train.tsv.
    """

    def __init__(self, path: Path, root: Path) -> None:
        self.root = root
        rows = read_tab_separated(path, ("caption", "image"))
        self._rows = [(row["caption"], check_image_path(row["image"])) for row in rows]

    def __len__(self) -> int:
        return len(self._rows)

    def caption(self, i: int) -> str:
        return self._rows[i][0]

    def picture(self, i: int) -> Image.Image:
        """The picture, upright, on white. Where it cannot be read the run ends; theirs takes another one instead."""
        return read_picture(self.root / self._rows[i][1], background="white")

    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr(self._rows).encode())
        for _, image in self._rows:
            status = (self.root / image).stat()
            digest.update(f"{status.st_size} {status.st_mtime_ns} ".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class LabelledPrompts:
    """Prompts and whether a picture is rather to be generated (0) or retrieved (1) for each."""

    prompts: tuple[str, ...]
    labels: tuple[int, ...]

    @classmethod
    def read(cls, path: Path) -> LabelledPrompts:
        """A file with the columns Prompt and Decision (gen, ret or same), as PartiPrompts was annotated; "same" is left out.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a line has another decision, or there is none of one kind.

        Source: kohjingyu/gill 4600b71, data/PartiPromptsDecisionsConfident.tsv.
        """
        found = [(row["Prompt"], row["Decision"]) for row in read_tab_separated(path, ("Prompt", "Decision"))]
        for i, (_, decision) in enumerate(found):
            if decision not in (*PROMPT_LABELS, "same"):
                raise ValueError(
                    f"{path}, line {i + 2}: Decision must be gen, ret or same, got {decision!r:.80}"
                )
        labelled = [(prompt, PROMPT_LABELS.index(d)) for prompt, d in found if d != "same"]
        labels = tuple(label for _, label in labelled)
        if set(labels) != {0, 1}:
            raise ValueError(f"{path} must hold prompts of both kinds, gen and ret")
        return cls(tuple(prompt for prompt, _ in labelled), labels)


def read_tab_separated(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The named columns of every line behind the header.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, or a line lacks one of them.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        header = next(lines, [])
        if missing := [name for name in columns if name not in header]:
            raise ValueError(f"{path} lacks the column {missing[0]!r}; its header is {header!r:.200}")
        places = [header.index(name) for name in columns]
        rows = []
        for number, line in enumerate(lines, start=2):
            if len(line) != len(header) or any(
                not line[place].strip() or len(line[place]) > _LARGEST for place in places
            ):
                raise ValueError(
                    f"{path}, line {number}: expected {len(header)} fields with a tab between, got {line!r:.200}"
                )
            rows.append({name: line[place] for name, place in zip(columns, places, strict=True)})
    if not rows:
        raise ValueError(f"{path} holds no line behind its header")
    return rows


class StableDiffusionText:
    """The text encoder of Stable Diffusion 1.5; of a caption that is too long only the first 75 tokens count.

    Source: kohjingyu/gill 4600b71, scripts/preprocess_sd_embeddings.py. There the states are float16, here float32.
    """

    def __init__(self, components: Components) -> None:
        if components.is_sdxl:
            raise ValueError(
                "GILL is trained for SD1.5, whose text states have 77 rows of 768; this base is an SDXL"
            )
        self._prompts = components.prompt_encoder(1)
        self._net = components.text_encoders[0].requires_grad_(False).eval()

    def to(self, device: torch.device) -> None:
        self._net.to(device)

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> torch.Tensor:
        chunks = [(self._prompts.chunks(caption) or [()])[0] for caption in captions]
        ids = self._prompts.ids(chunks).to(self._net.device)
        return self._prompts.hidden_states(ids)[0].float()

    def fingerprint(self) -> str:
        return weights_hash(self._net)
