"""What ComfyUI asks LLMGA Chat before it runs: which inputs it needs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support import comfy_inprocess as comfy

REASON = comfy.skip_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.mark.parametrize(
    ("edited", "needed"),
    [
        ("", ["engine"]),
        (None, ["engine"]),
        ("  ", ["engine"]),
        ("a reply", []),
        (torch.zeros(1, 8, 8, 3), []),
        (7, []),
    ],
)
def test_no_engine_is_loaded_where_the_reply_is_given_or_is_no_text(edited: Any, needed: list[str]) -> None:
    comfy.start()
    node = comfy.pack("nodes.chat").Chat
    assert node.check_lazy_status(edited_reply=edited, instruction="a fox", transcript="") == needed
