"""Bases for the refiner under a megabyte: Qwen2.5-VL, Qwen3-VL, Gemma 3 and Qwen3, with their published templates."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from llmga.data.samples import SampleTurn
from miniworld.models.random_language import write_text_model, write_tiny_qwen_vl, write_tiny_text
from support.chat_templates import GEMMA3, QWEN3, QWEN3_VL, QWEN25_VL

TALK = (
    SampleTurn("user", "Draw a cat.", True),
    SampleTurn("assistant", "<gen_image> a cat </gen_image>"),
    SampleTurn("user", "And a dog"),
    SampleTurn("assistant", "No."),
)

TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "initializer_range": 0.1,
    "tie_word_embeddings": False,
}


def write_qwen25_vl(folder: Path) -> Path:
    import transformers

    tokenizer = _processor_files(folder, "Qwen2_5_VLProcessor", QWEN25_VL, patch=14)
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 64}
    config = transformers.Qwen2_5_VLConfig(
        text_config={**TEXT, **_ids(tokenizer), "rope_parameters": rope, "rope_scaling": rope},
        vision_config=vision | {"fullatt_block_indexes": [1]},
        **_picture_ids(tokenizer),
    )
    return _written(folder, transformers.Qwen2_5_VLForConditionalGeneration, config)


def write_qwen3_vl(folder: Path) -> Path:
    import transformers

    tokenizer = _processor_files(folder, "Qwen3VLProcessor", QWEN3_VL, patch=16)
    rope = {
        "rope_type": "default",
        "mrope_section": [2, 3, 3],
        "rope_theta": 10000.0,
        "mrope_interleaved": True,
    }
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 64}
    config = transformers.Qwen3VLConfig(
        text_config={**TEXT, **_ids(tokenizer), "rope_parameters": rope, "rope_scaling": rope},
        vision_config=vision | {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
        tie_word_embeddings=False,
        **_picture_ids(tokenizer),
    )
    return _written(folder, transformers.Qwen3VLForConditionalGeneration, config)


def write_gemma3(folder: Path) -> Path:
    import transformers

    named = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    special = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", *named.values()]
    write_text_model(folder, GEMMA3, "<eos>", special)
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "additional_special_tokens": []}
    ends = {"bos_token": "<bos>", "pad_token": "<pad>"}
    _template(folder, GEMMA3, **kind, **ends, extra_special_tokens=named)
    reads = {"processor_class": "Gemma3Processor", "image_seq_length": 4}
    pictures = {"image_processor_type": "Gemma3ImageProcessor", "size": {"height": 28, "width": 28}}
    (folder / "preprocessor_config.json").write_text(json.dumps(reads | pictures), encoding="utf-8")
    (folder / "processor_config.json").write_text(json.dumps(reads), encoding="utf-8")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in named.items()}
    text = {**TEXT, **_ids(tokenizer, "<end_of_turn>"), "sliding_window": 64, "query_pre_attn_scalar": 16}
    vision = {"num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 7}
    config = transformers.Gemma3Config(
        text_config=text | {"layer_types": ["sliding_attention", "full_attention"]},
        vision_config=vision | {"hidden_size": 32, "intermediate_size": 32},
        mm_tokens_per_image=4,
        initializer_range=0.1,
        boi_token_index=ids["boi_token"],
        eoi_token_index=ids["eoi_token"],
        image_token_index=ids["image_token"],
        tie_word_embeddings=False,
    )
    return _written(folder, transformers.Gemma3ForConditionalGeneration, config)


def write_qwen3(folder: Path) -> Path:
    import transformers

    write_tiny_text(folder)
    _template(folder, QWEN3)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    config = transformers.Qwen3Config(**TEXT, **_ids(tokenizer))
    return _written(folder, transformers.Qwen3ForCausalLM, config)


BASES: dict[str, Callable[[Path], Path]] = {
    "qwen2.5-vl": write_qwen25_vl,
    "qwen3-vl": write_qwen3_vl,
    "gemma3": write_gemma3,
    "qwen3": write_qwen3,
}
SEES = [name for name in BASES if name != "qwen3"]


def _processor_files(folder: Path, processor: str, template: str, patch: int) -> Any:
    import transformers

    write_tiny_qwen_vl(folder)
    side = 2 * patch
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "processor_class": processor,
                "image_processor_type": "Qwen2VLImageProcessor",
                "patch_size": patch,
                "min_pixels": side * side,
                "max_pixels": 16 * side * side,
                "size": {"shortest_edge": side * side, "longest_edge": 16 * side * side},
            }
        ),
        encoding="utf-8",
    )
    (folder / "video_preprocessor_config.json").write_text(
        json.dumps({"video_processor_type": "Qwen2VLVideoProcessor", "patch_size": patch}), encoding="utf-8"
    )
    _template(folder, template)
    return transformers.AutoTokenizer.from_pretrained(folder)


def _template(folder: Path, template: str, **settings: Any) -> None:
    (folder / "chat_template.json").unlink(missing_ok=True)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    path = folder / "tokenizer_config.json"
    known = json.loads(path.read_text(encoding="utf-8"))
    known.pop("chat_template", None)
    path.write_text(json.dumps({**known, **settings}), encoding="utf-8")


def _ids(tokenizer: Any, end_token: str = "<|im_end|>") -> dict[str, Any]:
    end = tokenizer.convert_tokens_to_ids(end_token)
    return {"vocab_size": len(tokenizer), "eos_token_id": end, "pad_token_id": end, "bos_token_id": None}


def _picture_ids(tokenizer: Any) -> dict[str, int]:
    names = {
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
    }
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


def _written(folder: Path, kind: Any, config: Any) -> Path:
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        (folder / name).unlink(missing_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = kind(config)
    from transformers import GenerationConfig

    end = config.get_text_config().eos_token_id
    net.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=end)
    net.save_pretrained(folder)
    return folder
