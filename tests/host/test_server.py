"""The server under test is ours, whole, and reports failure as failure."""

from __future__ import annotations

import pytest

from tools.comfy_client import PromptRejectedError
from tools.comfy_server import LOAD_FAILURE, ComfyServer

PICTURE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 8, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "blue"}},
}


def test_the_server_is_the_one_we_started(server: ComfyServer) -> None:
    argv = server.get("/system_stats")["system"]["argv"]
    assert argv[0] == str(server.comfyui / "main.py")
    assert argv[argv.index("--base-directory") + 1] == str(server.base)


def test_the_pack_came_in_whole(server: ComfyServer) -> None:
    starting = server.log_text().replace("\\", "/").partition("To see the GUI go to")[0]
    ours = [line for line in starting.splitlines() if f"custom_nodes/{server.pack.name}" in line]
    assert ours
    assert not [line for line in ours if LOAD_FAILURE.search(line)]


def test_every_node_of_the_pack_is_there(server: ComfyServer) -> None:
    modules = {name: info["python_module"] for name, info in server.object_info().items()}
    ours = {name for name, module in modules.items() if module == f"custom_nodes.{server.pack.name}"}
    shipped = {
        "LLMGA_AttentionMaps",
        "LLMGA_Chat",
        "LLMGA_EditInstruction",
        "LLMGA_Endpoint",
        "LLMGA_HostLanguageModel",
        "LLMGA_InversionEdit",
        "LLMGA_Invert",
        "LLMGA_LoadHistory",
        "LLMGA_LongCLIPEncode",
        "LLMGA_ModelLoader",
        "LLMGA_PromptToPromptOptions",
        "LLMGA_SaveHistory",
    }
    assert shipped <= ours
    assert all(name.startswith("LLMGA_") for name in ours)


def test_a_start_loads_no_training_and_no_demonstration(server: ComfyServer) -> None:
    """An installed pack cannot run the trainers, the dataset builder and the miniature world, so it must not need them."""
    entry = server.run({"1": {"class_type": "LLMGATest_Modules", "inputs": {}}})
    loaded = entry["outputs"]["1"]["text"]
    ours = [name.rpartition(f"{server.pack.name}.")[2] for name in loaded if f"{server.pack.name}." in name]
    assert "llmga.paint.masks" in ours and "nodes.restore" in ours
    assert [name for name in ours if name.startswith(("llmga.train", "llmga.data", "miniworld"))] == []
    assert [name for name in loaded if name.split(".")[0] in ("llmga", "miniworld")] == []


def test_a_prompt_runs_and_its_picture_comes_back(server: ComfyServer) -> None:
    events: list[str] = []
    entry = server.run(PICTURE, on_event=lambda kind, _: events.append(kind))
    (image,) = entry["outputs"]["2"]["images"]
    assert server.view(image).startswith(b"\x89PNG")
    assert (server.base / "output" / image["filename"]).is_file()
    assert "execution_success" in events


def test_a_prompt_that_is_accepted_in_part_counts_as_rejected(server: ComfyServer) -> None:
    broken = {"3": {"class_type": "SaveImage", "inputs": {"images": ["9", 0], "filename_prefix": "x"}}}
    with pytest.raises(PromptRejectedError, match="node 3") as caught:
        server.queue(PICTURE | broken)
    assert caught.value.status == 200
