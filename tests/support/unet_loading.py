"""LLMGA UNet Loader of a real ComfyUI, and a folder of its diffusion models."""

from __future__ import annotations

import contextlib
import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from . import comfy_inprocess
from .small_models import random_weights

STEM = "diffusion_pytorch_model"


@contextlib.contextmanager
def diffusion_models() -> Iterator[Path]:
    """A folder of diffusion models of this ComfyUI, which knows the miniature's architecture while it is open."""
    with comfy_inprocess.knowing_the_miniature() as paths:
        for kind in ("diffusion_models", "diffusers"):
            for path in paths.get_folder_paths(kind):
                Path(path).mkdir(parents=True, exist_ok=True)
        found = comfy_inprocess.pack("nodes.host_unet").download_folder()
        yield found
        shutil.rmtree(found)
        found.mkdir()


def clear(folder: Path) -> None:
    """Take everything out of the folder, and out of ComfyUI's list of it."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    importlib.import_module("folder_paths").filename_list_cache.clear()


def node() -> Any:
    return comfy_inprocess.pack("nodes.unet_loader").UNetLoader


def run(
    unet: str, variant: str = "auto", weight_dtype: str = "default", download: bool = False
) -> tuple[Any, str]:
    importlib.import_module("folder_paths").filename_list_cache.clear()
    output = node().execute(unet, variant, weight_dtype, download)
    assert output.ui == {"text": [output[1]]}
    return output[0], output[1]


def mini_unet(channels: int = 4) -> dict[str, torch.Tensor]:
    shapes = comfy_inprocess.pack("llmga.diffusion.unet_shapes")
    return random_weights(shapes.shapes(shapes.Sizes((64, 128), (0, 1), 1, 96, channels)))
