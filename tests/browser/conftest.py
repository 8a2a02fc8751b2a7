"""A real ComfyUI server with miniature models, and a real Chromium to look at it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from support.openai_server import OpenAIServer

from tools import chromium, comfyui, frontend
from tools.comfy_server import ComfyServer
from tools.miniature import PACK as MINIATURE_PACK
from tools.props import answer, write_models
from tools.templates import read_prompts, write_placeholders

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Without a Chromium, or playwright to drive it, everything here is skipped with the reason."""
    pytest.importorskip("playwright.sync_api", reason="no browser: playwright is not installed")
    found = chromium.find(sys.executable)
    if found.path is None:
        pytest.skip(f"no browser: {found.reason}")
    with frontend.chromium(found.path) as browser:
        yield browser


@pytest.fixture(scope="session")
def assistant() -> Iterator[OpenAIServer]:
    """The server behind the endpoint that the templates name."""
    with OpenAIServer(answer) as server:
        yield server


@pytest.fixture(scope="session")
def server(browser: Browser, assistant: OpenAIServer) -> Iterator[ComfyServer]:
    """Has the miniature models, and placeholders for those that the templates name."""
    host = comfyui.find()
    if host.path is None:
        pytest.skip(f"no ComfyUI: {host.note}")
    server = ComfyServer(
        host.path, arguments=("--cpu",), extra_packs=(MINIATURE_PACK,), env={"HF_HUB_OFFLINE": "1"}
    )
    write_models(server.base / "models")
    write_placeholders(server.base, read_prompts(), assistant.url)
    with server:
        yield server
