"""The folder readers in the order in which they are asked; the first that reads a folder loads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..checkpoints.options import CheckpointOptions
from ..engines.local import LocalEngine
from . import official, transformers_folder


@dataclass(frozen=True)
class FolderReader:
    """One layout of folder.

    A new layout is a module with these two functions and a line in ``READERS``.

    Args:
        name: what a person calls the layout.
        reads: whether a folder has this layout, by its small files alone; raises nothing.
        load: the engine of such a folder, on the CPU, from files of this machine alone and never with code of the folder;
            the dtype is that of the weights in memory, None the stored one. Raises ``FileNotFoundError`` and
            ``ValueError`` with a text for a person.
    """

    name: str
    reads: Callable[[Path], bool]
    load: Callable[[Path, torch.dtype | None, CheckpointOptions], LocalEngine]


READERS: tuple[FolderReader, ...] = (
    FolderReader("official LLMGA checkpoint", official.reads, official.load),
    FolderReader("transformers folder", transformers_folder.reads, transformers_folder.load),
)
"""The last one reads every folder, so that its check can say what is wrong with it."""


def find_reader(folder: Path) -> FolderReader:
    """The first of ``READERS`` that reads a folder."""
    return next(reader for reader in READERS if reader.reads(folder))


def load_local_engine(
    folder: Path, dtype: torch.dtype | None = None, options: CheckpointOptions | None = None
) -> LocalEngine:
    """Load a model folder as transformers' ``save_pretrained`` writes it (LLaVA, Qwen-VL, … or text only), or an official
    LLMGA checkpoint as published.

    Args:
        folder: with ``config.json``, safetensors weights, tokenizer, chat template and, for a vision-language model, its
            image processor. For an official checkpoint see ``checkpoints.read_checkpoint``.
        dtype: of the weights; None is the one they are stored in.
        options: for an official checkpoint alone, except ``towers``, which other layouts leave alone, and ``weight_bits``.

    Raises:
        FileNotFoundError: the folder or one of its files is missing.
        ValueError: the folder must not or cannot be loaded; the text says why.
    """
    return find_reader(folder).load(folder, dtype, options or CheckpointOptions())
