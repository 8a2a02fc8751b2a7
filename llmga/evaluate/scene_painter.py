"""The painter ``scene``: RFNet's synthesis of planned scenes on a diffusers pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image

from ..images import to_pil
from ..scene import GuidanceSettings, LossWeights, ScenePlan, SceneSession, SceneSettings, assess, clip_states
from ..train.example_order import derive
from .paint_jobs import PainterConfig, PaintJob, SceneParts

_CELL = 8  # pixels of a side of a cell of the latent


def scene_settings(parts: SceneParts, steps: int, cfg: float) -> SceneSettings:
    """RFNet's settings of a synthesis with some of its parts."""
    weights = LossWeights() if parts.suppression else replace(LossWeights(), suppression=0.0)
    guided = GuidanceSettings(scale=GuidanceSettings().scale if parts.guidance else 0.0, weights=weights)
    return SceneSettings(steps, cfg, alone=guided, together=guided)


class ScenePainter:
    """Paints jobs whose prompts are plans of scenes as JSON, one after the other.

    Args:
        settings: gives those of a synthesis with some of its parts, such as a model needs that is not RFNet's.
    """

    def __init__(
        self,
        config: PainterConfig,
        pipeline: Any,
        settings: Callable[[SceneParts, int, float], SceneSettings] = scene_settings,
    ) -> None:
        self.config = config
        self._settings = settings
        pipeline = pipeline.to(config.device)
        self.session = SceneSession.from_pipeline(
            pipeline, layout=config.layout, max_chunks=config.max_chunks
        )
        self._states = clip_states(self.session.encoder, lambda context: context.states)

    def paint(self, jobs: Sequence[PaintJob]) -> list[Image.Image]:
        """See ``JobPainter``.

        Raises:
            ValueError: a prompt is not the plan of a scene, or there are text states in its place.
        """
        return [self._painted(job) for job in jobs]

    def _painted(self, job: PaintJob) -> Image.Image:
        if job.states is not None:
            raise ValueError("a planned scene is painted from words; leave 'embedder' out of its row")
        plan = ScenePlan.from_json(job.prompt)
        if self.config.negative:
            plan = replace(plan, negative=", ".join(filter(None, [plan.negative, self.config.negative])))
        parts = self.config.scene or SceneParts()
        if parts.assess and plan.objects:
            plan = assess(plan, self._states, "rfnet").plan
        size = (job.height // _CELL, job.width // _CELL)
        settings = self._settings(parts, self.config.steps, self.config.guidance)
        image, _ = self.session.paint_image(plan, size, settings=settings, seed=derive(job.seed, job.key))
        return to_pil(image.to(torch.float32))[0]
