"""The ControlNet's trainer: against diffusers' procedure written out, resuming, its files, and that it learns edges."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from support.tiny_training import World, components
from support.tiny_training import config as stage2_config

pytest.importorskip("diffusers", reason="the ControlNet's networks are diffusers'")

from llmga.data.edges import canny
from llmga.diffusion.ldm import controlnet_to_ldm
from llmga.train import LoopConfig, build, generator, train
from llmga.train.config import _plain, read_config
from llmga.train.controlnet import (
    SINGLE_FILE,
    ControlNetConfig,
    ControlNetStage,
    new_controlnet,
    packed,
    unpacked,
)
from llmga.train.log import read_log

LEARNED = "controlnet/diffusion_pytorch_model.safetensors"


def config(loop: dict[str, Any] | None = None, **values: Any) -> ControlNetConfig:
    made = _plain(stage2_config(loop))
    return build(ControlNetConfig, {**made, **values})


def train_tiny(output: Path, **values: Any) -> Path:
    loop = values.pop("loop", {})
    settings = config(loop, **values)
    return train(ControlNetStage(settings, components(), World()), settings.loop, output)
