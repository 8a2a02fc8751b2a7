"""A live ComfyUI with the pack, random models, an endpoint on loopback, and prompts for it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.graphs import checkpoint, image, local, node
from support.host import ENVIRONMENT, KEY, KEY_VARIABLE, PROBES
from support.openai_server import OpenAIServer

from tools.comfy_server import ComfyServer
from tools.comfyui import find
from tools.miniature import PACK as MINIATURE_PACK
from tools.props import answer, write_endpoints, write_example, write_models

Prompt = dict[str, dict[str, Any]]
__all__ = ["KEY", "KEY_VARIABLE", "Prompt", "alive", "live", "process_of", "resident", "sources"]


@contextmanager
def live(
    *, arguments: Sequence[str] = (), env: Mapping[str, str] | None = None, pack: bool = True
) -> Iterator[tuple[ComfyServer, OpenAIServer]]:
    """A server that runs, and what stands behind its endpoint; without the pack a ComfyUI of its own nodes."""
    host = find().path
    if host is None:
        raise RuntimeError("no ComfyUI")
    with OpenAIServer(answer) as assistant:
        server = ComfyServer(
            host,
            arguments=("--cpu", *arguments),
            extra_packs=(PROBES, MINIATURE_PACK),
            env={**ENVIRONMENT, **(env or {})},
        )
        try:
            write_models(server.base / "models")
            write_example(server.base / "input" / "example.png")
            write_endpoints(
                server.base / "user" / "__llmga" / "endpoints.json", assistant.url, key_env=KEY_VARIABLE
            )
            if not pack:
                server.pack.unlink()
        except BaseException:
            server.close()
            raise
        with server:
            yield server, assistant


def sources() -> dict[str, tuple[dict[str, Any], int]]:
    """A node, and which of its outputs, for kinds of sockets that need no other node."""
    return {
        "IMAGE": (image(), 0),
        "MASK": (node("SolidMask", value=1.0, width=64, height=64), 0),
        "MODEL": (checkpoint(), 0),
        "CLIP": (checkpoint(), 1),
        "VAE": (checkpoint(), 2),
        "LATENT": (node("EmptyLatentImage", width=64, height=64, batch_size=1), 0),
        "LLMGA_ENGINE": (local(), 0),
    }


def alive(server: ComfyServer, seconds: float = 30) -> bool:
    """Whether the same process still runs a prompt that it has not run before."""
    value = time.time() + random.SystemRandom().random()
    prompt = {"1": node("PrimitiveFloat", value=value), "2": node("PreviewAny", source=["1", 0])}
    try:
        server.run(prompt, timeout=seconds)
    except (TimeoutError, OSError, RuntimeError):
        return False
    except Exception as error:  # the client's own kinds
        return type(error).__name__ not in ("ServerError", "PromptRejectedError", "PromptFailedError")
    return True


def process_of(server: ComfyServer) -> int:
    """The process id of the running server."""
    process = server._process
    if process is None:
        raise RuntimeError("the server does not run")
    return process.pid


def resident(pid: int) -> int | None:
    """Bytes of memory that a process holds, or None where the system does not tell."""
    path = Path(f"/proc/{pid}/statm")
    if not path.is_file():
        return None
    return int(path.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
