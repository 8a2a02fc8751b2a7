"""The live text of a running node: only its end is sent, and how much is missing before it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from support import comfy_inprocess

pytestmark = pytest.mark.skipif(
    comfy_inprocess.comfy_path() is None, reason=str(comfy_inprocess.skip_reason())
)


def test_how_much_of_the_start_is_cut_is_sent_with_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    module = comfy_inprocess.pack("nodes.host_live_text")
    sent: list[dict[str, Any]] = []
    server = SimpleNamespace(client_id="me", send_sync=lambda event, data, client: sent.append(data))
    monkeypatch.setattr(module, "PromptServer", SimpleNamespace(instance=server))
    monkeypatch.setattr(module, "get_executing_context", lambda: SimpleNamespace(prompt_id="p", node_id="1"))
    monkeypatch.setattr(module.host, "running_node", lambda: "1")
    monkeypatch.setattr(module, "TEXT_INTERVAL", 0)
    live = module.LiveText()
    for length in (10, module.TEXT_TAIL, module.TEXT_TAIL + 3):
        live("a" * length)
    assert [(len(one["text"]), one["cut"]) for one in sent] == [
        (10, 0),
        (module.TEXT_TAIL, 0),
        (module.TEXT_TAIL, 3),
    ]
