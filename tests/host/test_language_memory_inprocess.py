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
    host = comfy_inprocess.pack("nodes.host")
    chat = comfy_inprocess.pack("llmga.chat")
    folder = importlib.import_module("miniworld.models.random_language").write_tiny_text(
        tmp_path / "tiny", seed=1
    )
    engine: Any = comfy_inprocess.pack("llmga.chat.folders").load_local_engine(folder)
    engine.load = host.managed(engine.net, engine.forget)
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
