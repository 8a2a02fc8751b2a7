"""Checkpoint folders as LLMGA's own classes wrote them; the weights are made anew by their names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from .official_chat import weight

FIXTURES = Path(__file__).parents[1] / "unit/fixtures"
SENTENCEPIECE = ("vicuna_v1", "llava_llama_2", "mistral_instruct", "phi_3")


def record(family: str) -> dict[str, Any]:
    """What was recorded of a family; see ``fixtures/llava_official.py``."""
    return json.loads((FIXTURES / f"llava/{family}.json").read_text(encoding="utf-8"))


def write_folder(folder: Path, family: str) -> Path:
    """Write the checkpoint that the official classes saved; returns ``folder``."""
    recorded = record(family)
    (folder / "vision_tower").mkdir(parents=True)
    for name, content in recorded["files"].items():
        (folder / name).write_text(content, encoding="utf-8")
    if family in SENTENCEPIECE:
        shutil.copyfile(FIXTURES / "sentencepiece_cut.model", folder / "tokenizer.model")
    if family == "gemma":
        shutil.copyfile(FIXTURES / "llava/gemma.model", folder / "tokenizer.model")
    weights = {name: weight(name, shape, recorded["quiet"]) for name, shape in recorded["shapes"].items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
