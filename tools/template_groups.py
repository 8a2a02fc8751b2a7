"""The groups in which the nodes of a template stand: models, conversation, painting, result, in the order of reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# In the order of reading: a group's name, its colour, and its nodes by title or class.
GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Models": (
        "#6f93a8",
        (
            "LoadImage",
            "Batch Images",
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
        "#b08484",
        ("LLMGA_PrepareMask", "ImagePadForOutpaint", "LLMGA_CropForPainting", "LLMGA_CropEachRegion"),
    ),
    "Conversation": (
        "#9a82c4",
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
        "#7aa886",
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
        "#6aa3ab",
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
        "#b8935a",
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
        "#b59a80",
        ("LLMGA Judge", "What is wrong", "Second Judge", "ComfySwitchNode"),
    ),
    "Restore": (
        "#93ab6c",
        (
            "LLMGA_DiffRIRRestore",
            "What was restored",
            "LLMGA_StitchPainting",
            "LLMGA_StitchRegions",
            "What was painted",
            "LLMGA_KeepTheRest",
            "How the rest was kept",
            "What was changed",
            "LLMGA_SeamReport",
            "Seam",
            "Difference",
            "Where the seam is",
        ),
    ),
    "Result": (
        "#68ad8a",
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
# Titles of nodes without a link between them, of which the first is read first.
READ_FIRST = (
    ("Before", "After"),
    ("Prompt", "Page texts"),
    ("First picture", "Changed picture"),
    ("The first picture", "Save Image"),
)


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


def reading_order(nodes: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """The ids of pairs in ``READ_FIRST`` that a workflow has; ``nodes`` as in ``grouped``."""
    ids = {node["title"]: str(node["id"]) for node in nodes}
    return [(ids[first], ids[then]) for first, then in READ_FIRST if first in ids and then in ids]
