"""Conversion between the two folder layouts of a LLaVA: transformers' (``llava-hf``) and the official LLMGA code's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..chat.checkpoints.convert import convert
from ..chat.checkpoints.names import llava_hf_names, to_official_name
from ..chat.checkpoints.vision import INSIDE
from ..files.json_files import read_object
from ..files.writing import whole_folder

__all__ = ["llava_hf_names", "official_to_transformers", "to_official"]


def to_official(folder: Path, out: Path) -> Path:
    """Copy a LLaVA with a Llama from transformers' layout to the official one, which LLMGA's own code reads.

    Args:
        out: a folder that is not there yet, or empty; nothing is left of a copy that is stopped.

    Raises:
        FileExistsError: ``out`` holds something.
        ValueError: it is not a LLaVA with a Llama and a CLIP tower.

    Source: LLMGA 7e32eb6, llmga/llava/model/llava_arch.py:56-77 and train/train.py:490-523. Deviation: where the vision
    tower is no hub's, ``mm_vision_tower`` names a folder inside this one that holds its config.
    """
    config = read_object(folder / "config.json")
    text, vision = config.get("text_config", {}), config.get("vision_config", {})
    kinds = [part.get("model_type") for part in (config, text, vision)]
    if kinds != ["llava", "llama", "clip_vision_model"]:
        raise ValueError(
            f"{folder.name!r} is not a LLaVA with a Llama and a CLIP tower: {', '.join(map(str, kinds))}"
        )
    official = {
        **text,
        "model_type": "llava_llama",
        "architectures": ["LlavaLlamaForCausalLM"],
        "tie_word_embeddings": config.get("tie_word_embeddings", False),
        "mm_vision_tower": INSIDE,
        "use_mm_proj": True,
        "mm_projector_type": "mlp2x_gelu",
        "mm_hidden_size": vision["hidden_size"],
        "mm_vision_select_layer": config.get("vision_feature_layer", -2),
        "mm_vision_select_feature": "patch",
        "mm_patch_merge_type": "flat",
        "image_aspect_ratio": "resizesquare",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "tokenizer_padding_side": "right",
        "tokenizer_model_max_length": text.get("max_position_embeddings", 2048),
    }
    with whole_folder(out) as made:
        _copy_others(folder, made)
        (made / INSIDE).mkdir()
        _write(made / INSIDE / "config.json", vision)
        _write(made / "config.json", official)
        _write_renamed(folder, made)
    return out


def official_to_transformers(folder: Path, out: Path) -> Path:
    """Copy a LLaVA from the official layout to transformers', the inverse of ``to_official``: ``convert``, which keeps
    the processor that such a folder brings."""
    return convert(folder, out)


def _copy_others(folder: Path, out: Path) -> None:
    for path in folder.iterdir():
        if path.is_file() and path.name != "config.json" and not path.name.startswith("model.safetensors"):
            shutil.copyfile(path, out / path.name)


def _write_renamed(folder: Path, out: Path) -> None:
    from safetensors.torch import load_file, save_file

    named = {}
    for name, value in llava_hf_names(load_file(folder / "model.safetensors")).items():
        named[to_official_name(name)] = value
    if not any(name.startswith("model.vision_tower.") for name in named):
        raise ValueError(f"{folder.name} holds no vision tower")
    save_file(named, out / "model.safetensors", metadata={"format": "pt"})


def _write(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1), encoding="utf-8")
