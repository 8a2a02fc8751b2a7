"""Untrained LLaVA of the miniature: its sizes, its vocabulary, its transformers folder.

A word-level tokenizer over the world's own text; what it does not know it spells in bytes. The chat template is
Vicuna's, but of a system prompt it reads the first line only: what the rest of LLMGA's own says, the miniature has
learned. ``TOWER`` sees 36 patches, of which the last layer's outputs are used: four around each place of the world (what
is left of 128 pixels at the right and the bottom, 2 of them, nobody sees).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

TOWER: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 128,
    "patch_size": 21,
    "projection_dim": 128,
}
DECODER: dict[str, Any] = {
    "hidden_size": 192,
    "intermediate_size": 256,
    "num_hidden_layers": 5,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "initializer_range": 0.05,
}
_GAIN = 0.7
IMAGE, END = "<image>", "</s>"
MAX_WORDS = 1200

TEMPLATE = (
    "{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ m['content'][0]['text'].split('\n')[0] + ' ' }}{% else %}"
    "{{ m['role'] | upper + ': ' }}"
    "{% for part in m['content'] %}{{ '<image>\n' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{{ '</s>' if m['role'] == 'assistant' else ' ' }}"
    "{% endif %}{% endfor %}{{ 'ASSISTANT:' if add_generation_prompt }}"
)


def write_processor(folder: Path, texts: Iterable[str]) -> None:
    """Write tokenizer, image processor and chat template, as model pages hold them: any transformers reads them.

    Args:
        texts: what the most frequent ``MAX_WORDS`` words are taken from.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(piece for piece, _ in split.pre_tokenize_str(text))
    letters = sorted(split.alphabet())
    words = [
        word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if len(word) > 1
    ]
    # The likeliest way to read a text is the one of fewest pieces: a known word whole, any other in bytes.
    pieces = [(piece, -10.0) for piece in letters] + [(word, -1.0) for word in words[:MAX_WORDS]]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in (END, IMAGE)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    files: dict[str, dict[str, Any]] = {
        "tokenizer_config": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": None,
            "eos_token": END,
            "pad_token": END,
            "additional_special_tokens": [END, IMAGE],
            "model_input_names": ["input_ids", "attention_mask"],
            "clean_up_tokenization_spaces": False,
        },
        "preprocessor_config": {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"height": TOWER["image_size"], "width": TOWER["image_size"]},
            "do_center_crop": False,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
        },
        "processor_config": {
            "processor_class": "LlavaProcessor",
            "image_token": IMAGE,
            "patch_size": TOWER["patch_size"],
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
        },
        "chat_template": {"chat_template": TEMPLATE},
    }
    for name, values in files.items():
        (folder / f"{name}.json").write_text(json.dumps(values, indent=1), encoding="utf-8")


def new_tower() -> Any:
    """A vision tower that has seen nothing."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    return CLIPVisionModel(CLIPVisionConfig(**TOWER))


def new_llava(tokenizer: Any) -> Any:
    """The whole model, initialised from the global generator."""
    from transformers import (
        CLIPVisionConfig,
        GenerationConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    ids = {
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = LlamaConfig(**{**DECODER, **ids, "vocab_size": len(tokenizer)})
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**TOWER).to_dict(),
        text_config=text.to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=(TOWER["image_size"] // TOWER["patch_size"]) ** 2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    net = LlavaForConditionalGeneration(config)
    for name, module in net.named_modules():
        if name.endswith("self_attn") and "language_model" in name:
            _look_alike(module)
    net.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return net


@torch.no_grad()
def _look_alike(attention: Any) -> None:
    """Begin with attention to what is alike, and to copy it: from noise this is found only after long.

    Source: Trockman and Kolter, "Mimetic Initialization of Self-Attention Layers", 2023; here without their noise.
    """
    for one, other in (("q_proj", "k_proj"), ("v_proj", "o_proj")):
        weight = getattr(attention, one).weight
        torch.nn.init.orthogonal_(weight, gain=_GAIN)
        getattr(attention, other).weight.copy_(weight if other == "k_proj" else weight.T)
