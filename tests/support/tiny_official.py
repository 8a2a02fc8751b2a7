"""Tiny LLMGA checkpoints in the official layout, one for each family, and the official forward pass composed anew.

The tokenizers have the shape of the real ones: SentencePiece's (a space before each piece, bytes to fall back on,
``<unk>``) for Vicuna, Llama 2, Mistral, Phi-3 and Gemma, byte-level ones for Llama 3 and Qwen2. The weights are random.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

HIDDEN, LAYERS, SIDE, PATCH = 64, 2, 28, 14
VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 1,
    "image_size": SIDE,
    "patch_size": PATCH,
}
WORDS = "a red fox cat in the snow image generate USER ASSISTANT".split()


@dataclass(frozen=True)
class Kind:
    """How one family's checkpoint differs from the others."""

    official: str
    text: str
    control: tuple[str, ...]
    bos: str | None
    eos: str
    sentencepiece: bool = True
    padding_rows: int = 0
    config: dict[str, Any] = field(default_factory=dict)


_SPM = ("<unk>", "<s>", "</s>")
_LLAMA_3 = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
KINDS = {
    "vicuna_v1": Kind(
        "llava_llama", "llama", _SPM, "<s>", "</s>", config={"_name_or_path": "lmsys/vicuna-7b-v1.5"}
    ),
    "llama_3": Kind(
        "llava_llama",
        "llama",
        (*_LLAMA_3, *(f"<|reserved_special_token_{i}|>" for i in range(3))),
        "<|begin_of_text|>",
        "<|end_of_text|>",
        sentencepiece=False,
        config={"rope_theta": 500000.0, "num_key_value_heads": 2},
    ),
    "llava_llama_2": Kind(
        "llava_llama", "llama", _SPM, "<s>", "</s>", config={"_name_or_path": "meta-llama/Llama-2-7b-chat-hf"}
    ),
    "mistral_instruct": Kind(
        "llava_mistral",
        "mistral",
        _SPM,
        "<s>",
        "</s>",
        config={"num_key_value_heads": 2, "sliding_window": None, "rope_theta": 1e6, "head_dim": 16},
    ),
    "qwen_2": Kind(
        "llava_Qwen2",
        "qwen2",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        None,
        "<|im_end|>",
        sentencepiece=False,
        padding_rows=5,
        config={"tie_word_embeddings": True, "num_key_value_heads": 2, "rope_theta": 1e6},
    ),
    "phi_3": Kind(
        "llava_Phi3",
        "phi3",
        (*_SPM, "<|endoftext|>", "<|assistant|>", "<|user|>", "<|end|>"),
        None,
        "<|endoftext|>",
        padding_rows=3,
        config={
            "pad_token_id": 3,
            "original_max_position_embeddings": 1024,
            "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8},
        },
    ),
    "gemma": Kind(
        "llava_gemma",
        "gemma",
        ("<pad>", "<eos>", "<bos>", "<unk>", "<unused0>", "<unused1>", "<start_of_turn>", "<end_of_turn>"),
        "<bos>",
        "<eos>",
        config={"head_dim": 16, "num_key_value_heads": 1, "hidden_act": "gelu_pytorch_tanh"},
    ),
}


def write_tokenizer(folder: Path, kind: Kind) -> int:
    """Write ``tokenizer.json`` and its config; returns the number of its tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    if kind.sentencepiece:
        letters = sorted(set("".join(WORDS) + "▁.?<>_/[]INSTY:qwertyuiopasdfghjklzxcvbnm"))
        pieces = [*(f"<0x{byte:02X}>" for byte in range(256)), *letters]
        merges = [(word[:i], word[i]) for word in ("▁red", "▁fox") for i in range(1, len(word))]
    else:
        pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
        merges = [(word[:i], word[i]) for word in ("Ġred", "Ġfox") for i in range(1, len(word))]
    pieces += [left + right for left, right in merges]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys((*kind.control, *pieces)))}
    unk = {"unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True} if kind.sentencepiece else {}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, **unk))
    if kind.sentencepiece:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        strip = [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
        tokenizer.decoder = decoders.Sequence(strip)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in kind.control])
    if kind.bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{kind.bos} $A", special_tokens=[(kind.bos, vocabulary[kind.bos])]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        tokenizer_class="PreTrainedTokenizerFast",
        bos_token=kind.bos,
        eos_token=kind.eos,
        unk_token="<unk>" if kind.sentencepiece else None,
        pad_token=kind.control[0],
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
    return tokenizer.get_vocab_size()


def write_official(folder: Path, name: str, seed: int = 0, tower: bool = True) -> Path:
    """Write a checkpoint with ``model.safetensors``; returns ``folder``.

    Args:
        name: a key of ``KINDS``.
        tower: whether the vision tower's weights are among the others; its config always lies in ``vision_tower``.
    """
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    kind = KINDS[name]
    folder.mkdir(parents=True)
    ids = {token: i for i, token in enumerate(kind.control)}
    config = {
        "hidden_size": HIDDEN,
        "intermediate_size": 96,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 4096,
        "vocab_size": write_tokenizer(folder, kind) + kind.padding_rows,
        "bos_token_id": ids.get(kind.bos or ""),
        "eos_token_id": ids[kind.eos],
        **({} if name == "gemma" else {"tie_word_embeddings": False}),
        **kind.config,
    }
    text = CONFIG_MAPPING[kind.text](**{key: value for key, value in config.items() if key[0] != "_"})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = randomised(AutoModelForCausalLM.from_config(text))
        if text.tie_word_embeddings:
            del weights["lm_head.weight"]
        weights |= projector_weights()
        if tower:
            weights |= {
                f"model.vision_tower.vision_tower.{key}": value for key, value in tower_weights().items()
            }
    write_json(folder / "config.json", **config, **official_keys(kind))
    (folder / "vision_tower").mkdir()
    write_json(folder / "vision_tower/config.json", **VISION)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def official_keys(kind: Kind) -> dict[str, Any]:
    return {
        "model_type": kind.official,
        "architectures": ["SomeForCausalLM"],
        "torch_dtype": "float32",
        "mm_vision_tower": "vision_tower",
        "use_mm_proj": True,
        "mm_projector_type": "mlp2x_gelu",
        "mm_projector_lr": None,
        "mm_hidden_size": VISION["hidden_size"],
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_patch_merge_type": "flat",
        "image_aspect_ratio": "resizesquare",
        "tokenizer_padding_side": "right",
        "tokenizer_model_max_length": 2048,
        "tune_mm_mlp_adapter": False,
        "freeze_mm_mlp_adapter": False,
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
    }


def randomised(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Its weights as noise that keeps the variance: a fresh model says the same whatever it reads."""
    weights = {}
    for name, value in net.state_dict().items():
        if not value.is_floating_point():
            continue
        noise = torch.randn(value.shape)
        if value.dim() == 1:
            weights[name] = 0.1 * noise + (1 if "norm" in name and name.endswith("weight") else 0)
        else:
            weights[name] = noise * (0.3 if "embed" in name else 1.5 / value[0].numel() ** 0.5)
    return weights


def projector_weights() -> dict[str, torch.Tensor]:
    width = VISION["hidden_size"]
    shapes = {
        "0.weight": (HIDDEN, width),
        "0.bias": (HIDDEN,),
        "2.weight": (HIDDEN, HIDDEN),
        "2.bias": (HIDDEN,),
    }
    return {f"model.mm_projector.{name}": 0.2 * torch.randn(shape) for name, shape in shapes.items()}


def tower_weights() -> dict[str, torch.Tensor]:
    """Under the names that CLIP's own files have."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    weights = randomised(CLIPVisionModel(CLIPVisionConfig(**VISION)))
    return {f"vision_model.{name.removeprefix('vision_model.')}": value for name, value in weights.items()}


def official_logits(
    name: str,
    weights: dict[str, torch.Tensor],
    config: dict[str, Any],
    pieces: list[list[int]],
    pixels: torch.Tensor,
) -> torch.Tensor:
    """The official forward pass from transformers' parts.

    Args:
        weights: under official names, tower included.
        pieces: the tokens before, between and after the pictures.
        pixels: (pictures, 3, SIDE, SIDE).

    Returns:
        (1, tokens, vocabulary).

    Source: LLMGA 7e32eb6, llmga/llava/model/llava_arch.py:93-300 and multimodal_encoder/clip_encoder.py:35-55, under the
    transformers of then, whose Gemma scales all that it is given.
    """
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, CLIPVisionConfig, CLIPVisionModel

    text = {
        key: value for key, value in config.items() if not key.startswith(("mm_", "_", "model_type", "torch"))
    }
    net = AutoModelForCausalLM.from_config(CONFIG_MAPPING[KINDS[name].text](**text)).eval()
    tower = CLIPVisionModel(CLIPVisionConfig(**VISION)).eval()
    prefix = "model.vision_tower.vision_tower."
    own = {key: value for key, value in weights.items() if not key.startswith((prefix, "model.mm_"))}
    _load(net, own)
    _load(
        tower, {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    )
    table, parts = weights["model.embed_tokens.weight"], []
    with torch.no_grad():
        features = tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:] if len(pixels) else []
        for i, piece in enumerate(pieces):
            if i:
                seen = (
                    features[i - 1] @ weights["model.mm_projector.0.weight"].T
                    + weights["model.mm_projector.0.bias"]
                )
                seen = torch.nn.functional.gelu(seen)
                parts.append(
                    seen @ weights["model.mm_projector.2.weight"].T + weights["model.mm_projector.2.bias"]
                )
            parts.append(table[piece])
        embeds = torch.cat(parts)[None]
        if name == "gemma" and hasattr(net.get_input_embeddings(), "embed_scale"):
            embeds = embeds * HIDDEN**0.5
        return net(inputs_embeds=embeds).logits


def _load(net: Any, weights: dict[str, torch.Tensor]) -> None:
    """By the end of each name: transformers 5 has dropped ``vision_model.`` from CLIP's."""
    own = net.state_dict()
    named = {
        key if key in own else key.removeprefix("vision_model."): value for key, value in weights.items()
    }
    missing, unexpected = net.load_state_dict(named, strict=False)
    tied = {"lm_head.weight"} if getattr(net.config, "tie_word_embeddings", False) else set()
    missing = [key for key in missing if key not in tied and not key.endswith("position_ids")]
    if missing or unexpected:
        raise ValueError(f"{missing} {unexpected}")
    if hasattr(net, "tie_weights"):
        net.tie_weights()


def write_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(values, indent=1), encoding="utf-8")
