"""The groups in which the nodes of a template stand: models, conversation, painting, result, in the order of reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# In the order of reading: a group's name, its colour, and its nodes by title or class.
GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Models": (
        "#3f5159",
        (
            "LoadImage",
            "ImageBatch",
            "LLMGA_LoadHistory",
            "Load CLIP (chat)",
            "CLIPLoader",
            "LLMGA_HostLanguageModel",
            "LLMGA_ModelLoader",
            "LLMGA_Endpoint",
            "CheckpointLoaderSimple",
            "UNETLoader",
            "VAELoader",
            "ControlNetLoader",
            "LLMGA_GILLLoader",
            "LLMGA_PictureIndex",
            "LLMGA_UNetLoader",
            "The UNet",
            "LLMGA_DiffRIRLoader",
            "ModelSamplingAuraFlow",
            "CFGNorm",
        ),
    ),
    "Mask": (
        "#5a4a4a",
        ("LLMGA_PrepareMask", "ImagePadForOutpaint", "LLMGA_CropForPainting", "LLMGA_CropEachRegion"),
    ),
    "Conversation": (
        "#5c4a72",
        (
            "LLMGA Chat",
            "LLMGA Chat per Picture",
            "LLMGA Caption Folder",
            "What was captioned",
            "First turn",
            "Second turn",
            "Next turn",
            "LLMGA_GILLChat",
            "LLMGA_ScenePlan",
            "LLMGA_SceneAssess",
            "Which descriptions agree",
            "Readout",
            "Retrieved",
            "LLMGA Edit Instruction",
            "First edit",
            "Second edit",
            "LLMGA_SaveHistory",
            "Before",
            "After",
            "Instruction",
            "Prompt",
            "Prompts",
            "Page texts",
        ),
    ),
    "Conditioning": (
        "#4a6350",
        (
            "FluxKontextImageScale",
            "LLMGA_LongCLIPEncode",
            "What to change",
            "Negative prompt",
            "Nothing to avoid",
            "CLIPTextEncode",
            "ConditioningZeroOut",
            "FluxKontextMultiReferenceLatentMethod",
            "ReferenceLatent",
            "Tokens and chunks",
            "Canny",
            "Edges",
            "ControlNetApplyAdvanced",
        ),
    ),
    "Edit": (
        "#4a5f63",
        (
            "LLMGA_Invert",
            "LLMGA_PromptToPromptOptions",
            "LLMGA_AttentionMaps",
            "Where the words are",
            "Inversion Edit",
            "First Inversion Edit",
            "After the first edit",
            "Second Inversion Edit",
            "What was kept",
            "LLMGA_FlowEdit",
            "How it was edited",
        ),
    ),
    "Painting": (
        "#6b5a3e",
        (
            "InpaintModelConditioning",
            "VAEEncode",
            "EmptyLatentImage",
            "EmptySD3LatentImage",
            "EmptyChromaRadianceLatentImage",
            "EmptyFlux2LatentImage",
            "RandomNoise",
            "KSamplerSelect",
            "Flux2Scheduler",
            "BasicScheduler",
            "CFGGuider",
            "KSampler",
            "SamplerCustomAdvanced",
            "VAEDecode",
            "LLMGA_SceneSynthesis",
            "How it was painted",
        ),
    ),
    "Check": (
        "#63564a",
        ("LLMGA Judge", "What is wrong", "Second Judge", "ComfySwitchNode"),
    ),
    "Restore": (
        "#4b5a3e",
        (
            "LLMGA_DiffRIRRestore",
            "What was restored",
            "LLMGA_StitchPainting",
            "LLMGA_StitchRegions",
            "What was painted",
            "LLMGA_KeepTheRest",
            "What was kept",
            "What was changed",
            "LLMGA_SeamReport",
            "Seam",
            "Difference",
            "Where the seam is",
        ),
    ),
    "Result": (
        "#3e5a4b",
        (
            "SaveImage",
            "First picture",
            "Changed picture",
            "The first picture",
            "Both",
            "LLMGA_ScenePreview",
            "Boxes, masks and attention",
        ),
    ),
}
NOTE = "MarkdownNote"


@dataclass(frozen=True)
class Group:
    """Nodes that stand together: a name, a colour, and node ids in their order."""

    name: str
    colour: str
    nodes: tuple[str, ...]


def grouped(nodes: Sequence[dict[str, Any]]) -> list[Group]:
    """The groups that a workflow has, numbered.

    Args:
        nodes: each with "id", "type" and "title".

    Raises:
        ValueError: a node belongs to no group.
    """
    groups, placed = [], {str(node["id"]) for node in nodes if node["type"] == NOTE}
    for name, (colour, keys) in GROUPS.items():
        members = [
            str(node["id"])
            for key in keys
            for node in nodes
            if key in (node["title"], node["type"]) and str(node["id"]) not in placed
        ]
        members = list(dict.fromkeys(members))
        placed.update(members)
        if members:
            groups.append(Group(f"{len(groups) + 1} {name}", colour, tuple(members)))
    lost = [node["title"] for node in nodes if str(node["id"]) not in placed]
    if lost:
        raise ValueError(f"GROUPS has no place for {', '.join(lost)}")
    return groups
