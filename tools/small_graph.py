"""Turns a shipped workflow, whatever models it is for, into the same workflow for the miniature's kinds of models.

Those are one Stable Diffusion 1.5 checkpoint and a language model in a folder of its own. What only another base needs is
taken out or replaced by its SD1.5 counterpart; everything that is LLMGA's stays as it is.
"""

from __future__ import annotations

import copy
from typing import Any

Prompt = dict[str, dict[str, Any]]

CHECKPOINT_SLOTS = {"UNETLoader": 0, "CLIPLoader": 1, "VAELoader": 2}
"""Output of Load Checkpoint that stands for a loader's only one."""
# Patches of flow models, and of editing models, between an input and an output of the same kind.
PASSED_THROUGH = {
    "ModelSamplingAuraFlow": "model",
    "CFGNorm": "model",
    "FluxKontextMultiReferenceLatentMethod": "conditioning",
    "FluxKontextImageScale": "image",
    "ReferenceLatent": "conditioning",
}
LATENTS = ("EmptySD3LatentImage", "EmptyFlux2LatentImage", "EmptyChromaRadianceLatentImage")
FLOW_NODES = ("LLMGA_FlowEdit",)
NO_NEGATIVE = ("ConditioningZeroOut",)
ENCODERS = ("TextEncodeQwenImageEditPlus",)


def on_small_models(prompt: Prompt, *, keep_unet_loaders: bool = False) -> Prompt:
    """A copy of an API prompt with other classes of loaders, latents and encoders where it is not for SD1.5.

    Args:
        keep_unet_loaders: leave *Load Diffusion Model* in, for a UNet of the same base, instead of the checkpoint's UNet.
    """
    small = copy.deepcopy(prompt)
    _load_language_models(small)
    for node_id, node in list(small.items()):
        if node["class_type"] in PASSED_THROUGH:
            _take_out(small, node_id, PASSED_THROUGH[node["class_type"]])
    _load_a_checkpoint(small, keep_unet_loaders)
    for node in small.values():
        _replace(small, node)
    return small


def _load_language_models(prompt: Prompt) -> None:
    """LLMGA Model Loader in place of LLMGA Host Language Model."""
    for node in prompt.values():
        if node["class_type"] == "LLMGA_HostLanguageModel":
            node.update(
                class_type="LLMGA_ModelLoader",
                inputs={"model": "", "precision": "auto", "lookup": 0, "family": "auto"},
                _meta={"title": "LLMGA Model Loader"},
            )


def _take_out(prompt: Prompt, node_id: str, name: str) -> None:
    source = prompt.pop(node_id)["inputs"][name]
    for inputs, key, _ in links(prompt, node_id):
        inputs[key] = source


def _load_a_checkpoint(prompt: Prompt, keep_unets: bool) -> None:
    """One Load Checkpoint for the UNet, CLIP and VAE that are loaded one by one; the one that is there, if there is one."""
    found = [node_id for node_id, node in prompt.items() if node["class_type"] == "CheckpointLoaderSimple"]
    # An edit of a flow model needs one, and its VAE; of the checkpoint it can have the text encoder.
    flow = any(node["class_type"] in FLOW_NODES for node in prompt.values())
    kept = {"UNETLoader", "VAELoader"} if flow else {"UNETLoader"} if keep_unets else set()
    separate = {
        node_id: CHECKPOINT_SLOTS[node["class_type"]]
        for node_id, node in prompt.items()
        if node["class_type"] in CHECKPOINT_SLOTS.keys() - kept
    }
    needed = [node_id for node_id in separate if links(prompt, node_id)]
    if needed and not found:
        replaced = "CLIPLoader" if flow else "VAELoader"
        checkpoint = next(node_id for node_id in needed if prompt[node_id]["class_type"] == replaced)
        prompt[checkpoint] = {
            "class_type": "CheckpointLoaderSimple",
            "inputs": {"ckpt_name": ""},
            "_meta": {"title": "Load Checkpoint"},
        }
        found = [checkpoint]
    moved = [
        (inputs, key, slot) for node_id, slot in separate.items() for inputs, key, _ in links(prompt, node_id)
    ]
    for inputs, key, slot in moved:
        inputs[key] = [found[0], slot]
    for node_id in separate.keys() - found:
        del prompt[node_id]


def _replace(prompt: Prompt, node: dict[str, Any]) -> None:
    inputs, kind = node["inputs"], node["class_type"]
    title = node["_meta"]["title"]
    if kind in LATENTS:
        node.update(class_type="EmptyLatentImage", _meta={"title": "Empty Latent Image"})
    elif kind in NO_NEGATIVE:
        clip = prompt[inputs["conditioning"][0]]["inputs"]["clip"]
        node.update(class_type="CLIPTextEncode", inputs={"clip": clip, "text": ""}, _meta={"title": title})
    elif kind in ENCODERS:
        # No words of an instruction but those of the picture as it is to be: the chat's prompt, not its whole reply.
        text = [inputs["prompt"][0], 1] if isinstance(inputs["prompt"], list) else inputs["prompt"]
        node.update(class_type="CLIPTextEncode", inputs={"clip": inputs["clip"], "text": text})
    elif kind == "CLIPTextEncode" and _is_reply(prompt, inputs["text"]):
        inputs["text"] = [inputs["text"][0], 1]  # of a chat that writes instructions, as above
    elif kind == "Flux2Scheduler":
        model = next(one["inputs"]["model"] for one in prompt.values() if one["class_type"] == "CFGGuider")
        inputs = {"model": model, "scheduler": "normal", "steps": inputs["steps"], "denoise": 1.0}
        node.update(class_type="BasicScheduler", inputs=inputs, _meta={"title": "BasicScheduler"})


def _is_reply(prompt: Prompt, value: Any) -> bool:
    return isinstance(value, list) and value[1] == 0 and prompt[value[0]]["class_type"] == "LLMGA_Chat"


def links(prompt: Prompt, node_id: str) -> list[tuple[dict[str, Any], str, int]]:
    """(inputs, name, slot) of every input that an output of the node goes to."""
    return [
        (node["inputs"], name, value[1])
        for node in prompt.values()
        for name, value in node["inputs"].items()
        if isinstance(value, list) and value and value[0] == node_id
    ]
