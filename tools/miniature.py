"""The demo's models: the trained miniature's files, the requests of the story, and the scene that a prompt describes."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miniworld.files import GILL_FILE

from . import ROOT
from .miniature_values import CHECKPOINT, LANGUAGE_MODEL, REQUESTS, STAGE2, values_of_size
from .small_graph import Prompt, on_small_models

if TYPE_CHECKING:
    from llmga.chat.engines.base import ChatEngine
    from miniworld.world.scene import Scene

API = ROOT / "workflows" / "api"
PACK = ROOT / "miniworld" / "pack"
"""The node pack that teaches ComfyUI the miniature's architecture, with the workflows on the miniature."""
NEEDED = (f"checkpoints/{CHECKPOINT}", f"diffusion_models/{STAGE2}", f"LLM/{LANGUAGE_MODEL}/config.json")
FOLDERS = ("checkpoints", "diffusion_models", "LLM", "diffrir", "controlnet", "gill")
PAINTERS = {
    "base": "painted by the base painter",
    "stage 2": "painted by the one trained on long prompts (stage 2)",
}


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


def picture_size(folder: Path | None = None) -> int:
    """The pixels of a side of what the miniature in a folder paints; without one, of what ``find`` finds."""
    from miniworld.models.architecture import picture_size_of_checkpoint

    return picture_size_of_checkpoint((folder or find()) / "checkpoints" / CHECKPOINT)


def load_prompt(path: Path) -> Prompt:
    """A shipped API prompt on the miniature, with requests in words that it knows and pictures of its size."""
    prompt = on_small_models(json.loads(path.read_text(encoding="utf-8")), keep_unet_loaders=True)
    requests, values = REQUESTS[path.stem], values_of_size(picture_size())
    for node in prompt.values():
        inputs = node["inputs"]
        for name, value in inputs.items():
            if not isinstance(value, list):
                inputs[name] = values.get((node["class_type"], name), value)
        inputs.update(requests.get(node["_meta"]["title"], {}))
    return prompt


def missing_models(folder: Path, prompt: Prompt) -> list[str]:
    """What a workflow on the miniature needs and a folder lacks: a part of it may not have been trained yet."""
    wanted = [(node["class_type"], node["inputs"]) for node in prompt.values()]
    controlnets = [inputs["control_net_name"] for kind, inputs in wanted if kind == "ControlNetLoader"]
    missing = [name for name in controlnets if not (folder / "controlnet" / name).is_file()]
    if any(kind == "LLMGA_GILLLoader" for kind, _ in wanted) and not (folder / GILL_FILE).is_file():
        missing.append(GILL_FILE)
    if any(kind == "LLMGA_FlowEdit" for kind, _ in wanted):
        missing.append("flow model")
    if any(kind == "LLMGA_ScenePlan" and "engine" in inputs for kind, inputs in wanted):
        missing.append("language model that plans scenes")
    return missing


def with_stage2(prompt: Prompt) -> Prompt:
    """A prompt that paints once, painting twice: the copies get the UNet of Load Diffusion Model."""
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
