"""The demo's models: the trained miniature's files, the requests of the story, and the scene that a prompt describes."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import ROOT

if TYPE_CHECKING:
    from llmga.chat.engines.base import ChatEngine
    from miniworld.world.scene import Scene

PACK = ROOT / "miniworld" / "pack"
"""The node pack that teaches ComfyUI the miniature's architecture."""
CHECKPOINT = "llmga-mini.safetensors"
LANGUAGE_MODEL = "llmga-mini"
STAGE2 = str(
    Path("llmga-mini-t2i", "unet", "diffusion_pytorch_model.safetensors")
)  # a name as Load Diffusion Model has it
NEEDED = (f"checkpoints/{CHECKPOINT}", f"diffusion_models/{STAGE2}", f"LLM/{LANGUAGE_MODEL}/config.json")
FOLDERS = ("checkpoints", "diffusion_models", "LLM")
# The workflows name models that a person would use and pictures of their size; 28 steps fall on whole timesteps.
SUBSTITUTES = {
    ("CheckpointLoaderSimple", "ckpt_name"): CHECKPOINT,
    ("LLMGA_ModelLoader", "model"): LANGUAGE_MODEL,
    ("LLMGA_Endpoint", "endpoint"): "demo",
    ("LLMGA_Chat", "policy"): "whole_reply",
    ("LLMGA_LongCLIPEncode", "negative_text"): "",
    ("LLMGA_SaveHistory", "name"): "paper shapes",
    ("LLMGA_LoadHistory", "name"): "paper shapes",
    ("KSampler", "steps"): 28,
    ("KSampler", "cfg"): 4.0,
}
# Instruction and task by workflow and node title, in words of the miniature's world.
REQUESTS = {
    "text_to_image": {
        "LLMGA Chat": ("a red star in the centre and a ring at the top left on snow", "refine")
    },
    "similar_image": {"LLMGA Chat": ("", "similar")},
    "chat_with_endpoint": {
        "First turn": (
            "a large yellow heart in the centre and a circle at the bottom right on wood",
            "refine",
        ),
        "Second turn": ("Paint the heart blue.", "chat"),
    },
    "continue_conversation": {"Next turn": ("Change the background to grass.", "chat")},
}
PAINTERS = {"base": "painted by the base UNet", "stage 2": "painted by the stage-2 UNet"}


def find() -> Path:
    """The folder of the miniature: ``LLMGA_MINIATURE``, else the one that comes with this checkout.

    Raises:
        FileNotFoundError: something of it is missing.
    """
    folder = Path(os.environ.get("LLMGA_MINIATURE") or ROOT / "miniature")
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"the miniature in {folder} lacks {', '.join(missing)}")
    return folder


def picture_size() -> int:
    """The pixels of a side of what the miniature paints."""
    from miniworld.models.architecture import picture_size_of_checkpoint

    return picture_size_of_checkpoint(find() / "checkpoints" / CHECKPOINT)


def load_prompt(path: Path) -> dict[str, dict[str, Any]]:
    """A shipped API prompt on the miniature, painted twice: by the checkpoint's UNet and by that of stage 2."""
    prompt = json.loads(path.read_text(encoding="utf-8"))
    requests, side = REQUESTS[path.stem], picture_size()
    substitutes = {**SUBSTITUTES, ("EmptyLatentImage", "width"): side, ("EmptyLatentImage", "height"): side}
    for node in prompt.values():
        inputs = node["inputs"]
        for name in inputs:
            inputs[name] = substitutes.get((node["class_type"], name), inputs[name])
        if node["class_type"] == "LLMGA_Chat":
            inputs["instruction"], inputs["task"] = requests[node["_meta"]["title"]]
    return _with_stage2(prompt)


def _with_stage2(prompt: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Double what paints: the copies get the UNet of Load Diffusion Model."""
    unet = {"unet_name": STAGE2, "weight_dtype": "default"}
    loader = {"class_type": "UNETLoader", "inputs": unet, "_meta": {"title": "Load Diffusion Model"}}
    doubled = {**prompt, "stage2": loader}
    ids = {
        node["class_type"]: node_id
        for node_id, node in prompt.items()
        if node["class_type"] in ("KSampler", "VAEDecode", "SaveImage")
    }
    for node_id in ids.values():
        doubled[f"{node_id}-stage2"] = copy.deepcopy(prompt[node_id])
    doubled[f"{ids['KSampler']}-stage2"]["inputs"]["model"] = ["stage2", 0]
    doubled[f"{ids['VAEDecode']}-stage2"]["inputs"]["samples"] = [f"{ids['KSampler']}-stage2", 0]
    second = doubled[f"{ids['SaveImage']}-stage2"]
    second["inputs"]["images"] = [f"{ids['VAEDecode']}-stage2", 0]
    second["inputs"]["filename_prefix"] += "_stage2"
    for node, painter in ((prompt[ids["SaveImage"]], "base"), (second, "stage 2")):
        node["_meta"]["title"] = PAINTERS[painter]
    return doubled


def answerer(folder: Path) -> Any:
    """A function from a decoded OpenAI request to the reply of the miniature's language model."""
    import torch

    from llmga.chat.folders import load_local_engine

    return partial(reply_to, load_local_engine(folder / "LLM" / LANGUAGE_MODEL, dtype=torch.float32))


def reply_to(engine: ChatEngine, request: dict[str, Any]) -> str:
    """An engine's reply to an OpenAI request that holds texts alone."""
    from llmga.chat import Conversation, Sampling

    conversation = Conversation()
    for message in request["messages"]:
        if message["role"] == "system":
            conversation = replace(conversation, system=message["content"])
        else:
            conversation = conversation.say(message["role"], message["content"])
    sampling = Sampling(
        request["seed"], request["temperature"], request.get("top_p", 1.0), request["max_tokens"]
    )
    return engine.generate(conversation, sampling, lambda text: None).answer


def scene_of(prompt: str) -> Scene | None:
    """The scene that a prompt in the world's words asks for, or None if it leaves open what stands where."""
    from miniworld.world.facts import caption_facts
    from miniworld.world.scene import Scene, Thing

    said = caption_facts(prompt)
    try:
        things = tuple(
            Thing(m.shape, m.colour or "", m.size or "medium", m.texture or "plain", m.place or "")
            for m in said.objects
        )
        return Scene(things, said.background or "", said.tone or "warm", said.light or "left", backdrop=0)
    except ValueError:
        return None
