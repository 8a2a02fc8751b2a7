"""What the trainings of the tests import on their way, all at once: the fork server does it for its processes.

Diffusers and transformers import a class's module when the class is named first; torch imports its compiler when the first
optimizer is made.
"""
# ruff: noqa: F401

from __future__ import annotations

import diffusers.guiders
import torch._dynamo
import torch.distributed
from accelerate import Accelerator
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from PIL import JpegImagePlugin, PngImagePlugin
from transformers import CLIPTextModel, CLIPTokenizer

import llmga.evaluate.tasks.text_to_image
import support.tiny_evaluation
import support.tiny_restoration
import support.tiny_training

# It is an extra's, so it stands last: what is not there ends the list.
from torchmetrics.image.inception import InceptionScore  # isort: skip
