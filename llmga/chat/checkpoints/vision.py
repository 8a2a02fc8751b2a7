"""The vision tower of LLMGA: a CLIP ViT-L/14 at 336 px, inside a checkpoint or beside it, and how a picture reaches it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...files.json_files import read_object
from ...files.tensors import Tensors, read_file, read_model

CLIP_L_336 = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
TOWERS = {"clip-vit-large-patch14-336": CLIP_L_336}
"""Configs of the towers that an official ``mm_vision_tower`` may name, with whatever owner or path before it."""
INSIDE = "vision_tower"
"""The folder, inside an official one, that describes a tower which no hub has."""

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
_HEAD = 64  # channels of one attention head in every CLIP
_PATCHES = "embeddings.patch_embedding.weight"
_PREFIX = "vision_tower.vision_model."


class SquashedPictures:
    """LLMGA's image preprocessing: squashed to a square of its longer side, then reduced to the tower's size.

    Source: LLMGA 7e32eb6, llmga/serve/cli.py:65-73 (the ``ANTIALIAS`` of then is LANCZOS), and transformers 4.37's
    CLIPImageProcessor: bicubic on 8 bits, then mean and deviation.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, picture: Image.Image) -> torch.Tensor:
        """The tower's input (3, size, size), float32, from a picture of any size."""
        longer = max(picture.size)
        square = picture.convert("RGB").resize((longer, longer), Image.Resampling.LANCZOS)
        small = square.resize((self.size, self.size), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.asarray(small, dtype=np.float32) / 255).permute(2, 0, 1)
        return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def read_tower(source: Path) -> tuple[dict[str, Any], Tensors]:
    """A CLIP vision tower from a transformers folder or from one file, as ComfyUI's ``models/clip_vision`` holds them.

    Returns:
        Its config, from the folder or else from the tensors' shapes, and its tensors under llava-hf names. Those of a
        text encoder beside it are left out.

    Raises:
        FileNotFoundError: there is no such folder or file, or it lacks its weights.
        ValueError: it is not a CLIP vision tower in transformers' naming.
    """
    if not source.exists():
        raise FileNotFoundError(f"there is no vision tower {source.name!r}")
    found = read_model(source) if source.is_dir() else read_file(source)
    # "vision_model." alone, behind "vision_tower." or "model.vision_tower.", or, as transformers 5 saves it, left out
    before = [name.removesuffix(_PATCHES) for name in found if name.endswith(_PATCHES)]
    if not before:
        raise ValueError(
            f"the vision tower {source.name!r} is not a CLIP vision model of transformers (it has no "
            f"vision_model.{_PATCHES})"
        )
    named = {
        _PREFIX + name.removeprefix(before[0]): value
        for name, value in found.items()
        if name.startswith(before[0]) and not name.endswith("position_ids")
    }
    if source.is_dir() and (source / "config.json").is_file():
        config = read_object(source / "config.json")
        return {**config.get("vision_config", config), "model_type": "clip_vision_model"}, named
    return config_of(named), named


def find_tower(files: Iterable[Path]) -> Path | None:
    """The first safetensors file that holds a CLIP ViT-L/14-336, by its header alone; damaged files are passed over."""
    from safetensors import SafetensorError, safe_open

    wanted = {
        "embeddings.patch_embedding.weight": [1024, 3, 14, 14],
        "embeddings.position_embedding.weight": [577, 1024],
    }
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                names = set(file.keys())
                if all(
                    f"vision_model.{name}" in names
                    and file.get_slice(f"vision_model.{name}").get_shape() == shape
                    for name, shape in wanted.items()
                ):
                    return path
        except (OSError, SafetensorError):
            continue
    return None


def config_of(weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The config of a CLIP vision tower, from the shapes of its tensors (llava-hf names).

    Raises:
        ValueError: it has an essential tensor less, or heads of another width than CLIP's 64.
    """
    try:
        return _config_of(weights)
    except KeyError as error:
        raise ValueError(f"the vision tower lacks the tensor {error}; download it again") from error


def _config_of(weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    kernel = weights[f"{_PREFIX}embeddings.patch_embedding.weight"]
    positions = weights[f"{_PREFIX}embeddings.position_embedding.weight"]
    layers = {match[1] for name in weights if (match := re.search(r"encoder\.layers\.(\d{1,4})\.", name))}
    hidden, patch = kernel.shape[0], kernel.shape[-1]
    if hidden % _HEAD:
        raise ValueError(
            f"the vision tower has a width of {hidden}, not a multiple of {_HEAD}; give a folder with a config.json"
        )
    return {
        "model_type": "clip_vision_model",
        "hidden_size": hidden,
        "intermediate_size": weights[f"{_PREFIX}encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": hidden // _HEAD,
        "image_size": patch * round((positions.shape[0] - 1) ** 0.5),
        "patch_size": patch,
    }


def declared_config(folder: Path, tower: str) -> dict[str, Any] | None:
    """The config of the tower that an official config names, if it is known without the tower itself."""
    if tower == INSIDE and (folder / INSIDE / "config.json").is_file():
        return read_object(folder / INSIDE / "config.json")
    return TOWERS.get(tower.rstrip("/").rpartition("/")[2])
