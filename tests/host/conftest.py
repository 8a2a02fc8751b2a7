"""One real ComfyUI server for the whole host suite, and the tiny models that several modules edit with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import comfy_inprocess, tiny_edit
from support.edit_denoiser import KINDS
from support.host import ENVIRONMENT, KEY_VARIABLE, PROBES
from support.openai_server import OpenAIServer

from tools.comfy_server import ComfyServer
from tools.comfyui import find
from tools.miniature import PACK as MINIATURE_PACK
from tools.props import answer, write_endpoints, write_example, write_models


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """The ComfyUI checkout; without one, everything that asks for it is skipped with the reason."""
    host = find()
    if host.path is None:
        pytest.skip(f"no ComfyUI: {host.note}")
    return host.path


@pytest.fixture(scope="session")
def assistant() -> Iterator[OpenAIServer]:
    """The OpenAI-compatible server on loopback that the endpoint ``demo`` leads to; it needs the key ``KEY``."""
    with OpenAIServer(answer) as server:
        yield server


@pytest.fixture(scope="session")
def fill_base(assistant: OpenAIServer) -> Callable[[Path], None]:
    """Puts models, inputs and endpoints into a server's base folder before it starts."""

    def fill(base: Path) -> None:
        write_models(base / "models")
        write_example(base / "input" / "example.png")
        write_endpoints(base / "user" / "__llmga" / "endpoints.json", assistant.url, key_env=KEY_VARIABLE)

    return fill


@pytest.fixture(scope="session")
def server(comfyui: Path, fill_base: Callable[[Path], None]) -> Iterator[ComfyServer]:
    """The session's server: this pack alone, its miniature models, nothing from outside this machine."""
    # Metal gives other numbers than every CPU; macOS is tested for what it has in common.
    device = ("--cpu",) if sys.platform == "darwin" else ()
    server = ComfyServer(comfyui, arguments=device, extra_packs=(PROBES, MINIATURE_PACK), env=ENVIRONMENT)
    fill_base(server.base)
    with server:
        yield server


@pytest.fixture(scope="module")
def clips() -> dict[str, Any]:
    """A tiny CLIP of the host by the kind of its UNet."""
    return {kind: comfy_inprocess.tiny_clip(kind) for kind in KINDS}


@pytest.fixture(scope="module")
def nets() -> dict[str, Any]:
    """The weights of the tiny UNets as diffusers models, by kind."""
    comfy_inprocess.start()
    return {kind: tiny_edit.diffusers_unet(kind) for kind in KINDS}


@pytest.fixture(scope="module")
def trios() -> dict[str, Any]:
    """MODEL, CLIP and VAE of a tiny checkpoint, by kind."""
    comfy_inprocess.start()
    return {kind: tiny_edit.trio(kind) for kind in KINDS}


@pytest.fixture(scope="module")
def trio(trios: dict[str, Any]) -> Any:
    return trios["sd15"]
