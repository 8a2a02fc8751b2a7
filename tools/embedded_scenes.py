"""The embedded engine's nodes of planned scenes: each is one or two calls of ``llmga``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.nn.functional import interpolate

from llmga.diffusion.denoiser import CELL
from llmga.scene import ScenePlan, SceneSession, SceneSettings

from .embedded_pictures import Inverted
from .embedded_step import Result, Step


def scene_plan(step: Step, plan: str, separate: bool = False, **_: Any) -> Result:
    """The plan as the box editor writes it; the miniature has no language model that plans."""
    if separate or not plan:
        raise ValueError("the embedded engine reads a plan that stands in the node, and separates no boxes")
    return (ScenePlan.from_json(plan),), {}


def scene_synthesis(
    step: Step,
    model,
    clip,
    vae,
    scene,
    seed,
    steps,
    width,
    height,
    layout,
    inversion: Inverted | None = None,
    masks: Any = None,
    **scales: Any,
) -> Result:
    if masks is not None:
        raise ValueError("the embedded engine paints scenes without masks of their objects")
    size, background = (height // CELL, width // CELL), None
    if inversion is not None:
        background = inversion.inversion.trajectory
        (*_, rows, columns), steps = background.latents.shape, background.steps
        size = (rows, columns)
    session = SceneSession.from_pipeline(clip, layout=layout)
    image, painted = session.paint_image(
        scene,
        size,
        settings=SceneSettings.guided_alike(steps=steps, **scales),
        seed=seed,
        background=background,
    )
    pixels = (image.shape[1], image.shape[2])
    found, changed = (interpolate(one, pixels)[:, 0] for one in (painted.masks[:, None], painted.region))
    return (image, painted.latent, found, changed, painted, "\n".join(painted.notes)), {}


def scene_preview(step: Step, **_: Any) -> Result:
    """Shown on ComfyUI alone: the report has no picture of it."""
    return (None,), {}


SCENE_NODES: dict[str, Callable[..., Result]] = {
    "LLMGA_ScenePlan": scene_plan,
    "LLMGA_SceneSynthesis": scene_synthesis,
    "LLMGA_ScenePreview": scene_preview,
}
