"""The client on a real server: a prompt that waits in the queue can be cancelled, and waiting for one that is gone ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.graphs import chat, endpoint
from support.openai_server import OpenAIServer
from support.waiting import until

from tools.comfy_client import PromptInterruptedError
from tools.comfy_server import ComfyServer


@pytest.mark.parametrize(
    "take_out",
    [
        lambda server, queued: server.interrupt(queued),
        lambda server, queued: server.request("/queue", {"delete": [queued]}),
        lambda server, queued: server.request("/queue", {"clear": True}),
    ],
    ids=["interrupted", "deleted", "cleared"],
)
def test_a_prompt_that_never_ran_is_not_waited_for(
    server: ComfyServer, assistant: OpenAIServer, take_out: Callable[[ComfyServer, str], object]
) -> None:
    assistant.behave("silent")
    running = server.queue({"1": endpoint(), "2": chat("1", "this one runs")})
    assert until(lambda: assistant.active)
    queued = server.queue({"1": endpoint(), "2": chat("1", "this one waits")})
    take_out(server, queued)
    with pytest.raises(PromptInterruptedError, match="taken out of the queue"):
        server.wait(queued)
    server.interrupt(running)
    with pytest.raises(PromptInterruptedError, match="was interrupted"):
        server.wait(running)
    assistant.behave("normal")
    assert server.run({"1": endpoint(), "2": chat("1", "and on it goes")})
