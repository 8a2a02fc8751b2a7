"""A scene that the tests of whole scenes share: its plan, and settings of a few steps for a tiny UNet."""

from __future__ import annotations

from llmga.diffusion import DiffusersDenoiser
from llmga.scene import GuidanceSettings, SceneSettings
from llmga.scene.plan import SceneBox, SceneObject, ScenePlan
from llmga.text import CLIPPromptEncoder, clip_tokenizer

from .scene_cases import SHARPNESS, SMALL
from .tiny_clip import clip_l
from .tiny_unet import tiny_unet

SIZE = (16, 16)
GUIDED = GuidanceSettings(passes=(1, 1), of_steps=4)
SETTINGS = SceneSettings(steps=4, cfg=3.0, alone=GUIDED, together=GUIDED, margin=1)
PLAN = ScenePlan(
    (
        SceneObject("a red fox", SceneBox(0.05, 0.45, 0.4, 0.5), ("leaping, its tail up",)),
        SceneObject("an old owl", SceneBox(0.55, 0.1, 0.35, 0.35), ("asleep",)),
    ),
    "a snowy forest at dawn.",
    "summer",
)


def tiny_encoder() -> CLIPPromptEncoder:
    return CLIPPromptEncoder((clip_tokenizer(),), (clip_l(),), "llmga_lpw")


def tiny_denoiser() -> DiffusersDenoiser:
    return DiffusersDenoiser(tiny_unet(SMALL, SHARPNESS))
