"""LLMGA Scene Plan, Assess and Preview: a sentence becomes objects in boxes, and a picture of them."""

from __future__ import annotations

from typing import Any, get_args

from comfy_api.latest import io

from ..llmga.chat import Conversation, Picture, Sampling
from ..llmga.chat.engines.base import MAX_NEW_TOKENS
from ..llmga.images import to_pil
from ..llmga.scene import (
    AssessRule,
    ParsedPlan,
    ScenePlan,
    assess,
    clip_states,
    draw_plan,
    from_bounding_boxes,
    long_prompt,
    parse_plan,
    plan_scene,
    separated,
    to_bounding_boxes,
    to_elements,
)
from ..llmga.scene.plan import PLAN_FORMAT
from . import check, host
from .chat_inputs import require_engine, temperature_input
from .host_live_text import live_text
from .inversion import shown
from .prompt_encoder import HostPromptEncoder, clip_encoders
from .scene_synthesis import PaintedSceneValue
from .types import (
    BoundingBoxes,
    Elements,
    Engine,
    History,
    PaintedScene,
    Scene,
    seed_input,
)

RULES = get_args(AssessRule)
MOST_PIXELS = 8192


class ScenePlanner(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_ScenePlan",
            display_name="LLMGA Scene Plan",
            category="LLMGA/scene",
            description="A language model plans a picture: which objects, in which boxes, how each looks, the "
            "background, and what to avoid. Drag the boxes in the node to change the plan, or write it by hand "
            "without any language model.",
            search_aliases=[
                "layout",
                "boxes",
                "bounding box",
                "RFNet",
                "regional prompt",
                "composition",
                "LLM",
                "GLIGEN",
            ],
            inputs=[
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="The picture in a sentence, such as 'a snail overtaking a racing car'. Needed where the "
                    "language model plans; up to 200,000 characters.",
                ),
                io.String.Input(
                    "plan",
                    multiline=True,
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="The plan as JSON; the box editor writes it. Empty: the language model in 'engine' plans. "
                    "Not empty: this plan is used and no model is asked. Elements of Create Bounding Boxes are read too.",
                ),
                seed_input("Same inputs and seed, same plan. It also picks how the request is worded."),
                temperature_input(),
                io.Int.Input(
                    "max_new_tokens",
                    default=1024,
                    optional=True,
                    min=1,
                    max=MAX_NEW_TOKENS,
                    tooltip=f"The reply ends after this many tokens at the latest, 1 to {MAX_NEW_TOKENS}; a scene of four "
                    "objects takes about 500.",
                ),
                io.Boolean.Input(
                    "separate",
                    default=False,
                    optional=True,
                    tooltip="Moves boxes apart that overlap, and cuts them where there is no room.",
                ),
                _pixels("width"),
                _pixels("height"),
                Engine.Input(
                    "engine",
                    optional=True,
                    tooltip="The language model: LLMGA Model Loader, LLMGA Endpoint or LLMGA Host Language Model. Not "
                    "needed with a plan or boxes.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="A photograph that the objects are planned into; the first of a batch. Needs a language "
                    "model that sees pictures.",
                ),
                BoundingBoxes.Input(
                    "boxes",
                    optional=True,
                    extra_dict={
                        "forceInput": True
                    },  # the page would make a widget of it that always has a box
                    tooltip="Boxes of ComfyUI's Create Bounding Boxes, of width × height, instead of a plan; what "
                    "stands before the first comma of a box's words names its object.",
                ),
                History.Input(
                    "history",
                    optional=True,
                    tooltip="The history of an earlier plan: the prompt then says what to change about it.",
                ),
            ],
            outputs=[
                Scene.Output(display_name="scene", tooltip="For LLMGA Scene Assess, Synthesis and Preview."),
                io.String.Output(
                    display_name="prompt", tooltip="The whole plan as one prompt, for a model without boxes."
                ),
                io.String.Output(display_name="negative", tooltip="What to avoid."),
                BoundingBoxes.Output(
                    display_name="bboxes",
                    tooltip="ComfyUI's boxes in pixels, one for each object, with its words.",
                ),
                Elements.Output(
                    display_name="elements",
                    tooltip="Elements as ComfyUI's Create Bounding Boxes makes them, for Build JSON Prompt.",
                ),
                History.Output(
                    display_name="history", tooltip="The conversation with this plan, to change it."
                ),
                io.String.Output(
                    display_name="report", tooltip="How the plan was read, and what was clamped or left out."
                ),
            ],
        )

    @classmethod
    @host.guarded
    def execute(
        cls, prompt, plan, seed, temperature, max_new_tokens, separate, width, height, engine=None, image=None,
        boxes=None, history=None,
    ) -> io.NodeOutput:  # fmt: skip
        for name, value in (("width", width), ("height", height)):
            check.integer(name, value, 64, MOST_PIXELS)
        written = check.optional_text("plan", plan).strip()
        history = Conversation() if history is None else history
        check.instance("history", history, Conversation, "LLMGA Scene Plan")
        if written:
            with check.about("plan"):
                parsed = _written(written)
        elif boxes is not None:
            with check.about("boxes"):
                parsed = from_bounding_boxes(boxes, width, height)
        else:
            sampling = Sampling(seed, temperature, max_new_tokens=max_new_tokens)
            parsed, history = _planned(engine, check.text("prompt", prompt), sampling, image, history)
        scene, notes = parsed.plan, list(parsed.notes)
        if written and boxes is not None:
            notes.append("boxes is not used, because plan is not empty")
        if check.flag("separate", separate):
            scene, cut = separated(scene)
            notes += cut
        report = "\n".join([f"{len(scene.objects)} objects", *notes])
        ui = {"text": [report], "llmga_scene": [scene.to_json()]}
        bboxes = to_bounding_boxes(scene, width, height)
        return io.NodeOutput(
            scene, long_prompt(scene), scene.negative, bboxes, to_elements(scene), history, report, ui=ui
        )


class SceneAssess(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_SceneAssess",
            display_name="LLMGA Scene Assess",
            category="LLMGA/scene",
            description="Chooses, among the three descriptions of each object, those that agree, so that a lion is "
            "not asleep while it flees. With a table of what was compared.",
            search_aliases=["SAA", "semantic alignment", "RFNet", "descriptions", "consistency"],
            inputs=[
                Scene.Input("scene", tooltip="From LLMGA Scene Plan."),
                io.Clip.Input(
                    "clip", tooltip="The text encoder of the model that paints: SD1.5's or SDXL's."
                ),
                io.Combo.Input(
                    "rule",
                    options=list(RULES),
                    default="joint",
                    optional=True,
                    tooltip="joint: the set that agrees best across the objects. rfnet: as the released code, for "
                    "each object the two of its descriptions that are most alike. all: every description.",
                ),
            ],
            outputs=[
                Scene.Output(
                    display_name="scene", tooltip="The scene with what was chosen, for Scene Synthesis."
                ),
                io.String.Output(display_name="report", tooltip="What was compared, and what was taken."),
            ],
        )

    @classmethod
    @host.guarded
    def execute(cls, scene, clip, rule) -> io.NodeOutput:
        check.instance("scene", scene, ScenePlan, "LLMGA Scene Plan")
        check.choice("rule", rule, RULES)
        encoders = clip_encoders(clip)
        if not encoders:
            raise ValueError(
                "clip must be the text encoder of SD1.5 or SDXL; connect the CLIP of such a checkpoint"
            )
        encode = clip_states(HostPromptEncoder(clip, encoders), lambda context: context[0][0])
        found = assess(scene, encode, rule)
        return io.NodeOutput(found.plan, found.report(), ui={"text": [found.report()]})


class ScenePreview(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_ScenePreview",
            display_name="LLMGA Scene Preview",
            category="LLMGA/scene",
            description="Shows a scene: the boxes of the plan and, once it is painted, the mask of each object and "
            "where the model looked for its word.",
            search_aliases=["boxes", "layout preview", "masks", "attention", "heatmap"],
            inputs=[
                _pixels("width"),
                _pixels("height"),
                Scene.Input(
                    "scene",
                    optional=True,
                    tooltip="From LLMGA Scene Plan or Assess. Connect this or painted.",
                ),
                PaintedScene.Input(
                    "painted",
                    optional=True,
                    tooltip="From LLMGA Scene Synthesis: shows masks and attention too.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="A picture under the boxes, such as the painted one; the first of a batch.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="preview",
                    tooltip="The boxes; with painted also the masks, and then one map of attention for each object.",
                )
            ],
        )

    @classmethod
    @host.guarded
    def execute(cls, width, height, scene=None, painted=None, image=None) -> io.NodeOutput:
        for name, value in (("width", width), ("height", height)):
            check.integer(name, value, 64, MOST_PIXELS)
        if (scene is None) == (painted is None):
            raise ValueError(f"connect either scene or painted, got {'neither' if scene is None else 'both'}")
        picture = None if image is None else check.image("image", image)[:1, ..., :3].expand(-1, -1, -1, 3)
        if scene is not None:
            check.instance("scene", scene, ScenePlan, "LLMGA Scene Plan")
            pictures = draw_plan(scene, width, height, picture)
            return io.NodeOutput(pictures, ui=shown(pictures, f"{len(scene.objects)} objects"))
        value = check.instance("painted", painted, PaintedSceneValue, "LLMGA Scene Synthesis")
        pictures = value.pictures(width, height, picture)
        return io.NodeOutput(pictures, ui=shown(pictures, value.legend()))


def _pixels(name: str) -> io.Int.Input:
    return io.Int.Input(
        name,
        default=512,
        optional=True,
        min=64,
        max=MOST_PIXELS,
        step=8,
        tooltip=f"Pixels of the picture's {name}, 64 to {MOST_PIXELS}: what bboxes are counted in.",
    )


def _written(text: str) -> ParsedPlan:
    """The plan of the widget: as the editor writes it, or anything that a reply may be."""
    if f'"{PLAN_FORMAT}"' in text:
        return ParsedPlan(ScenePlan.from_json(text))
    return parse_plan(text)


def _planned(
    engine: Any, prompt: str, sampling: Sampling, image: Any, history: Conversation
) -> tuple[ParsedPlan, Conversation]:
    if engine is None:
        raise ValueError(
            "there is nothing to plan with: connect a language model to 'engine', write a 'plan', or connect 'boxes'"
        )
    require_engine(engine)
    if not prompt.strip():
        raise ValueError("prompt is empty: say in a sentence what the picture shall show, or write a 'plan'")
    pictures = [] if image is None else to_pil(check.image("image", image)[:1])
    planned = plan_scene(
        engine,
        prompt,
        sampling=sampling,
        on_text=live_text(engine),
        conversation=history if history.turns else None,
        picture=Picture.from_pil(pictures[0]) if pictures else None,
    )
    again = ["the first reply could not be read, and the model was asked again"] * planned.asked_again
    return ParsedPlan(planned.plan, (*again, *planned.notes)), planned.conversation


NODES = [ScenePlanner, SceneAssess, ScenePreview]
