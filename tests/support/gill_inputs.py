"""What the tiny GILL of the recording is made of, and what it was given: folders, pictures, captions, conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file

WORDS = (
    "a red fox in the snow under old stone bridge blue whale on quiet lake two cats chair story of".split()
)
CAPTIONS = [
    "a red fox in the snow",
    "two cats on a chair",
    "an old stone bridge",
    "the blue whale",
    "a story of the quiet lake under the old stone bridge in the snow with two cats on a red chair and a fox",
    "snow",
    "the fox, the whale and the cats: a story of the lake.",
    "a red chair under the bridge in the lake, old and quiet",
]
TURNS = [
    ["picture 0", "Q: a red fox in the snow\nA:"],
    [" the old bridge [IMG0][IMG1][IMG2][IMG3][IMG4][IMG5][IMG6][IMG7]\n", "picture 1", "Q: two cats\nA:"],
    ["a story. ", "picture 2", " of the lake", "picture 0", "Q: which one?\nA:"],
]
STEPS, LOSSES = 10, 20
HIDDEN, VISION = 32, 24


def picture(number: int) -> Image.Image:
    """A picture of one of three sizes, from a formula."""
    width, height = ((28, 28), (60, 40), (33, 47))[number % 3]
    grid = torch.arange(width * height * 3).reshape(height, width, 3)
    return Image.fromarray((grid * (7 + 5 * number) % 251).to(torch.uint8).numpy())


def batch(number: int) -> dict[str, Any]:
    """Captions, pixels and text states of a training batch; the numbers come from a seed."""
    draw = torch.Generator().manual_seed(1000 + number)
    order = torch.randperm(len(CAPTIONS), generator=draw).tolist()
    return {
        "captions": [CAPTIONS[i] for i in order],
        "pixels": torch.randn(len(CAPTIONS), 3, 28, 28, generator=draw),
        "targets": torch.randn(len(CAPTIONS), 77, 768, generator=draw),
        "concatenate": [(number >> bit) % 2 == 1 for bit in range(3)],
    }


def byte_names() -> list[str]:
    """How GPT-2's tokenizer writes the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names = dict(zip(plain, map(chr, plain), strict=True))
    rest = [byte for byte in range(256) if byte not in names]
    names |= {byte: chr(256 + i) for i, byte in enumerate(rest)}
    return [names[byte] for byte in range(256)]


def write_folders(root: Path, weights: dict[str, torch.Tensor] | None = None) -> tuple[Path, Path]:
    """A tiny OPT and a tiny CLIP vision model as transformers has them, with these or with random weights."""
    language, vision = root / "facebook" / "opt-tiny", root / "clip-tiny"
    for folder in (language, vision):
        folder.mkdir(parents=True)
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *byte_names()]
    merges = []
    for word in WORDS:
        token = "Ġ"
        for letter in word:
            if token + letter not in vocabulary:
                merges.append(f"{token} {letter}")
                vocabulary.append(token + letter)
            token += letter
    opt = {
        "model_type": "opt",
        "architectures": ["OPTForCausalLM"],
        "vocab_size": len(vocabulary) + 4,
        "hidden_size": HIDDEN,
        "word_embed_proj_dim": HIDDEN,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "do_layer_norm_before": True,
        "activation_function": "relu",
        "dropout": 0.0,
        "bos_token_id": 2,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }
    tokenizer = {
        "tokenizer_class": "GPT2Tokenizer",
        "bos_token": "</s>",
        "eos_token": "</s>",
        "unk_token": "</s>",
        "pad_token": "<pad>",
        "add_bos_token": True,
        "add_prefix_space": False,
        "errors": "replace",
    }
    clip = {
        "model_type": "clip_vision_model",
        "hidden_size": VISION,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 28,
        "patch_size": 14,
        "projection_dim": 16,
        "hidden_act": "quick_gelu",
    }
    pixels = {
        "feature_extractor_type": "CLIPFeatureExtractor",
        "size": 28,
        "crop_size": 28,
        "do_resize": True,
        "do_center_crop": True,
        "do_normalize": True,
        "resample": 3,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    vocab = {token: i for i, token in enumerate(vocabulary)}
    write = {
        language / "config.json": opt,
        language / "tokenizer_config.json": tokenizer,
        language / "vocab.json": vocab,
        vision / "config.json": clip,
        vision / "preprocessor_config.json": pixels,
    }
    for path, content in write.items():
        path.write_text(json.dumps(content), encoding="utf-8")
    (language / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    for folder, prefix in ((language, "opt."), (vision, "clip.")):
        if weights is not None:
            own = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
            save_file(own, folder / "model.safetensors", metadata={"format": "pt"})
    return language, vision
