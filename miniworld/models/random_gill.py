"""A GILL with random weights for the tiny language model: it runs whole, and means nothing."""

from __future__ import annotations

from pathlib import Path

import torch

from llmga.gill import DecisionModel, GILLParts, GILLSizes, save_decision, save_parts

from .architecture import CONTEXT_DIM
from .random_language import HIDDEN

VISION_WIDTH = 64  # one attention head of a CLIP, so that a single file shows its config


def write_random_gill(models: Path, name: str, seed: int = 0) -> None:
    """Write GILL's three files as ComfyUI looks for them, for ``write_tiny_llava`` and the miniature's UNet.

    They are ``gill/NAME.safetensors``, ``gill/NAME-decision.safetensors`` and ``clip_vision/NAME.safetensors``.
    """
    from safetensors.torch import save_file
    from transformers import CLIPVisionConfig, CLIPVisionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = GILLSizes(HIDDEN, VISION_WIDTH, retrieval=16, text=CONTEXT_DIM, head_width=16, head_layers=1)
        parts, decision = GILLParts(sizes), DecisionModel(HIDDEN)
        vision = CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=VISION_WIDTH,
                intermediate_size=64,
                num_hidden_layers=1,
                num_attention_heads=1,
                image_size=28,
                patch_size=14,
            )
        )
    with torch.no_grad():
        decision.linear.bias[DecisionModel.GENERATE] += 100  # so that what hangs on a picture runs
    save_parts(parts, models / "gill" / f"{name}.safetensors")
    save_decision(decision, models / "gill" / f"{name}-decision.safetensors")
    state = vision.state_dict()
    named = {
        k if k.startswith("vision_model.") else f"vision_model.{k}": v.contiguous() for k, v in state.items()
    }
    path = models / "clip_vision" / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {k: v for k, v in named.items() if not k.endswith("position_ids")}, path, metadata={"format": "pt"}
    )
