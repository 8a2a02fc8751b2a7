"""The client on a real server: a prompt that waits in the queue can be cancelled, and waiting for one that is gone ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.graphs import chat, checkpoint, encode, endpoint, node
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


def test_the_progress_of_another_prompt_hides_nothing(server: ComfyServer) -> None:
    busy = {
        "1": checkpoint(),
        "2": encode(["1", 1], "a star"),
        "3": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "4": node(
            "KSampler", model=["1", 0], positive=["2", 0], negative=["2", 1], latent_image=["3", 0], seed=1,
            steps=10_000, cfg=1.0, sampler_name="euler", scheduler="normal", denoise=1.0,
        ),
        "5": node("VAEDecode", samples=["4", 0], vae=["1", 2]),
        "6": node("PreviewImage", images=["5", 0]),
    }  # fmt: skip
    running = server.queue(busy)
    queued = server.queue({**busy, "4": {**busy["4"], "inputs": {**busy["4"]["inputs"], "seed": 2}}})
    server.interrupt(queued)
    with pytest.raises(PromptInterruptedError, match="taken out of the queue"):
        server.wait(queued)
    assert server.history(running) is None
    server.interrupt(running)
    with pytest.raises(PromptInterruptedError):
        server.wait(running)
