"""LLMGA Model Loader fetches a published model on a real ComfyUI: only where the owner allows it, and it can be stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.graphs import node, preview, text_of
from support.hub import Hub

from llmga.chat.published import PUBLISHED_MODELS
from tools.comfy_client import PromptFailedError, PromptInterruptedError, PromptRejectedError
from tools.comfy_server import ComfyServer

NAME = "Qwen3-VL-2B-Instruct"
MODEL = PUBLISHED_MODELS[NAME]
WEIGHTS = "model.safetensors"


def asks(model: str = NAME, **inputs: Any) -> dict[str, Any]:
    return {
        "1": node("LLMGA_ModelLoader", model=model, **inputs),
        "2": node("LLMGA_Chat", engine=["1", 0], instruction="a fox", policy="whole_reply", max_new_tokens=8),
        "3": preview(["2", 0]),
    }


def refusal(server: ComfyServer, prompt: dict[str, Any]) -> str:
    with pytest.raises(PromptFailedError) as caught:
        server.run(prompt)
    assert caught.value.node_id == "1"
    return caught.value.exception_message


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A tiny random LLaVA where Hugging Face has the published model."""
    from miniworld.models.random_language import write_tiny_llava

    folder = write_tiny_llava(tmp_path_factory.mktemp("hub") / "tiny")
    with Hub({path.name: path.read_bytes() for path in folder.iterdir()}) as hub:
        hub.revision = MODEL.revision
        yield hub


@pytest.fixture(scope="module")
def newcomer(comfyui: Path, hub: Hub) -> Iterator[ComfyServer]:
    """A ComfyUI without a single model, whose Hugging Face is the hub."""
    env = {"HF_ENDPOINT": hub.url, "no_proxy": "*", "LLMGA_ALLOW_DOWNLOADS": "", "HF_HUB_OFFLINE": ""}
    with ComfyServer(comfyui, arguments=("--cpu",), env=env) as server:
        yield server


def test_a_published_model_is_fetched_stopped_and_gone_on_with(newcomer: ComfyServer, hub: Hub) -> None:
    info = newcomer.object_info("LLMGA_ModelLoader")["LLMGA_ModelLoader"]["input"]
    options = info["required"]["model"][1]["options"]
    assert options == list(PUBLISHED_MODELS)
    assert all(f"{name}, {one.gigabytes:g} GB" in info["optional"]["download"][1]["tooltip"]
               for name, one in PUBLISHED_MODELS.items())  # fmt: skip

    missing = refusal(newcomer, asks())
    assert "turn 'download' on" in missing and "Qwen/Qwen3-VL-2B-Instruct, 4.3 GB" in missing
    with pytest.raises(PromptRejectedError, match="not in list"):
        newcomer.queue(asks("../secret", download=True))
    forbidden = refusal(newcomer, asks(download=True))
    assert "LLMGA_ALLOW_DOWNLOADS=1" in forbidden and "allow_downloads in user/__llmga" in forbidden
    assert not hub.asked, "a workflow alone started a download"

    (newcomer.base / "user" / "__llmga").mkdir(parents=True, exist_ok=True)
    (newcomer.base / "user" / "__llmga" / "allow_downloads").touch()
    target = newcomer.base / "models" / "LLM" / NAME
    hub.silent_after = {WEIGHTS: 20_000}
    prompt_id = newcomer.queue(asks(download=True))
    seen: list[tuple[int, int]] = []

    def stop(kind: str, data: Any) -> None:
        if kind == "progress" and data["node"] == "1":
            seen.append((data["value"], data["max"]))
        if (target / f"{WEIGHTS}.part").exists():
            newcomer.interrupt(prompt_id)

    with pytest.raises(PromptInterruptedError):
        newcomer.wait(prompt_id, on_event=stop)
    hub.silent_after = {}
    hub.go_on.set()
    assert seen and max(total for _, total in seen) == sum(map(len, hub.files.values()))
    there = (target / f"{WEIGHTS}.part").stat().st_size
    assert 0 < there < len(hub.files[WEIGHTS]) and not (target / "config.json").exists()
    assert "turn 'download' on" in refusal(newcomer, asks()), "half a model is no model"

    hub.asked.clear()
    entry = newcomer.run(asks(download=True))
    assert (f"/{MODEL.repository}/resolve/{MODEL.revision}/{WEIGHTS}", f"bytes={there}-") in hub.asked
    assert text_of(entry, "3") and {path.name for path in target.iterdir()} == hub.files.keys()
    assert f"LLMGA downloads {MODEL} at {MODEL.revision}" in newcomer.log_text()

    hub.asked.clear()
    newcomer.run(asks(precision="float32"))  # it is here: no switch is needed
    assert not hub.asked
