"""Scenes, after RFNet: a language model plans objects and boxes, and a training-free synthesis paints the plan."""

from .assess import Assessment, AssessRule, assess, clip_states
from .cache import ObjectCache
from .draw import draw_plan, object_colour
from .elements import from_bounding_boxes, to_bounding_boxes, to_elements
from .guidance import GuidanceSettings
from .losses import LossWeights
from .parse import ParsedPlan, ScenePlanError, parse_plan
from .plan import SceneBox, SceneObject, ScenePlan, separated
from .prompts import long_prompt
from .request import PLAN_SCHEMA, PlannedScene, plan_scene
from .session import Scene, SceneSession
from .settings import SceneSettings

__all__ = [
    "PLAN_SCHEMA",
    "AssessRule",
    "Assessment",
    "GuidanceSettings",
    "LossWeights",
    "ObjectCache",
    "ParsedPlan",
    "PlannedScene",
    "Scene",
    "SceneBox",
    "SceneObject",
    "ScenePlan",
    "ScenePlanError",
    "SceneSession",
    "SceneSettings",
    "assess",
    "clip_states",
    "draw_plan",
    "from_bounding_boxes",
    "long_prompt",
    "object_colour",
    "parse_plan",
    "plan_scene",
    "separated",
    "to_bounding_boxes",
    "to_elements",
]
