"""The API key of an endpoint is sent to that endpoint, and is nowhere else to be found."""

from __future__ import annotations

import base64
import json
import logging
from urllib.parse import quote

import pytest
from support.graphs import chat, checkpoint, encode, endpoint, node, preview
from support.host import KEY
from support.openai_server import OpenAIServer

from tools.comfy_client import ComfyError, PromptInterruptedError
from tools.comfy_server import ComfyServer

SPELLINGS = [KEY, quote(KEY, safe=""), base64.b64encode(KEY.encode()).decode().rstrip("="), KEY[3:]]
TROUBLE = [
    "http_400", "http_401", "http_404", "http_500", "http_429_600s", "html", "garbage", "cut", "redirect",
    "stream_error", "empty_choices", "null_content",
]  # fmt: skip


def picture(instruction: str) -> dict:
    """A whole workflow with the endpoint in it, saved as PNG with its metadata."""
    return {
        "1": endpoint(),
        "2": chat("1", instruction),
        "3": checkpoint(),
        "4": encode(["3", 1], ["2", 1]),
        "5": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "6": node(
            "KSampler", model=["3", 0], positive=["4", 0], negative=["4", 1], latent_image=["5", 0], seed=1, steps=1,
            cfg=1.0, sampler_name="euler", scheduler="normal", denoise=1.0,
        ),
        "7": node("VAEDecode", samples=["6", 0], vae=["3", 2]),
        "8": node("SaveImage", images=["7", 0], filename_prefix="secret"),
        "9": preview(["2", 0]),
        "10": node("LLMGA_SaveHistory", history=["2", 4], name="secret"),
    }  # fmt: skip


def test_the_key_is_sent_and_shows_up_nowhere(
    server: ComfyServer, assistant: OpenAIServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    heard: list[str] = []

    def on_event(kind: str, data: object) -> None:
        heard.append(f"{kind} {data!r}")

    def run(instruction: str) -> None:
        prompt = picture(instruction)
        extra = {"extra_pnginfo": {"workflow": {"nodes": [prompt]}}}
        try:
            server.wait(server.queue(prompt, extra_data=extra), on_event=on_event)
        except ComfyError as error:
            heard.append(f"{error!r} {error} {json.dumps(getattr(error, 'entry', {}), default=str)}")

    run("all is well")
    assert assistant.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    for behaviour in TROUBLE:
        assistant.behave(behaviour)
        run(f"trouble: {behaviour}")
    assistant.behave("silent")
    waiting = server.queue(picture("cancelled"))
    heard.append(json.dumps(server.get("/queue")))
    server.interrupt(waiting)
    with pytest.raises(PromptInterruptedError):
        server.wait(waiting, on_event=on_event)
    assistant.behave("normal")

    heard += [
        json.dumps(server.get("/history")),
        server.log_text(),
        json.dumps(server.object_info()),
        caplog.text,
    ]
    files = [path for path in server.base.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    pictures = [path for path in files if path.name.startswith("secret_")]
    assert pictures, "the run that went well saved a picture"
    heard += [path.read_bytes().decode("latin-1") for path in files]
    everything = "\n".join(heard)
    assert "all is well" in everything
    for spelling in SPELLINGS:
        assert spelling not in everything
