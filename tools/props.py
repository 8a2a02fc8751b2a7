"""Stand-ins for the host and browser tests: random models, an endpoint with the replies behind it, an example picture.

The demo takes the last two from here and its models from ``miniature``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from .miniature_values import CAPTIONED
from .small_graph import on_small_models

CHECKPOINT = "llmga-mini-random.safetensors"
CONTROLNET = "llmga-mini-random-control.safetensors"
LANGUAGE_MODEL = "llmga-mini-random"
INPAINTING = "llmga-mini-random-inpainting"
RESTORER = "diffrir-mini-random.safetensors"
GILL = "gill-mini-random"
FLOW = "flow-mini-random.safetensors"
ENDPOINT = "demo"
EXAMPLE = 5  # the seed of its scene, which no training has seen
# The workflows name the models that a person would use; the tests have small ones of their own.
SUBSTITUTES = {
    ("CheckpointLoaderSimple", "ckpt_name"): CHECKPOINT,
    ("ControlNetLoader", "control_net_name"): CONTROLNET,
    ("LLMGA_ModelLoader", "model"): LANGUAGE_MODEL,
    ("LLMGA_Endpoint", "endpoint"): ENDPOINT,
    ("LLMGA_Chat", "policy"): "whole_reply",
    ("LLMGA_Chat", "max_new_tokens"): 96,
    ("LLMGA_ChatPerPicture", "policy"): "whole_reply",
    ("LLMGA_ChatPerPicture", "max_new_tokens"): 96,
    ("EmptyLatentImage", "width"): 128,
    ("EmptyLatentImage", "height"): 128,
    ("KSampler", "steps"): 12,
    ("LLMGA_GILLLoader", "language"): LANGUAGE_MODEL,
    ("LLMGA_GILLLoader", "gill"): f"{GILL}.safetensors",
    ("LLMGA_GILLLoader", "vision"): f"{GILL}.safetensors",
    ("LLMGA_GILLLoader", "decision"): f"{GILL}-decision.safetensors",
    ("LLMGA_GILLChat", "picture"): "always",
    ("LLMGA_UNetLoader", "unet"): f"{INPAINTING}/",
    ("LLMGA_DiffRIRLoader", "restorer_file"): RESTORER,
    ("LLMGA_PrepareMask", "source"): "wide",
    ("LLMGA_CropForPainting", "width"): 128,
    ("LLMGA_CropForPainting", "height"): 128,
    ("LLMGA_CropEachRegion", "width"): 128,
    ("LLMGA_CropEachRegion", "height"): 128,
    ("LLMGA_CropEachRegion", "instructions"): "a star",
    ("ImagePadForOutpaint", "left"): 64,
    ("ImagePadForOutpaint", "right"): 64,
    ("LLMGA_EditInstruction", "policy"): "whole_reply",
    ("LLMGA_EditInstruction", "max_new_tokens"): 96,
    ("LLMGA_Invert", "steps"): 4,
    ("LLMGA_InversionEdit", "steps"): 4,
    ("LLMGA_AttentionMaps", "steps"): 2,
    ("UNETLoader", "unet_name"): FLOW,
    ("VAELoader", "vae_name"): FLOW,
    ("LLMGA_FlowEdit", "steps"): 4,
    ("LLMGA_Judge", "questions"): "Is there a star?\nIs it on snow?",
    ("LLMGA_Judge", "max_new_tokens"): 24,
    ("LLMGA_ScenePlan", "width"): 128,
    ("LLMGA_ScenePlan", "height"): 128,
    ("LLMGA_SceneSynthesis", "steps"): 4,
    ("LLMGA_SceneSynthesis", "width"): 128,
    ("LLMGA_SceneSynthesis", "height"): 128,
    ("LLMGA_ScenePreview", "width"): 128,
    ("LLMGA_ScenePreview", "height"): 128,
}
SCENE = {
    "objects": [
        {
            "name": "a red star",
            "box": [0.05, 0.3, 0.4, 0.5],
            "descriptions": ["striped", "plain and upright", "small beside the other"],
        },
        {
            "name": "a blue heart",
            "box": [0.55, 0.3, 0.4, 0.5],
            "descriptions": ["plain", "striped and leaning", "large beside the other"],
        },
    ],
    "background": "snow under a grey sky",
    "negative": "",
}
"""What the stand-in assistant plans, whatever it is asked for."""


def load_prompt(path: Path) -> dict[str, dict[str, Any]]:
    """A shipped API prompt with small models in place of those it names."""
    prompt = on_small_models(json.loads(path.read_text(encoding="utf-8")))
    for node in prompt.values():
        for name in node["inputs"]:
            node["inputs"][name] = SUBSTITUTES.get((node["class_type"], name), node["inputs"][name])
    return prompt


def answer(request: dict[str, Any]) -> str:
    """The reply of the stand-in assistant: what the user asked for in all turns, as a long prompt."""
    texts = [message["content"] for message in request["messages"] if message["role"] == "user"]
    if isinstance(texts[-1], str) and '"objects"' in texts[-1]:
        return json.dumps(SCENE)
    if pages := re.search(r"(\d+) (?:pages|页)", texts[-1] if isinstance(texts[-1], str) else ""):
        return "\n".join(
            f"Page {i}.\n<gen_image> page {i} of a book </gen_image>" for i in range(1, int(pages[1]) + 1)
        )
    requests = [text.rpartition(":")[2].strip().rstrip(".") for text in texts if isinstance(text, str)]
    prompt = (
        f"{requests[0].capitalize()}, the one clear subject of the picture, seen from a low viewpoint a few steps away. "
        "Soft light falls in from the left and leaves long gentle shadows; the near things are crisp, the far ones "
        "melt into a pale haze. Warm ochre and deep green carry the colours, with one small accent of red. Every "
        "surface shows its material: worn wood, woven wool, cool glass with tiny scratches. The composition is calm, "
        "with open space above the subject and a quiet rhythm of verticals behind it. "
        + "".join(f"And, most of all: {one}. " for one in requests[1:])
        + "A detailed oil painting with visible brushwork, painted from life."
    )
    return f"Here is how I would paint it.\n<gen_image> {prompt} </gen_image>\nTell me what to change."


def write_models(models: Path, *, checkpoint: bool = True) -> None:
    """Models of the miniature's architecture with random weights, where ComfyUI looks for them."""
    from miniworld.models.random_diffusion import (
        write_checkpoint,
        write_controlnet,
        write_inpainting_unet,
        write_restorer,
    )
    from miniworld.models.random_flow import write_flow_model, write_flow_vae
    from miniworld.models.random_gill import write_random_gill
    from miniworld.models.random_language import write_tiny_llava

    write_tiny_llava(models / "LLM" / LANGUAGE_MODEL, seed=0)
    if checkpoint:
        write_checkpoint(models / "checkpoints" / CHECKPOINT)
        write_controlnet(models / "controlnet" / CONTROLNET)
        write_inpainting_unet(models / "diffusion_models" / INPAINTING)
        write_restorer(models / "diffrir" / RESTORER)
        write_random_gill(models, GILL)
        write_flow_model(models / "diffusion_models" / FLOW)
        write_flow_vae(models / "vae" / FLOW)


def write_endpoints(path: Path, url: str, key_env: str = "") -> None:
    record = {"url": url, "model": "demo", "key_env": key_env}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"endpoints": {ENDPOINT: record}}), encoding="utf-8")


def write_example(path: Path) -> None:
    """A picture to talk about, from the miniature world, and a folder with it that template 31 captions."""
    from miniworld.world.render import render
    from miniworld.world.scene import sample_scene

    path.parent.mkdir(parents=True, exist_ok=True)
    picture = render(sample_scene(EXAMPLE, (2, 3), "validation"), 256).image
    picture.save(path)
    (path.parent / CAPTIONED).mkdir(exist_ok=True)
    picture.save(path.parent / CAPTIONED / path.name)
