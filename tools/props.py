"""What stands on the demo's stage: small models, an endpoint and who answers behind it, a picture to talk about.

The host and browser tests use the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHECKPOINT = "llmga-mini-random.safetensors"
LANGUAGE_MODEL = "llmga-mini-random"
ENDPOINT = "demo"
# The workflows name the models that a person would use; the demo has small ones of its own.
SUBSTITUTES = {
    ("CheckpointLoaderSimple", "ckpt_name"): CHECKPOINT,
    ("LLMGA_ModelLoader", "model"): LANGUAGE_MODEL,
    ("LLMGA_Endpoint", "endpoint"): ENDPOINT,
    ("LLMGA_Chat", "policy"): "whole_reply",
    ("LLMGA_Chat", "max_new_tokens"): 96,
    ("EmptyLatentImage", "width"): 128,
    ("EmptyLatentImage", "height"): 128,
    ("KSampler", "steps"): 12,
}


def load_prompt(path: Path) -> dict[str, dict[str, Any]]:
    """A shipped API prompt with the demo's models in place of those it names."""
    prompt = json.loads(path.read_text(encoding="utf-8"))
    for node in prompt.values():
        for name in node["inputs"]:
            node["inputs"][name] = SUBSTITUTES.get((node["class_type"], name), node["inputs"][name])
    return prompt


def answer(request: dict[str, Any]) -> str:
    """Take what the user asked for, this turn and before, and spell it out."""
    said = [message["content"] for message in request["messages"] if message["role"] == "user"]
    wishes = [text.rpartition(":")[2].strip().rstrip(".") for text in said if isinstance(text, str)]
    prompt = (
        f"{wishes[0].capitalize()}, the one clear subject of the picture, seen from a low viewpoint a few steps away. "
        "Soft light falls in from the left and leaves long gentle shadows; the near things are crisp, the far ones "
        "melt into a pale haze. Warm ochre and deep green carry the colours, with one small accent of red. Every "
        "surface shows its material: worn wood, woven wool, cool glass with tiny scratches. The composition is calm, "
        "with open space above the subject and a quiet rhythm of verticals behind it. "
        + "".join(f"And, most of all: {wish}. " for wish in wishes[1:])
        + "A detailed oil painting with visible brushwork, painted from life."
    )
    return f"Here is how I would paint it.\n<gen_image> {prompt} </gen_image>\nTell me what to change."


def write_models(models: Path, *, checkpoint: bool = True) -> None:
    """The miniature models, random weights, where ComfyUI looks for them."""
    from llmga.mini.random_diffusion import write_checkpoint
    from llmga.mini.random_language import write_tiny_llava

    write_tiny_llava(models / "LLM" / LANGUAGE_MODEL, seed=0)
    if checkpoint:
        write_checkpoint(models / "checkpoints" / CHECKPOINT)


def write_endpoints(path: Path, url: str, key_env: str = "") -> None:
    record = {"url": url, "model": "demo", "key_env": key_env}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"endpoints": {ENDPOINT: record}}), encoding="utf-8")


def write_example(path: Path) -> None:
    """A picture to talk about: a red ball on sand under a blue sky."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (256, 256), "#8ec9f0")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 160, 256, 256), fill="#e3c98f")
    draw.ellipse((96, 196, 190, 222), fill="#b89c66")
    draw.ellipse((88, 104, 192, 208), fill="#d0392f")
    draw.ellipse((112, 122, 138, 146), fill="#f0867c")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
