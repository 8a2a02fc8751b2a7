"""The shipped ControlNet workflow on the miniature, whose chat writes the prompt and whose ControlNet holds the layout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from llmga.data.edges import canny
from llmga.evaluate import edges_found
from tools import ROOT, miniature
from tools.comfy_runner import ComfyRunner, comfy_runner
from tools.miniature_values import CONTROLNET

WORKFLOW = ROOT / "workflows" / "api" / "controlnet.json"


@pytest.fixture(scope="module")
def models() -> Path:
    try:
        return miniature.find()
    except FileNotFoundError as error:
        pytest.skip(f"THE TRAINED MINIATURE IS MISSING: {error}")


@pytest.fixture(scope="module")
def runner(comfyui: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyRunner]:
    with comfy_runner(models, "http://127.0.0.1:9/v1", tmp_path_factory.mktemp("pictures")) as running:
        yield running


def painted(runner: ComfyRunner, strength: float) -> tuple[list[torch.Tensor], list[str]]:
    """The pictures of both UNets, (1, 3, H, W) in 0 .. 1, and what the previews of texts show."""
    prompt: dict[str, Any] = miniature.with_stage2(miniature.load_prompt(WORKFLOW))
    (apply,) = (node for node in prompt.values() if node["class_type"] == "ControlNetApplyAdvanced")
    apply["inputs"]["strength"] = strength
    shown = runner.run(prompt, lambda title, text: None)
    files = [path for node in shown.values() for path in node["images"]]
    pictures = [torch.from_numpy(np.array(Image.open(path).convert("RGB"))) for path in files]
    texts = [
        "\n".join(shown[key]["text"]) for key, node in prompt.items() if node["class_type"] == "PreviewAny"
    ]
    return [picture.permute(2, 0, 1)[None] / 255 for picture in pictures], texts


def test_the_chat_writes_and_the_edges_are_drawn_by(runner: ComfyRunner) -> None:
    steered, texts = painted(runner, 1.0)
    free, again = painted(runner, 0.0)
    side = miniature.picture_size()
    assert texts == again and all(texts)  # the same prompt, which the chat made of the picture
    assert len(steered) == len(free) == 2
    for one, other in zip(steered, free, strict=True):
        assert one.shape == other.shape == (1, 3, side, side)
        assert one.std() > 0.05 and (one - other).abs().max() > 20 / 255
    widgets = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    (edges,) = (node["inputs"] for node in widgets.values() if node["class_type"] == "Canny")
    limits = edges["low_threshold"], edges["high_threshold"]
    example = Image.open(runner.server.base / "input" / "example.png").convert("RGB")
    shown = torch.from_numpy(np.array(example.resize((side, side)))).permute(2, 0, 1)[None] / 255
    wanted = canny(shown, *limits)
    kept, nothing = (
        [edges_found(canny(one, *limits), wanted)[0] for one in set_] for set_ in (steered, free)
    )
    assert all(a > b for a, b in zip(kept, nothing, strict=True))


def test_the_file_of_the_shipped_graph_is_the_miniatures() -> None:
    prompt = miniature.load_prompt(WORKFLOW)
    (loader,) = (node for node in prompt.values() if node["class_type"] == "ControlNetLoader")
    assert loader["inputs"]["control_net_name"] == CONTROLNET
    original = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    shipped, small = ({node["class_type"] for node in one.values()} for one in (original, prompt))
    # A language model of its own folder stands for one that ComfyUI runs.
    assert shipped - small == {"LLMGA_HostLanguageModel", "CLIPLoader"} and "LLMGA_ModelLoader" in small
