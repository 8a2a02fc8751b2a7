"""The presets called released-code, key by key against the released scripts; what differs is said in the file.

Source: LLMGA 7e32eb6, scripts/train_llmga_s1_7b_vicuna.sh, pretrain_vicuna_7b.sh, train_llmga_s2_*.sh with the data sets in
llmga/diffusers/my_datasets. The DiffRIR presets are in test_train_diffrir.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest

from llmga.train import presets, read_config
from llmga.train.stage1 import Stage1Config
from llmga.train.stage2 import Stage2Config

SCRIPTS: dict[str, dict[str, Any]] = {  # arguments of the scripts, under the names of ours; 8 GPUs
    "stage2": {
        "loop.steps": 50_000,  # --max_train_steps
        "loop.lr": 2e-5,
        "loop.schedule": "constant",  # constant_with_warmup, without warm-up
        "loop.warmup": 0,  # the second --lr_warmup_steps
        "loop.clip": 1.0,  # --max_grad_norm
        "loop.ema": 0.9999,  # --use_ema
        "loop.betas": (0.9, 0.999),
        "loop.weight_decay": 0.01,
        "loop.adam_eps": 1e-8,
        "loop.mixed_precision": "bf16",
        "loop.save_every": 2000,
        "loop.keep": 2,
        "gradient_checkpointing": True,
        "flip": True,  # --random_flip
        "loss_weight": "none",  # no SNR gamma
        "train_text_encoder": False,
    },
    "stage1": {
        "loop.lr": 2e-5,
        "loop.schedule": "cosine",
        "loop.weight_decay": 0.0,
        "loop.batch": 128,  # 4 · 4 · 8
        "loop.micro_batch": 4,
        "loop.mixed_precision": "bf16",
        "train": "full",
        "transcript": "vicuna_v1",  # --version v1
        "max_length": 2048,
        "gradient_checkpointing": True,
        "system": "",
    },
}
OWN: dict[str, dict[str, Any]] = {
    "stage2-released-code-sd15-t2i": {
        "base": "runwayml/stable-diffusion-v1-5",
        "task": "t2i",
        "loop.batch": 256,
        "pictures.resolution": 512,
        "pictures.short_captions": 0.0,
        "caption_dropout": 0.0,
    },
    "stage2-released-code-sd15-inpainting": {
        "base": "runwayml/stable-diffusion-inpainting",
        "task": "inpainting",
        "loop.batch": 256,
        "pictures.resolution": 512,
        "pictures.short_captions": 0.05,
        "caption_dropout": 0.05,
    },
    "stage2-released-code-sdxl-t2i": {
        "base": "stabilityai/stable-diffusion-xl-base-1.0",
        "task": "t2i",
        "loop.batch": 128,  # 4 · 4 · 8
        "pictures.resolution": 1024,
        "pictures.short_captions": 0.05,
        "caption_dropout": 0.0,  # dataset_text2img_sdxl.py:117-120 has the short ones only
    },
    "stage2-released-code-sdxl-inpainting": {
        "base": "diffusers/stable-diffusion-xl-1.0-inpainting-0.1",
        "task": "inpainting",
        "loop.batch": 128,
        "pictures.resolution": 1024,
        "pictures.short_captions": 0.05,
        "caption_dropout": 0.05,  # dataset_inpainting_sdxl.py:413
    },
    "stage1-released-code": {"mixture.preset": "released-code", "mixture.edits": "text", "base": ""},
    "stage1-projector": {
        "train": "projector",
        "loop.batch": 256,  # 8 · 4 · 8
        "loop.micro_batch": 8,
        "loop.lr": 1e-3,
        "base": "",
    },
}
SAID = {  # what differs from the script, in words that the file must hold
    "stage2-released-code-sd15-t2i": ("mirrored", "names a side", "cache_dtype", "EXIF"),
    "stage2-released-code-sd15-inpainting": ("Eight masks", "LAION"),
    "stage2-released-code-sdxl-t2i": ("crop_top_left", "rounded down"),
    "stage2-released-code-sdxl-inpainting": ("Eight masks",),
    "stage1-released-code": ("squashed", "LAION", "full stop", "Holes", "stage1-projector"),
    "stage1-projector": ("llmga join",),
    "diffrir-gan-released-code-x1": ("optimizer_d",),
}


@pytest.mark.parametrize("name", sorted(OWN))
def test_the_keys_are_the_scripts(name: str) -> None:
    kind = name.partition("-")[0]
    config = read_config(Stage1Config if kind == "stage1" else Stage2Config, name)  # type: ignore[arg-type]
    for key, wanted in {**SCRIPTS[kind], **OWN[name]}.items():
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        assert value == wanted, key


@pytest.mark.parametrize("name", sorted(SAID))
def test_what_differs_is_said_in_the_preset(name: str) -> None:
    text = files("llmga.train").joinpath("presets").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    said = " ".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("#"))
    for words in SAID[name]:
        assert words in said, words


def test_no_preset_of_the_released_code_of_these_stages_is_left_out() -> None:
    stages = {name for name in presets() if name.startswith("stage") and "paper" not in name}
    assert stages == set(OWN)
