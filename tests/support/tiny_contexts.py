"""Stories, dialogues, GILL and LLMGA Embedding small enough for a test, in folders that the paper's presets name."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from llmga.evaluate.command import config_class
from llmga.gill import GILLParts, GILLSizes, save_parts
from llmga.gill.embedding import EmbeddingHead, EmbeddingSizes, save_embedding_head
from llmga.train.config import read_config
from miniworld.models.random_language import HIDDEN, write_tiny_llava
from support import gill_inputs
from support.tiny_clip import WIDTH_L
from support.tiny_evaluation import SIDE, picture, write_coco, write_pipeline
from support.tiny_gill import recorded

NETWORK = "support.tiny_evaluation:colours:weights/net"
DISTANCE = "support.tiny_evaluation:differences:weights/net"


def write_vist(folder: Path, stories: int = 3) -> Path:
    """Stories as VIST publishes them: one line for each picture, not in order, and one story without its last picture."""
    images = folder / "images" / "val"
    images.mkdir(parents=True)
    lines = []
    for story in range(stories + 1):
        for place in (4, 0, 2, 1, 3):
            name = f"{100 + 10 * story + place}"
            if (story, place) != (stories, 4):
                picture(story + place, SIDE + 8 * (place % 2), SIDE).save(images / f"{name}.jpg")
            line = {
                "story_id": str(story),
                "photo_flickr_id": name,
                "worker_arranged_photo_order": place,
                "original_text": f"part {place} of story {story} .",
            }
            lines.append([line])
    return _json(folder / "sis" / "val.story-in-sequence.json", {"annotations": lines})


def write_visdial(folder: Path, dialogs: int = 3) -> Path:
    """Dialogues of ten rounds as VisDial 1.0 publishes them, questions without their marks."""
    images = folder / "VisualDialog_val2018"
    images.mkdir(parents=True)
    found = []
    for i in range(dialogs):
        picture(i).save(images / f"VisualDialog_val2018_{i:012d}.jpg")
        rounds = [{"question": (i + k) % 3, "answer": (i * k) % 2} for k in range(10)]
        found.append({"image_id": i, "caption": "not shown", "dialog": rounds})
    questions = ["is it a square", "is it red", "what is behind it"]
    data = {"questions": questions, "answers": ["yes", "a grey ground"], "dialogs": found}
    return _json(folder / "visdial_1.0_val.json", {"data": data})


def write_models(folder: Path) -> None:
    """Stable Diffusion, LLMGA with its embedding head, OPT, CLIP and GILL, with random weights."""
    write_pipeline(folder / "stable-diffusion-v1-5")
    shutil.copytree(folder / "stable-diffusion-v1-5" / "unet", folder / "llmga-sd15-t2i-v2" / "unet")
    write_tiny_llava(folder / "llmga-7b")
    opt, clip = gill_inputs.write_folders(folder / "published", recorded())
    opt.rename(folder / "opt-6.7b")
    clip.rename(folder / "clip-vit-large-patch14")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        embedding = EmbeddingHead(EmbeddingSizes(HIDDEN, WIDTH_L, 4, 3, 16, 1))
        sizes = GILLSizes(
            gill_inputs.HIDDEN, gill_inputs.VISION, retrieval=20, text=WIDTH_L, head_width=16, head_layers=1
        )
        parts = GILLParts(sizes)
    save_embedding_head(embedding, folder / "llmga-7b-embedding")
    save_parts(parts, folder / "gill" / "gill.safetensors")


@lru_cache
def published_folder(folder: Path) -> Path:
    """``data``, ``models`` and ``weights`` as the paper's presets name them, made once."""
    coco = write_coco(folder / "data" / "coco")
    (coco / "val").rename(coco / "val2017")
    (coco / "annotations").mkdir()
    (coco / "captions.json").rename(coco / "annotations" / "captions_val2017.json")
    write_vist(folder / "data" / "vist")
    write_visdial(folder / "data" / "visdial")
    rows = [
        "id,prompt,group,subcategory",
        "1,a red square,realistic,literal",
        "2,a blue fish,creative,imaginative",
    ]
    (folder / "data" / "rfbench").mkdir()
    (folder / "data" / "rfbench" / "prompts.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    write_models(folder / "models")
    (folder / "weights").mkdir()
    (folder / "weights" / "net").write_text("weights", encoding="utf-8")
    return folder


def full_size(task: str, *overrides: str, chat: dict[str, Any] | None = None) -> Any:
    """The paper's preset of a task; its networks are plain ones, its pictures small and painted in two steps, on the CPU.

    Args:
        chat: in the place of every chat engine that the preset names.
    """
    config = read_config(
        config_class(task), f"paper-{task}", [f"size={SIDE}", "device=cpu", *overrides], "llmga.evaluate"
    )

    def small(row: Any) -> Any:
        painter = replace(row.painter, device="cpu", dtype="float32", steps=2, batch=2)
        embedder = replace(row.embedder, device="cpu", dtype="float32")
        if embedder.kind == "gill":
            embedder = replace(embedder, head="models/gill/gill.safetensors")
        asks = bool(row.chat.engine) and chat is not None
        engine = replace(row.chat, **chat) if asks and chat else row.chat
        return replace(row, painter=painter, embedder=embedder, chat=engine)

    return replace(config, rows=tuple(small(row) for row in config.rows))


def _json(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    return path
