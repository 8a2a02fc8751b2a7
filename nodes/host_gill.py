"""Where ComfyUI keeps what GILL needs: its files, CLIP vision models, folders of pictures; and outputs that go nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_execution.graph_utils import ExecutionBlocker

from . import host

SUFFIXES = (".tar", ".pth", ".safetensors")


def gill_files() -> dict[str, Path]:
    """Every weight file in ``models/gill``, by its name there."""
    return host.model_files(host.GILLS, SUFFIXES)


def vision_models() -> dict[str, Path]:
    """Every safetensors file in ``models/clip_vision``, by its name there."""
    return host.model_files("clip_vision", (".safetensors",))


def input_folder(name: str) -> Path:
    """A folder below ComfyUI's input folder, "" for that itself.

    Raises:
        ValueError: it leads out of the input folder.
        FileNotFoundError: it is not there.
    """
    return host.folder_below("input", name)


def blocked() -> Any:
    """An output behind which nothing runs, without an error."""
    return ExecutionBlocker(None)
