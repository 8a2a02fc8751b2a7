"""The API prompt ``text_to_image_as_released`` has the settings of LLMGA's own command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORKFLOW = Path(__file__).parents[2] / "workflows/api/text_to_image_as_released.json"


def inputs_of(kind: str) -> dict[str, Any]:
    nodes = json.loads(WORKFLOW.read_text(encoding="utf-8")).values()
    (found,) = [node["inputs"] for node in nodes if node["class_type"] == kind]
    return found


def test_the_settings_are_those_of_cli_sd15() -> None:
    """LLMGA 7e32eb6, llmga/serve/cli-sd15.py: 50 steps at 7.5, 3 chunks, weights read from the text, nothing to avoid."""
    encode, sampler, chat = (inputs_of(kind) for kind in ("LLMGA_LongCLIPEncode", "KSampler", "LLMGA_Chat"))
    assert (sampler["steps"], sampler["cfg"], sampler["denoise"]) == (50, 7.5, 1.0)
    assert (encode["layout"], encode["max_chunks"], encode["weights"]) == ("llmga_lpw", 3, True)
    assert encode["negative_text"] == "" and not encode["break_word"]
    assert (chat["task"], chat["temperature"], chat["max_new_tokens"]) == ("refine", 0.2, 512)
