"""Painters: what turns prompts into pictures, a diffusers pipeline, ComfyUI servers, or a function of your own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..images import from_pil, to_pil
from ..text import CLIPPromptEncoder, EncodedPrompt, longest
from ..train.example_order import generator
from .named import named_function
from .paint_jobs import JobPainter, PainterConfig, PaintJob

_CHUNK = 75  # tokens of a chunk, without those that begin and end it


def load_painter(config: PainterConfig) -> JobPainter:
    """The painter that a configuration names.

    Raises:
        ValueError: the kind is unknown or lacks what it needs.
        FileNotFoundError: a folder does not exist.
    """
    if config.kind == "diffusers":
        return DiffusersPainter(config, load_diffusers_pipeline(config))
    if config.kind == "scene":
        from .scene_painter import ScenePainter

        return ScenePainter(config, load_diffusers_pipeline(config))
    if config.kind == "comfyui":
        from .comfyui_servers import ComfyUIPainter

        return ComfyUIPainter(Path(config.workflow), config.servers)
    if ":" not in config.kind:
        raise ValueError(
            f"'kind' of a painter must be diffusers, scene, comfyui or package.module:function, got {config.kind!r}"
        )
    return named_function(config.kind, "'kind' of a painter")(config)


def load_diffusers_pipeline(config: PainterConfig) -> Any:
    """The diffusers pipeline of a folder, with another UNet where the configuration names one.

    Raises:
        FileNotFoundError: a folder does not exist.
        ValueError: the dtype is unknown.
    """
    from diffusers import DiffusionPipeline, UNet2DConditionModel

    for name in ("base", "unet"):
        path = getattr(config, name)
        if (path or name == "base") and not os.path.isdir(path):
            raise FileNotFoundError(f"the painter's {name!r} is {path!r}, which is not a folder")
    dtype = getattr(torch, config.dtype, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"'dtype' of a painter must be float32, float16 or bfloat16, got {config.dtype!r}")
    more: dict[str, Any] = {}
    if config.unet:
        more["unet"] = UNet2DConditionModel.from_pretrained(config.unet, torch_dtype=dtype)
    return DiffusionPipeline.from_pretrained(
        config.base, torch_dtype=dtype, use_safetensors=True, local_files_only=True, **more
    )


class DiffusersPainter:
    """Stable Diffusion 1.5 or XL as a diffusers pipeline, prompts encoded as LLMGA does.

    Jobs with a mask are filled, which needs an inpainting pipeline; jobs with a picture alone are edited by inversion;
    all others are painted from their prompts.
    """

    def __init__(self, config: PainterConfig, pipeline: Any) -> None:
        pipeline.set_progress_bar_config(disable=True)
        self.config, self.pipeline = config, pipeline.to(config.device)
        second = getattr(pipeline, "tokenizer_2", None) is not None
        networks = (
            (pipeline.tokenizer, pipeline.tokenizer_2) if second else (pipeline.tokenizer,),
            (pipeline.text_encoder, pipeline.text_encoder_2) if second else (pipeline.text_encoder,),
        )
        self.encoder = CLIPPromptEncoder(*networks, config.layout, config.max_chunks)
        # Text states are joined in one layout alone, and so must the negative prompt beside them be.
        self._beside_states = CLIPPromptEncoder(*networks, "llmga", config.max_chunks)

    def paint(self, jobs: Sequence[PaintJob]) -> list[Image.Image]:
        """See ``JobPainter``.

        Raises:
            ValueError: a hole is to be filled by a pipeline without inpainting.
        """
        made: dict[int, Image.Image] = {}
        order = sorted(range(len(jobs)), key=lambda i: (self._group(jobs[i]), i))
        for _, numbers in groupby(order, key=lambda i: self._group(jobs[i])):
            group = list(numbers)
            made |= dict(zip(group, self._painted([jobs[i] for i in group]), strict=True))
        return [made[i] for i in range(len(jobs))]

    def _group(self, job: PaintJob) -> tuple[Any, ...]:
        """Jobs of which this is equal are painted in one batch; an edit is alone."""
        given = job.states is not None
        length = len(job.states) if job.states is not None else longest(self.encoder.plan(job.prompt))
        alone = job.key if job.picture is not None and job.mask is None else ""
        return job.mask is not None, alone, job.width, job.height, given, length

    def _painted(self, jobs: list[PaintJob]) -> list[Image.Image]:
        first = jobs[0]
        if first.picture is not None and first.mask is None:
            return [self._edited(first)]
        inputs: dict[str, Any] = {
            **(self._states(jobs) if first.states is not None else self._prompts([j.prompt for j in jobs])),
            "width": first.width,
            "height": first.height,
            "num_inference_steps": self.config.steps,
            "guidance_scale": self.config.guidance,
            "generator": [generator(job.seed, job.key) for job in jobs],
        }
        if first.mask is not None:
            if self.pipeline.unet.config.in_channels != 9:
                raise ValueError(
                    "filling holes needs an inpainting pipeline, whose UNet has 9 input channels"
                )
            inputs |= {"image": [job.picture for job in jobs], "mask_image": [job.mask for job in jobs]}
        return list(self.pipeline(**inputs).images)

    def _prompts(self, texts: Sequence[str]) -> dict[str, Any]:
        prompts = self.encoder.encode_all([self.encoder.plan(text) for text in texts])
        chunks = longest(*(self.encoder.plan(text) for text in texts))
        negative = self.encoder.encode_negative(self.config.negative, chunks, prompts)
        given: dict[str, Any] = {
            "prompt_embeds": prompts.states,
            "negative_prompt_embeds": negative.states.expand_as(prompts.states),
        }
        if prompts.pooled is not None and negative.pooled is not None:
            given["pooled_prompt_embeds"] = prompts.pooled
            given["negative_pooled_prompt_embeds"] = negative.pooled.expand_as(prompts.pooled)
        return given

    def _states(self, jobs: Sequence[PaintJob]) -> dict[str, Any]:
        states = torch.stack([job.states for job in jobs if job.states is not None])
        chunks, rest = divmod(states.shape[1] - 2, _CHUNK)
        if self.encoder.is_sdxl or rest or chunks < 1:
            raise ValueError(
                f"text states must be 75 n + 2 rows for Stable Diffusion 1.5, got {states.shape[1]} rows for "
                f"{'SDXL, which wants a pooled vector beside them' if self.encoder.is_sdxl else 'it'}"
            )
        states = states.to(self.config.device, self.pipeline.unet.dtype)
        negative = self._beside_states.encode_negative(
            self.config.negative, chunks, EncodedPrompt(states[:1])
        )
        return {"prompt_embeds": states, "negative_prompt_embeds": negative.states.expand_as(states)}

    def _edited(self, job: PaintJob) -> Image.Image:
        from ..edit import EditSession, EditSettings

        if job.picture is None:
            raise ValueError(f"the edit {job.key!r} has no picture")
        session = EditSession.from_pipeline(self.pipeline, self.config.layout, self.config.max_chunks)
        settings = EditSettings(cfg=self.config.guidance)
        image = from_pil([job.picture.resize((job.width, job.height), Image.Resampling.LANCZOS)])
        edited, _ = session.edit_image(
            image.to(self.config.device),
            job.source,
            job.prompt,
            settings,
            steps=self.config.steps,
            negative_prompt=self.config.negative,
        )
        return to_pil(edited)[0]
