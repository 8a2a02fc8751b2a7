"""Runs a workflow's API prompt on ``llmga`` and diffusers alone, where no ComfyUI is to be had.

Each function below and in the modules ``embedded_…`` stands for one node class of the shipped workflows; the graph itself
is the same file that ComfyUI runs. It is a way to see the story anywhere, not a second ComfyUI: other node classes are an
error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from llmga.chat import Conversation, Picture, Sampling, read_transcript, respond
from llmga.images import from_pil, paint_hole_black, read_picture, to_pil
from llmga.text import encode_sd15

from .embedded_models import MODEL_NODES
from .embedded_pictures import PICTURE_NODES
from .embedded_scenes import SCENE_NODES
from .embedded_step import Conditioned, Many, OnEvent, Prompt, Result, Step, Workspace, run_each


class EmbeddedRunner:
    """Runs API prompts; results of ``SaveImage`` and ``PreviewAny`` come back by node id."""

    name = "the embedded engine (llmga on diffusers)"

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._cache: dict[str, Any] = {}

    def run(self, prompt: Prompt, on_event: OnEvent) -> dict[str, dict[str, Any]]:
        """Execute every node once, in the order of their links.

        Returns:
            node id -> {"images": [path, …]} or {"text": [str, …]}, as ComfyUI's history has them.
        """
        results: dict[str, tuple[Any, ...]] = {}
        shown: dict[str, dict[str, Any]] = {}

        def value_of(node_id: str) -> tuple[Any, ...]:
            if node_id not in results:
                node = prompt[node_id]
                if node["class_type"] not in NODES:
                    raise ValueError(f"the embedded engine does not know the node {node['class_type']}")
                inputs = {
                    name: value_of(value[0])[value[1]] if isinstance(value, list) else value
                    for name, value in node["inputs"].items()
                }
                title = node["_meta"]["title"]
                on_event(title, "")
                step = Step(self.workspace, self._cache, lambda text: on_event(title, text))
                results[node_id], ui = run_each(NODES[node["class_type"]], step, inputs)
                if ui:
                    shown[node_id] = ui
            return results[node_id]

        for node_id in prompt:
            value_of(node_id)
        return shown


def model_loader(step: Step, model: str, precision: str, lookup: int = 0, family: str = "auto") -> Result:
    """The family of the miniature stands in its folder, so that the widget says nothing here."""
    from llmga.chat.folders import load_local_engine

    if model not in step.cache:
        step.cache[model] = load_local_engine(step.workspace.models / "LLM" / model, dtype=torch.float32)
    step.cache[model].lookup = lookup
    return (step.cache[model],), {}


def endpoint(step: Step, endpoint: str) -> Result:
    from llmga.chat.endpoints import find_endpoint
    from llmga.chat.engines.endpoint import EndpointEngine

    return (EndpointEngine(find_endpoint(step.workspace.endpoints, endpoint)),), {}


def chat(
    step: Step,
    engine,
    instruction,
    task,
    seed,
    temperature,
    top_p,
    max_new_tokens,
    policy,
    image=None,
    mask=None,
    history=None,
    language="en",
    pages=4,
    transcript="",
    thinking=False,
    thought_tokens=2048,
) -> Result:
    history = history or Conversation()
    turns = read_transcript(transcript, not_here)
    if image is not None and mask is not None and mask.any():
        image = paint_hole_black(image, mask)
    pictures = () if image is None else tuple(Picture.from_pil(picture) for picture in to_pil(image))
    reply = respond(
        engine,
        replace(history, turns=history.turns + turns),
        task=task,
        instruction=instruction,
        pictures=pictures,
        sampling=Sampling(
            seed, temperature, top_p, max_new_tokens, thinking=thinking, thought_tokens=thought_tokens
        ),
        policy=policy,
        on_text=step.on_text,
        language=language,
        pages=pages,
    )
    outputs = (reply.text, reply.prompt, Many(reply.prompts), reply.has_prompt, reply.conversation)
    outputs += (Many(reply.passages), reply.thought)
    return outputs, {"text": [reply.text]}


def not_here(sha256: str) -> Picture:
    raise ValueError(f"'transcript' shows the picture {sha256[:12]}…, which only a ComfyUI keeps")


def save_history(step: Step, history: Conversation, name: str) -> Result:
    (step.workspace.outputs / f"{name}.json").write_text(history.to_json(), encoding="utf-8")
    return (history,), {"text": [f"saved {len(history.turns)} turns as {name}"]}


def load_history(step: Step, name: str) -> Result:
    text = (step.workspace.outputs / f"{name}.json").read_text(encoding="utf-8")
    return (Conversation.from_json(text),), {}


def load_checkpoint(step: Step, ckpt_name: str) -> Result:
    from miniworld.models.painter import load_pipeline

    if ckpt_name not in step.cache:
        step.cache[ckpt_name] = load_pipeline(step.workspace.models / "checkpoints" / ckpt_name)
    pipeline = step.cache[ckpt_name]
    return (pipeline.unet, pipeline, pipeline.vae), {}


def load_diffusion_model(step: Step, unet_name: str, weight_dtype: str) -> Result:
    from miniworld.models.painter import load_unet

    if unet_name not in step.cache:
        path = step.workspace.models / "diffusion_models" / unet_name
        step.cache[unet_name] = load_unet(path.parent)
    return (step.cache[unet_name],), {}


def load_image(step: Step, image: str) -> Result:
    path = step.workspace.inputs / image
    with Image.open(path) as opened:
        alpha = opened.getchannel("A") if "A" in opened.getbands() else Image.new("L", opened.size, 255)
        mask = 1 - torch.from_numpy(np.asarray(alpha, dtype=np.float32))[None] / 255
    return (from_pil([read_picture(path)]), mask), {}


def empty_latent(step: Step, width: int, height: int, batch_size: int) -> Result:
    return (torch.zeros(batch_size, 4, height // 8, width // 8),), {}


@torch.inference_mode()
def sample(
    step: Step, model, positive, negative, latent_image, seed, steps, cfg, sampler_name, scheduler, denoise
) -> Result:
    """Euler's method on ComfyUI's "normal" schedule, which is what the workflows ask for; noise from the CPU.

    A conditioning is a tensor, or ``Conditioned`` with more than text.
    """
    from diffusers import EulerDiscreteScheduler

    from miniworld.models.architecture import SCHEDULER

    betas = {name: SCHEDULER[name] for name in ("beta_start", "beta_end", "beta_schedule")}
    euler = EulerDiscreteScheduler(**betas, timestep_spacing="linspace")
    euler.set_timesteps(steps)
    noise = torch.randn(latent_image.shape, generator=torch.Generator().manual_seed(seed))
    x = noise * (1 + euler.sigmas[0] ** 2).sqrt()
    wanted, other = (
        one if isinstance(one, Conditioned) else Conditioned(one) for one in (positive, negative)
    )
    context = torch.cat([wanted.context, other.context])
    beside = x[:, :0] if wanted.beside is None else wanted.beside
    for t in euler.timesteps:
        seen = torch.cat([euler.scale_model_input(x, t), beside], 1).repeat(2, 1, 1, 1)
        added = {} if wanted.control is None else wanted.control.residuals(range(len(x)), seen, t, context)
        eps_cond, eps_uncond = model(seen, t, context, **added).sample.chunk(2)
        x = euler.step(eps_uncond + cfg * (eps_cond - eps_uncond), t, x, return_dict=False)[0]
    return (x,), {}


@torch.inference_mode()
def decode(step: Step, samples: torch.Tensor, vae: Any) -> Result:
    pixels = vae.decode(samples / vae.config.scaling_factor).sample
    return ((pixels / 2 + 0.5).clamp(0, 1).movedim(1, -1),), {}


def save_image(step: Step, images: torch.Tensor, filename_prefix: str) -> Result:
    paths = []
    name = filename_prefix.rpartition("/")[2]
    taken = len(list(step.workspace.outputs.glob(f"{name}_[0-9][0-9].png")))
    for index, picture in enumerate(to_pil(images), taken):
        path = step.workspace.outputs / f"{name}_{index:02d}.png"
        picture.save(path)
        paths.append(path)
    return (), {"images": paths}


def preview(step: Step, source: Any) -> Result:
    return (source,), {"text": [str(source)]}


def long_clip_encode(
    step: Step,
    clip,
    text,
    negative_text,
    layout,
    weights,
    break_at,
    min_chunks,
    max_chunks,
    empty_negative,
    match_chunks,
    break_word=False,
) -> Result:
    """The SD1.5 layouts, both prompts at one length: what ``match_chunks`` asks for."""
    positive, negative = encode_sd15(
        clip.tokenizer,
        clip.text_encoder,
        [text, negative_text],
        layout=layout,
        weights=weights,
        break_at=break_at,
        min_chunks=min_chunks,
        max_chunks=max_chunks,
        break_word=break_word,
    )
    return (positive[None], negative[None], f"{len(positive)} rows of context ({layout})"), {}


NODES: dict[str, Callable[..., Result]] = {
    "LLMGA_ModelLoader": model_loader,
    "LLMGA_Endpoint": endpoint,
    "LLMGA_Chat": chat,
    "LLMGA_SaveHistory": save_history,
    "LLMGA_LoadHistory": load_history,
    "LLMGA_LongCLIPEncode": long_clip_encode,
    "CheckpointLoaderSimple": load_checkpoint,
    "UNETLoader": load_diffusion_model,
    "LoadImage": load_image,
    "EmptyLatentImage": empty_latent,
    "KSampler": sample,
    "VAEDecode": decode,
    "SaveImage": save_image,
    "PreviewAny": preview,
}
NODES.update(PICTURE_NODES)
NODES.update(MODEL_NODES)
NODES.update(SCENE_NODES)
