"""What the shipped workflows say and name when they run on the miniature: its files, sizes and settings, and words it knows.

Templates, demo and tests take them from here, so that there is one set; pictures are of the miniature's own size.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

CHECKPOINT = "llmga-mini.safetensors"
LANGUAGE_MODEL = "llmga-mini"
RESTORER = "llmga-mini-x1.safetensors"
CONTROLNET = "llmga-mini-canny.safetensors"
GILL = "llmga-mini.safetensors"
GILL_DECISION = "llmga-mini-decision.safetensors"
ENDPOINT = "miniature"
STAGE2 = str(
    Path("llmga-mini-t2i", "unet", "diffusion_pytorch_model.safetensors")
)  # a name as Load Diffusion Model has it
HISTORY = "paper shapes"
EXAMPLE = "example.png"
NARROW = "example_narrow.png"
PAINTED = "example_painted.png"
TWO_HOLES = "example_two_holes.png"
CAPTIONED = "my_set"
"""The folder that template 31 captions."""

# 28 steps fall on whole timesteps.
VALUES: dict[tuple[str, str], Any] = {
    ("CheckpointLoaderSimple", "ckpt_name"): CHECKPOINT,
    ("UNETLoader", "unet_name"): STAGE2,
    ("ControlNetLoader", "control_net_name"): CONTROLNET,
    ("LLMGA_ModelLoader", "model"): LANGUAGE_MODEL,
    ("LLMGA_Endpoint", "endpoint"): ENDPOINT,
    ("LLMGA_Chat", "policy"): "whole_reply",
    ("LLMGA_ChatPerPicture", "policy"): "whole_reply",
    ("LLMGA_EditInstruction", "policy"): "whole_reply",
    ("LLMGA_LongCLIPEncode", "negative_text"): "",
    ("LLMGA_GILLLoader", "language"): LANGUAGE_MODEL,
    ("LLMGA_GILLLoader", "gill"): GILL,
    ("LLMGA_GILLLoader", "vision"): "the language model's own",
    ("LLMGA_GILLLoader", "decision"): GILL_DECISION,
    ("LLMGA_PictureIndex", "folder"): CAPTIONED,
    ("LLMGA_SaveHistory", "name"): HISTORY,
    ("LLMGA_LoadHistory", "name"): HISTORY,
    ("LLMGA_UNetLoader", "unet"): "llmga-mini-inpainting/",
    ("LLMGA_DiffRIRLoader", "restorer_file"): RESTORER,
    ("LLMGA_PrepareMask", "source"): "given",
    ("LLMGA_PrepareMask", "grow"): 0,
    ("KSampler", "steps"): 28,
    ("KSampler", "cfg"): 4.0,
    ("KSampler", "sampler_name"): "euler",
    ("KSampler", "scheduler"): "normal",
    ("CLIPTextEncode", "text"): "",
    ("BasicScheduler", "steps"): 28,
    ("CFGGuider", "cfg"): 4.0,
    ("LLMGA_Invert", "steps"): 20,
    ("LLMGA_InversionEdit", "steps"): 20,
    ("LLMGA_InversionEdit", "cfg"): 4.0,
    ("LLMGA_InversionEdit", "cross_replace"): 0.2,
    ("LLMGA_InversionEdit", "self_replace"): 0.2,
    ("LLMGA_SceneSynthesis", "steps"): 28,
    ("LLMGA_SceneSynthesis", "cfg"): 4.0,
    # Like python -m miniworld check-scenes, where it is said why; that guides an object alone more.
    ("LLMGA_SceneSynthesis", "guidance"): 2.0,
    ("LLMGA_SceneSynthesis", "replaced"): 0.8,
    ("LLMGA_SceneSynthesis", "alone_at"): "box",
    ("LLMGA_SceneSynthesis", "alone_negative"): "",
    ("LLMGA_SceneSynthesis", "layers"): "up",
    ("LLMGA_SceneSynthesis", "phrase"): "sum",
}
SIDES = {
    ("LLMGA_CropForPainting", "width"): 1.0,
    ("LLMGA_CropForPainting", "height"): 1.0,
    ("LLMGA_CropEachRegion", "width"): 1.0,
    ("LLMGA_CropEachRegion", "height"): 1.0,
    ("ImagePadForOutpaint", "left"): 0.25,
    ("ImagePadForOutpaint", "right"): 0.25,
    ("EmptyLatentImage", "width"): 1.0,
    ("EmptyLatentImage", "height"): 1.0,
    ("LLMGA_ScenePlan", "width"): 1.0,
    ("LLMGA_ScenePlan", "height"): 1.0,
    ("LLMGA_SceneSynthesis", "width"): 1.0,
    ("LLMGA_SceneSynthesis", "height"): 1.0,
    ("LLMGA_ScenePreview", "width"): 1.0,
    ("LLMGA_ScenePreview", "height"): 1.0,
}
"""Lengths in pixels, as shares of a picture's side."""
WORDS = (
    "**Words that this world knows:** *circle, square, triangle, star, heart, diamond, cross, ring*; *red, orange, yellow, "
    "green, blue, purple, white, black*; *small, medium, large*; *plain, striped, dotted*; on *grass, sand, snow, water, a "
    "brick wall, wood, the sky, the night sky*; *in the centre, at the left, at the top right* …"
)
_STAR = "a red star in the centre and a ring at the top left on snow"
_HEART = "a large yellow heart in the centre and a circle at the bottom right on wood"
_LONG_HEART = (
    "A simple picture of two objects on wood. A large yellow plain heart can be seen in the centre. The heart stands "
    "to the left of the circle. The light is warm and comes from the left, so all shadows fall to the right. The "
    "background is smooth old wood, long boards with fine lines and thin dark gaps between them. The style is simple "
    "and calm, like clear shapes of paper laid on a table. Each shape has a thin, clean edge, and nothing is cut off. A "
    "large plain green circle stands at the bottom right."
)
TALK: tuple[tuple[Literal["user", "assistant"], str], ...] = (
    ("user", f"Please generate a detailed image from this idea: {_HEART}"),
    ("assistant", f"<gen_image> {_LONG_HEART} </gen_image>"),
)
_PLANNED = {
    "format": "llmga-scene",
    "version": 1,
    "prompt": "",
    "objects": [
        {
            "name": "a large striped red star",
            "box": [0.08, 0.3, 0.38, 0.4],
            "descriptions": ["at the left on snow"],
        },
        {
            "name": "a large blue heart",
            "box": [0.56, 0.3, 0.36, 0.4],
            "descriptions": ["at the right on snow"],
        },
    ],
    "background": "on snow",
    "negative": "",
}
_PUT_IN = {
    **_PLANNED,
    "objects": [
        {
            "name": "a large red star",
            "box": [0.36, 0.69, 0.28, 0.28],
            "descriptions": ["at the bottom on a brick wall"],
        }
    ],
    "background": "on a brick wall",
}
_JUDGED = {"request": _STAR, "asking": "describe first"}
_TRANSCRIPT = [
    {
        "role": "user",
        "text": TALK[0][1],
        "images": [],
        "task": "refine",
        "instruction": _HEART,
    },
    {"role": "assistant", "text": TALK[1][1], "images": []},
]


def values_of_size(side: int) -> dict[tuple[str, str], Any]:
    """``VALUES`` and ``SIDES`` for pictures of ``side`` × ``side`` pixels, by class of node and input."""
    return VALUES | {place: round(share * side) for place, share in SIDES.items()}


def _say(instruction: str, task: str, **more: Any) -> dict[str, Any]:
    return {"instruction": instruction, "task": task, **more}


# Inputs by workflow and node title: instruction and task of a chat in words of the world, and what else differs there.
REQUESTS: dict[str, dict[str, dict[str, Any]]] = {
    "pixeldit": {
        "LLMGA Chat": _say("a green square at the right and a star at the left on snow", "refine", seed=7)
    },
    "z_image": {
        "KSampler": {"seed": 4},
        "LLMGA Chat": _say(
            "a large blue ring at the right and a star at the left on grass", "refine", seed=4
        ),
    },
    "talk_and_change": {
        "First turn": _say(_HEART, "refine", seed=4),
        "Second turn": _say("Put everything on snow.", "change", seed=2),
    },
    "krea_2": {
        "LLMGA Chat": _say(
            "a green star at the top left and a circle at the bottom right in the night sky", "refine", seed=2
        )
    },
    "qwen_image": {
        "LLMGA Chat": _say(
            "a purple triangle at the top and a circle at the bottom on sand", "refine", seed=4
        )
    },
    "qwen_image_edit": {
        "LLMGA Chat": _say("Put everything on grass.", "edit"),
        "KSampler": {"denoise": 0.8},
    },
    "qwen_image_edit_keep": {
        "LLMGA Chat": _say("Paint the heart yellow.", "edit", seed=1),
        "KSampler": {"denoise": 0.7},
    },
    "klein_edit": {
        "LLMGA Chat": _say("Paint the heart yellow.", "edit", seed=1),
        "BasicScheduler": {"denoise": 0.7},
    },
    # A seed of which the base UNet paints nothing beside: of detailed prompts it does in one of two pictures.
    "chat_with_host_model": {"LLMGA Chat": _say(_STAR, "refine", seed=12), "KSampler": {"seed": 2}},
    "text_to_image_sdxl": {
        "LLMGA Chat": _say(
            "an orange cross at the right and a square at the left on water", "refine", seed=6
        ),
        "KSampler": {"seed": 5},  # of which the base UNet paints nothing beside
    },
    "similar_image": {"LLMGA Chat": _say("", "similar"), "KSampler": {"seed": 1}},
    "similar_images": {"LLMGA Chat per Picture": _say("", "similar"), "KSampler": {"seed": 1}},
    "chat_many_turns": {
        "LLMGA Chat": _say("Paint the circle red.", "change", seed=2, transcript=json.dumps(_TRANSCRIPT)),
        "KSampler": {"seed": 5},
    },
    "chat_with_endpoint": {
        "First turn": _say(_HEART, "refine", seed=4),
        "Second turn": _say("Put everything on snow.", "change", seed=2),
        "KSampler": {"seed": 8},
    },
    "continue_conversation": {
        "Next turn": _say("Change the background to grass.", "change", seed=4),
        "KSampler": {"seed": 8},
    },
    "picture_book": {"LLMGA Chat": _say("a red star on grass", "story", seed=3)},
    "instruction_edit": {"LLMGA Edit Instruction": {"instruction": "Put everything on snow."}},
    "instruction_edit_multi_turn": {
        "First edit": {"instruction": "Paint the heart green.", "seed": 1},
        "Second edit": {"instruction": "Put everything on snow."},
    },
    "edit_with_mask": {},
    # The edges hold the layout, so the words should not ask for another.
    "controlnet": {"LLMGA Chat": _say("Put everything on snow.", "edit")},
    "inpaint": {"LLMGA Chat": _say("a large red star at the left", "inpaint"), "KSampler": {"seed": 3}},
    "inpaint_regions": {
        "Load Image": {"image": TWO_HOLES},
        "Crop Each Region": {
            "instructions": "a large red star at the left\na large green square at the bottom"
        },
        "KSampler": {"seed": 3},
    },
    "inpaint_sdxl": {"LLMGA Chat": _say("a large purple ring at the left", "inpaint")},
    "outpaint": {
        "LLMGA Chat": _say("a yellow circle at the left", "outpaint", seed=4),
        "Load Image": {"image": NARROW},
    },
    "restore_only": {"Painted": {"image": PAINTED}},
    "text_to_image": {"LLMGA Chat": _say(_STAR, "refine", seed=12), "KSampler": {"seed": 2}},
    "text_to_image_as_released": {
        "LLMGA Chat": _say(_STAR, "refine", seed=12),
        "KSampler": {"seed": 4, "steps": 50, "sampler_name": "ipndm", "scheduler": "ddim_uniform"},
    },
    "scene": {},
    # A seed of which the heart is one.
    "scene_by_hand": {
        "LLMGA Scene Plan": {"plan": json.dumps(_PLANNED, indent=1)},
        "LLMGA Scene Synthesis": {"seed": 1},
    },
    "scene_into_photo": {
        "Invert": {
            "source_prompt": "a small striped blue square at the right, a medium striped blue square at the top right and a "
            "large dotted orange heart at the left, on a brick wall"
        },
        "LLMGA Scene Plan": {"plan": json.dumps(_PUT_IN, indent=1)},
    },
    "gill_story": {
        "First picture": {"message": "on snow, a large red star at the left"},
        "Next picture": {"message": "on snow, a large red triangle at the right"},
    },
    "gill_retrieve_or_generate": {
        "LLMGA GILL Chat": {
            "message": "on wood, a large orange heart at the left",
            "picture": "always",
            "transcript": "plain",
        }
    },
    "language_or_embedding": {
        "LLMGA Chat": _say(_STAR, "refine", seed=12),
        "LLMGA GILL Chat": {"message": _STAR},
        "Paint the words": {"seed": 2},
        "Paint the embedding": {"seed": 2},
    },
    "paint_until_right": {
        "LLMGA Chat": _say(_STAR, "refine", seed=12),
        "LLMGA Judge": _JUDGED | {"questions": "Is there a red star?\nIs there a ring?"},
        "Second Judge": _JUDGED,
    },
    "flow_edit": {"LLMGA Edit Instruction": {"instruction": "Put everything on snow."}},
    "caption_folder": {},
}
