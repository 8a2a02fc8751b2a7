"""Runs the demo's workflows on a headless ComfyUI through its API."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .comfy_server import ComfyServer
from .embedded import OnEvent, Prompt
from .miniature import PACK
from .miniature_base import furnish


class ComfyRunner:
    """Queues API prompts, returns their texts and saves their pictures in ``output``."""

    def __init__(self, server: ComfyServer, output: Path) -> None:
        self.server = server
        self.output = output
        version = server.get("/system_stats")["system"]["comfyui_version"]
        self.name = f"ComfyUI {version}"

    def run(self, prompt: Prompt, on_event: OnEvent) -> dict[str, dict[str, Any]]:
        def on_message(kind: str, data: Any) -> None:
            if kind == "executing" and data.get("node") in prompt:
                on_event(prompt[data["node"]]["_meta"]["title"], "")
            elif kind == "llmga.text" and data["node"] in prompt:
                on_event(prompt[data["node"]]["_meta"]["title"], data["text"])

        entry = self.server.run(prompt, on_event=on_message)
        return {node_id: self._collect(ui) for node_id, ui in entry["outputs"].items()}

    def _collect(self, ui: dict[str, Any]) -> dict[str, Any]:
        images = [self._fetch(image) for image in ui.get("images", ()) if image["type"] == "output"]
        return {"text": ui.get("text", []), "images": images}

    def _fetch(self, image: dict[str, str]) -> Path:
        path = self.output / image["filename"]
        path.write_bytes(self.server.view(image))
        return path


@contextlib.contextmanager
def comfy_runner(miniature: Path, endpoint_url: str, output: Path) -> Iterator[ComfyRunner]:
    """A server with this pack, the miniature and its architecture, and the demo's endpoint and picture."""
    server = ComfyServer(Path(os.environ["COMFYUI_PATH"]), extra_packs=(PACK,))
    try:
        server.arguments += furnish(server.base, miniature, endpoint_url)
    except BaseException:
        server.close()
        raise
    with server:
        yield ComfyRunner(server, output)
