"""GILL's loader, and the index of pictures that it retrieves from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io

from . import check, host, host_gill, host_memory
from .loaders import NO_MODEL, PRECISIONS

if TYPE_CHECKING:
    from ..llmga.gill.index import PictureIndex as Index

GILLType = io.Custom("LLMGA_GILL")
"""A ``llmga.gill.GILL`` under the host's memory management."""
IndexType = io.Custom("LLMGA_PICTURE_INDEX")
"""A ``HostIndex``."""

NO_GILL = "(no file in models/gill)"
NONE = "none"
OWN = "the language model's own"


@dataclass(frozen=True)
class HostIndex:
    """An index and the folder of its pictures."""

    index: Index
    pictures: Path


class GILLLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        gills = host.names_on_disk(host_gill.gill_files)
        return io.Schema(
            node_id="LLMGA_GILLLoader",
            display_name="LLMGA GILL Loader",
            category="LLMGA/gill",
            description="Loads GILL: a frozen language model that answers with words, with pictures to generate and with "
            "pictures to retrieve, and decides which. The language model is the one that GILL was trained with: OPT-6.7B "
            "for the published file. Nothing is downloaded.",
            search_aliases=["GILL", "multimodal LLM", "image retrieval", "text and image generation"],
            inputs=[
                io.Combo.Input(
                    "language",
                    options=host.names_on_disk(host.language_models) or [NO_MODEL],
                    tooltip="The frozen language model, a folder below models/LLM. A chat template is not needed.",
                ),
                io.Combo.Input(
                    "gill",
                    options=gills or [NO_GILL],
                    tooltip="GILL's trained part in models/gill: pretrained_ckpt.pth.tar as published, or safetensors.",
                ),
                io.Combo.Input(
                    "vision",
                    options=[NONE, OWN, *host.names_on_disk(host_gill.vision_models)],
                    default=NONE,
                    optional=True,
                    tooltip="The CLIP vision model, in models/clip_vision: CLIP ViT-L/14 for the published file. none: GILL "
                    "sees no pictures. The language model's own: where its folder is a LLaVA, and GILL was trained with it.",
                ),
                io.Combo.Input(
                    "decision",
                    options=[NONE, *gills],
                    default=NONE,
                    optional=True,
                    tooltip="The decision model in models/gill, decision_model.pth.tar as published. none: every picture is "
                    "generated.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip="The type of the language model's weights in memory. auto: bfloat16 or float16 on "
                    "a GPU, float32 "
                    "on the CPU.",
                ),
            ],
            outputs=[
                GILLType.Output(
                    display_name="gill_model", tooltip="For LLMGA GILL Chat and LLMGA Picture Index."
                ),
                io.String.Output(display_name="readout", tooltip="What was loaded, and its sizes."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, language, gill, vision=NONE, decision=NONE, precision="auto") -> str:
        try:
            files, towers = host_gill.gill_files(), host_gill.vision_models()
            chosen = (
                (host.language_models(), language),
                (files, gill),
                (towers, vision),
                (files, decision),
            )
            return " ".join(host.state_of_choice(*each) for each in chosen)
        except (OSError, RuntimeError) as error:
            return type(error).__name__

    @classmethod
    @host.guarded
    def execute(cls, language, gill, vision=NONE, decision=NONE, precision="auto") -> io.NodeOutput:
        from ..llmga.gill import GILL, load_decision, load_language, load_parts, load_vision

        folders, files, towers = host.language_models(), host_gill.gill_files(), host_gill.vision_models()
        host.require_reachable(host.GILLS, "gill", gill)
        check.choice("gill", gill, list(files))
        check.choice("vision", vision, [NONE, OWN, *towers])
        check.choice("decision", decision, [NONE, *files])
        dtype = (
            PRECISIONS[check.choice("precision", precision, list(PRECISIONS))] or host.language_model_dtype()
        )
        parts = load_parts(files[gill])
        towers[OWN] = folders[check.choice("language", language, list(folders))]
        wrong = "vision: choose a file of models/clip_vision, or none" if vision == OWN else "vision"
        with check.about(wrong):
            tower = None if vision == NONE else load_vision(towers[vision], dtype)
        made = GILL(
            load_language(folders[language], dtype),
            tower,
            parts,
            None if decision == NONE else load_decision(files[decision]),
        )
        nets = [
            made.language.net,
            parts,
            *([made.vision.net] if made.vision else ()),
            *([made.decision] if made.decision else ()),
        ]
        made.place = host_memory.managed(torch.nn.ModuleList(nets))
        sizes = parts.sizes
        readout = (
            f"{made.language.name}, {str(made.language.dtype).removeprefix('torch.')}; head {sizes.head}, text states "
            f"{sizes.text_rows}×{sizes.text}; vision {made.vision.name if made.vision else NONE}; decision model "
            f"{'yes' if made.decision else 'no: every picture is generated'}"
        )
        host.logger.info("GILL: %s", readout)
        return io.NodeOutput(made, readout, ui={"text": [readout]})


class PictureIndex(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_PictureIndex",
            display_name="LLMGA Picture Index",
            category="LLMGA/gill",
            description="Makes a folder of your pictures searchable for GILL. Each picture is looked at once; "
            "later only new "
            "and changed ones are. A build that is cancelled goes on where it was.",
            search_aliases=["image search", "retrieval", "embeddings", "GILL", "image database"],
            inputs=[
                GILLType.Input("gill", tooltip="From LLMGA GILL Loader, with a vision model."),
                io.String.Input(
                    "folder",
                    default="",
                    optional=True,
                    tooltip="A folder below ComfyUI's input folder, with all folders in it; empty is the "
                    "input folder itself.",
                ),
                io.String.Input(
                    "name",
                    default="pictures",
                    optional=True,
                    tooltip="What the index is called, in user/__llmga/indices. Use another one for another folder or GILL.",
                ),
            ],
            outputs=[
                IndexType.Output(display_name="index", tooltip="For LLMGA GILL Chat."),
                io.String.Output(
                    display_name="readout",
                    tooltip="How many pictures are in it, were added, unchanged and removed, and which could not be read.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, gill=None, folder="", name="pictures") -> str:
        from ..llmga.gill.index_building import list_pictures

        try:  # None where it comes by a link: it may be any folder there
            found = list(list_pictures(host_gill.input_folder("" if folder is None else folder)))
        except (OSError, ValueError, TypeError) as error:
            return type(error).__name__
        return hashlib.sha256(repr(found).encode()).hexdigest()

    @classmethod
    @host.guarded
    def execute(cls, gill, folder, name) -> io.NodeOutput:
        from ..llmga.gill import GILL
        from ..llmga.gill.index import PictureIndex as Index
        from ..llmga.gill.index_building import build_index

        check.instance("gill", gill, GILL, "LLMGA GILL Loader")
        pictures = host_gill.input_folder(check.optional_text("folder", folder, limit=1000))
        place = host.private_directory() / "indices" / check.file_name("name", name)
        report = build_index(place, pictures, gill, host.progress())
        index = Index.open(place)
        index.use_faiss()
        readout = f"{len(index):,} pictures in {name}: {report}"
        host.logger.info("LLMGA Picture Index: %s", readout)
        return io.NodeOutput(HostIndex(index, pictures), readout, ui={"text": [readout]})


NODES = [GILLLoader, PictureIndex]
