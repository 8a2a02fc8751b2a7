"""The tiny GILL that was recorded with the official code: its folders, its weights, and what it said."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from llmga.gill import GILL, load_decision, load_language, load_parts, load_vision
from tools import ROOT

from . import gill_inputs

FIXTURES = ROOT / "tests" / "unit" / "fixtures"


def recorder() -> Any:
    """The module with the pictures, captions and folders of the recording."""
    return gill_inputs


@cache
def recorded() -> dict[str, torch.Tensor]:
    return load_file(FIXTURES / "gill_official.safetensors")


@cache
def said() -> dict[str, Any]:
    return json.loads((FIXTURES / "gill_official.json").read_text(encoding="utf-8"))


def inside(prefix: str) -> dict[str, torch.Tensor]:
    """The recorded tensors whose names begin with ``prefix`` and a dot, without it."""
    return {k.removeprefix(f"{prefix}."): v for k, v in recorded().items() if k.startswith(f"{prefix}.")}


def write_gill(root: Path) -> dict[str, Path]:
    """The recorded model's files as they are published: both folders and both ``.pth.tar``."""
    language, vision = recorder().write_folders(root, recorded())
    parts, decision = root / "pretrained_ckpt.pth.tar", root / "decision_model.pth.tar"
    torch.save({"state_dict": inside("gill")}, parts)
    torch.save({"state_dict": inside("decision")}, decision)
    return {"language": language, "vision": vision, "parts": parts, "decision": decision}


def tiny_gill(root: Path) -> GILL:
    """The recorded model, from its files."""
    files = write_gill(root)
    return GILL(
        load_language(files["language"]),
        load_vision(files["vision"]),
        load_parts(files["parts"]),
        load_decision(files["decision"]),
    )
