"""What a language model has read goes when ComfyUI takes the model off its device."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from support import comfy_inprocess

pytestmark = pytest.mark.skipif(
    comfy_inprocess.skip_reason() is not None, reason=str(comfy_inprocess.skip_reason())
)


def test_unloading_drops_the_keys_and_values(tmp_path: Path) -> None:
    comfy_inprocess.start()
    memory = comfy_inprocess.pack("nodes.host_memory")
    chat = comfy_inprocess.pack("llmga.chat")
    folder = importlib.import_module("miniworld.models.random_language").write_tiny_text(
        tmp_path / "tiny", seed=1
    )
    engine: Any = comfy_inprocess.pack("llmga.chat.folders").load_local_engine(folder)
    engine.load = memory.managed_language_model(engine)
    said = []
    for _ in range(2):
        ask = chat.Conversation().say("user", "a red fox")
        said.append(
            engine.generate(ask, chat.Sampling(temperature=0, max_new_tokens=6), lambda _: None).answer
        )
        assert engine.prefixes.nbytes > 0
        importlib.import_module("comfy.model_management").unload_all_models()
        assert engine.prefixes.nbytes == 0
    assert said[0] == said[1]


def test_loaders_that_ask_for_the_same_share_one_model(tmp_path: Path) -> None:
    comfy_inprocess.start()
    random: Any = importlib.import_module("miniworld.models.random_language")
    folder = random.write_tiny_text(tmp_path / "LLM" / "shared", seed=1)
    importlib.import_module("folder_paths").add_model_folder_path("LLM", str(folder.parent))
    load = comfy_inprocess.pack("nodes.loaders").ModelLoader.execute
    first, second = (load("shared", "int8") for _ in range(2))
    assert first.args[0] is second.args[0]
    assert first.ui == second.ui and "int8: 14 linear layers" in first.ui["text"][0]
    assert load("shared", "int4").args[0] is not first.args[0]
    talk = comfy_inprocess.pack("nodes.chat").Chat.execute
    said = [
        talk(one.args[0], "a red fox", "chat", 7, 0.0, 1.0, 6, "whole_reply").args[0]
        for one in (first, second)
    ]
    assert said[0] == said[1]
    loaded = importlib.import_module("comfy.model_management").current_loaded_models
    nets = [one.model.model.net for one in loaded if type(one.model.model).__name__ == "_Managed"]
    assert sum(net is first.args[0].net for net in nets) == 1
    random.write_tiny_text(folder, seed=2)
    assert load("shared", "int8").args[0] is not first.args[0]
