"""The two file layouts of a LLaVA: transformers' (``llava-hf``) and that of the official LLMGA code."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_TOWER = "vision_tower"
"""The folder, inside an official one, that describes a vision tower which no hub has."""
_CLIP_L_336 = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
_TOWERS = {"openai/clip-vit-large-patch14-336": _CLIP_L_336}

_TO_LLAVA_HF = (
    (r"(?:model\.)?vision_tower\.(?:vision_model\.)?", "vision_tower.vision_model."),
    (r"(?:model\.)?multi_modal_projector\.", "multi_modal_projector."),
    (r"(?:model\.language_model|language_model\.model)\.", "language_model.model."),
    (r"(?:language_model\.)?lm_head\.", "language_model.lm_head."),
)
_OFFICIAL = (  # llava-hf, official
    ("vision_tower.vision_model.", "model.vision_tower.vision_tower.vision_model."),
    ("multi_modal_projector.linear_1.", "model.mm_projector.0."),
    ("multi_modal_projector.linear_2.", "model.mm_projector.2."),
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
)


def llava_hf_names(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights under the names that every transformers reads from a file, from those of a module or a file."""
    named = {}
    for name, value in weights.items():
        for pattern, prefix in _TO_LLAVA_HF:
            if match := re.match(pattern, name):
                named[prefix + name[match.end() :]] = value
                break
        else:
            raise ValueError(f"the weight {name!r} belongs to no part of a LLaVA")
    return named


def to_official(folder: Path, out: Path) -> Path:
    """Copy a LLaVA with a Llama from transformers' layout to the official one, which LLMGA's own code reads.

    Raises:
        ValueError: it is no LLaVA with a Llama and a CLIP tower.

    Source: LLMGA 7e32eb6, llmga/llava/model/llava_arch.py:56-77 and train/train.py:490-523. Deviation: where the vision
    tower is no hub's, ``mm_vision_tower`` names a folder inside this one that holds its config.
    """
    config = _read(folder / "config.json")
    text, vision = config.get("text_config", {}), config.get("vision_config", {})
    kinds = [part.get("model_type") for part in (config, text, vision)]
    if kinds != ["llava", "llama", "clip_vision_model"]:
        raise ValueError(
            f"{folder.name!r} is no LLaVA with a Llama and a CLIP tower: {', '.join(map(str, kinds))}"
        )
    official = {
        **text,
        "model_type": "llava_llama",
        "architectures": ["LlavaLlamaForCausalLM"],
        "tie_word_embeddings": config.get("tie_word_embeddings", False),
        "mm_vision_tower": _TOWER,
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
    _copy_others(folder, out)
    (out / _TOWER).mkdir(exist_ok=True)
    _write(out / _TOWER / "config.json", vision)
    _write(out / "config.json", official)
    _write_renamed(folder, out, _OFFICIAL)
    return out


def official_to_transformers(folder: Path, out: Path) -> Path:
    """Copy a LLaVA with a Llama from the official layout to transformers', the inverse of ``to_official``.

    The folder has to hold its vision tower's weights, a tokenizer that knows ``<image>`` as one token, and a
    processor.

    Raises:
        ValueError: the folder lacks one of them, or its config asks for what transformers' LLaVA has not.
    """
    official = _read(folder / "config.json")
    wanted = {
        "model_type": "llava_llama",
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_feature": "patch",
    }
    for key, value in wanted.items():
        if official.get(key) != value:
            raise ValueError(f"{folder.name}/config.json: {key} must be {value!r}, got {official.get(key)!r}")
    vision = _vision_config(folder, str(official.get("mm_vision_tower")))
    image_id = _image_id(folder)
    ours = (
        "model_type",
        "architectures",
        "use_mm_proj",
        "image_aspect_ratio",
        "tokenizer_",
        "mm_",
        "tie_word",
    )
    text = {key: value for key, value in official.items() if not key.startswith(ours)}
    tied = official.get("tie_word_embeddings", False)
    config = {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        "text_config": {**text, "model_type": "llama", "tie_word_embeddings": tied},
        "vision_config": vision,
        "image_token_index": image_id,
        "image_seq_length": (vision["image_size"] // vision["patch_size"]) ** 2,
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
        "vision_feature_layer": official.get("mm_vision_select_layer", -2),
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": tied,
        **({"dtype": text["dtype"]} if "dtype" in text else {}),
    }
    _copy_others(folder, out)
    _write(out / "config.json", config)
    # Longest first: "model." is the start of them all.
    renames = sorted(((there, here) for here, there in _OFFICIAL), key=lambda pair: -len(pair[0]))
    _write_renamed(folder, out, tuple(renames))
    return out


def _vision_config(folder: Path, tower: str) -> dict[str, Any]:
    if tower == _TOWER and (folder / _TOWER / "config.json").is_file():
        return _read(folder / _TOWER / "config.json")
    if tower in _TOWERS:
        return _TOWERS[tower]
    raise ValueError(f"{folder.name}: mm_vision_tower {tower!r} is not known; known: {', '.join(_TOWERS)}")


def _image_id(folder: Path) -> int:
    added = _read(folder / "tokenizer.json").get("added_tokens", [])
    if (found := next((token["id"] for token in added if token["content"] == "<image>"), None)) is None:
        raise ValueError(f"{folder.name}/tokenizer.json does not know <image> as one token")
    return found


def _copy_others(folder: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_file() and path.name != "config.json" and not path.name.startswith("model.safetensors"):
            shutil.copyfile(path, out / path.name)


def _write_renamed(folder: Path, out: Path, renames: tuple[tuple[str, str], ...]) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    if renames is _OFFICIAL:
        weights = llava_hf_names(weights)
    named = {}
    for name, value in weights.items():
        old, new = next(((a, b) for a, b in renames if name.startswith(a)), (None, ""))
        if old is None:
            raise ValueError(f"{folder.name}: the weight {name!r} belongs to no part of a LLaVA")
        named[new + name[len(old) :]] = value
    if not any(name.startswith(("vision_tower.", "model.vision_tower.")) for name in named):
        raise ValueError(f"{folder.name} holds no vision tower")
    save_file(named, out / "model.safetensors", metadata={"format": "pt"})


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1), encoding="utf-8")
