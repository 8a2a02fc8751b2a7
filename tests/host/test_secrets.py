"""The API key of an endpoint is sent to that endpoint, and is nowhere else to be found."""

from __future__ import annotations

import base64
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from support.graphs import chat, checkpoint, encode, endpoint, node, preview
from support.host import ENVIRONMENT, KEY, PROBES
from support.openai_server import OpenAIServer
from support.waiting import until

from tools.comfy_client import ComfyError, PromptInterruptedError
from tools.comfy_server import ComfyServer
from tools.miniature import PACK as MINIATURE_PACK

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
    assert until(lambda: assistant.active)
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


ECHOES = ["key_in_status", "masked", "key_in_reply", "http_401", "http_500", "html", "normal"]


def test_a_server_that_logs_all_it_can_holds_no_key_and_no_address(
    comfyui: Path, fill_base: Callable[[Path], None], assistant: OpenAIServer
) -> None:
    """Every logger at DEBUG, the log over HTTP, history, queue, events and every file; the endpoint echoes the key."""
    device = ("--cpu",) if sys.platform == "darwin" else ()
    server = ComfyServer(
        comfyui,
        arguments=(*device, "--verbose", "DEBUG"),
        extra_packs=(PROBES, MINIATURE_PACK),
        env=ENVIRONMENT,
    )
    fill_base(server.base)
    heard: list[str] = []

    def run(behaviour: str) -> None:
        assistant.behave(behaviour)
        prompt = {
            "1": endpoint(),
            "2": chat("1", f"echo {behaviour}", task="chat"),
            "3": preview(["2", 0]),
            "4": node("LLMGA_SaveHistory", history=["2", 4], name=f"echo {behaviour}"),
        }
        try:
            server.wait(
                server.queue(prompt, extra_data={"extra_pnginfo": {"workflow": {"nodes": []}}}),
                on_event=lambda kind, data: heard.append(f"{kind} {data!r}"),
            )
        except ComfyError as error:
            heard.append(f"{error!r} {json.dumps(getattr(error, 'entry', {}), default=str)}")

    try:
        with server:
            for behaviour in ECHOES:
                run(behaviour)
                heard.append(json.dumps(server.get("/queue")))
            assert assistant.requests[-1].headers["authorization"] == f"Bearer {KEY}"
            served = json.dumps(server.get("/internal/logs/raw"))
            heard += [served, json.dumps(server.get("/history")), json.dumps(server.object_info())]
            log = server.log_text()
            assert "selector" in log or "DEBUG" in log, "the log does not hold what is logged at DEBUG"
            files = [
                path for path in server.base.rglob("*") if path.is_file() and path.suffix != ".safetensors"
            ]
            assert any(path.name == "echo key_in_reply.json" for path in files), (
                "the reply that echoes was saved"
            )
            heard += [log, *(path.read_bytes().decode("latin-1") for path in files)]
    finally:
        assistant.behave("normal")
    everything = "\n".join(heard)
    assert "echo key_in_status" in everything and "***" in everything
    for part in (*SPELLINGS, KEY[:9], KEY[-6:]):
        assert part not in everything, f"{part} is in {[one[:200] for one in heard if part in one]}"
    for said in (log, served):
        assert f":{assistant.port}" not in said and "/chat/completions" not in said
