"""SceneSettings: how a scene is painted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ..diffusion.schedule import part_of
from .attention import PhraseAttention, SceneLayers
from .guidance import GuidanceSettings
from .losses import LossWeights
from .prompts import ALONE_NEGATIVE

SCENE_STEPS = 50
MOST_SCENE_STEPS = 999

AlonePlace = Literal["middle", "box"]
"""Where an object is painted alone: in the middle, from where it is moved into its box, as RFNet does; or in its box at
once, for prompts that say where it stands."""


@dataclass(frozen=True)
class SceneSettings:
    """How a scene is painted.

    Args:
        steps: of each object and of the scene; with a photograph, as many as its inversion has.
        cfg: classifier-free guidance.
        replaced: for this part of the steps, objects are what they were alone; 0 to 1.
        threshold: the level of an object's word map from which a cell is the object's; 0 to 1.
        margin: cells around the objects that may change too in a photograph, for contours and shadows.
        layers: see ``SceneLayers``.
        alone, together: guidance of the objects and of the scene.
        alone_negative: added to the negative prompt of each object.
        alone_at: see ``AlonePlace``.
        phrase: see ``PhraseAttention``.

    Raises:
        ValueError: a value is out of range.

    Source: leo81005/Reality-and-Fantasy fa3eb4b; ``replaced`` is its README's frozen_step_ratio.
    """

    steps: int = SCENE_STEPS
    cfg: float = 7.5
    replaced: float = 0.5
    threshold: float = 0.35
    margin: int = 2
    layers: SceneLayers = "published"
    alone: GuidanceSettings = field(default_factory=GuidanceSettings)
    together: GuidanceSettings = field(default_factory=GuidanceSettings)
    alone_negative: str = ALONE_NEGATIVE
    alone_at: AlonePlace = "middle"
    phrase: PhraseAttention = "tokens"

    def __post_init__(self) -> None:
        if (
            isinstance(self.steps, bool)
            or not isinstance(self.steps, int)
            or not 1 <= self.steps <= MOST_SCENE_STEPS
        ):
            raise ValueError(f"steps must be a whole number from 1 to {MOST_SCENE_STEPS}, got {self.steps!r}")
        choices = (("layers", SceneLayers), ("alone_at", AlonePlace), ("phrase", PhraseAttention))
        for name, allowed in choices:
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(
                    f"{name} must be one of {', '.join(get_args(allowed))}; got {getattr(self, name)!r}"
                )
        for name, low, high in (("cfg", 1, 100), ("replaced", 0, 1), ("threshold", 0, 1), ("margin", 0, 64)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be from {low} to {high}, got {getattr(self, name)!r}")

    @classmethod
    def guided_alike(
        cls, guidance: float, suppression: float, keep_attention: float, **others: Any
    ) -> SceneSettings:
        """Settings by which objects and scene are guided alike.

        Args:
            guidance: ``GuidanceSettings.scale``.
            suppression, keep_attention: the weights ``suppression`` and ``guidance`` of the losses.
            others: other arguments of the class.

        Raises:
            ValueError: a value is out of range.
        """
        weights = LossWeights(suppression=suppression, guidance=keep_attention)
        guided = GuidanceSettings(scale=guidance, weights=weights)
        return cls(alone=guided, together=guided, **others)

    @property
    def replaced_steps(self) -> int:
        return part_of(self.steps, self.replaced)
