"""ComfyUI in this process with every node of the pack, and good values for every kind of socket."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from support import comfy_inprocess as comfy

from .good_widgets import CHEAP, GOOD


class Echo:
    """A chat engine that says one of a few things."""

    name = "echo"
    supports_pictures = True
    REPLIES = (
        "Here it is.\n<gen_image> a large red star on snow </gen_image>",
        "<gen_image> one </gen_image> and <gen_image> two </gen_image>",
        "no prompt at all",
        "I cannot help with that.",
        "<think> a draft <gen_image> draft </gen_image>",
        "",
    )

    def generate(self, conversation: Any, sampling: Any, on_text: Any) -> Any:
        reply = self.REPLIES[sampling.seed % len(self.REPLIES)]
        on_text(reply)
        return comfy.pack("llmga.chat").Said.of(reply)


@dataclass(frozen=True)
class Socket:
    """One input of a node."""

    name: str
    kind: str
    optional: bool
    options: tuple[Any, ...]
    default: Any
    low: Any
    high: Any


class NodeRunner:
    """The nodes by id, their inputs, and values that fit."""

    def __init__(self) -> None:
        from support import tiny_edit

        from tools.props import RESTORER, write_endpoints, write_models

        comfy.start()
        import folder_paths  # ComfyUI's

        self.base = Path(folder_paths.base_path)
        write_models(Path(folder_paths.models_dir))
        write_endpoints(
            Path(folder_paths.get_system_user_directory("llmga")) / "endpoints.json", "http://127.0.0.1:9/v1"
        )
        pack = comfy.pack("nodes")
        turns = (
            comfy.pack("llmga.chat").Conversation().say("user", "a star").say("assistant", Echo.REPLIES[0])
        )
        comfy.pack("nodes.history").save(turns, "a chat")
        nodes = asyncio.run(pack.extension().get_node_list())
        self.nodes = {node.define_schema().node_id: node for node in nodes}
        self.sockets = {name: sockets_of(node) for name, node in self.nodes.items()}
        model, clip, vae = tiny_edit.trio("sd15")
        self.values: dict[str, list[Any]] = {
            "MODEL": [model],
            "CLIP": [clip],
            "VAE": [vae],
            "LLMGA_ENGINE": [Echo()],
            "IMAGE": [torch.rand(1, 48, 40, 3), torch.rand(2, 64, 64, 3)],
            "MASK": [torch.nn.functional.pad(torch.ones(1, 20, 20), (8, 12, 10, 18))],
            "LATENT": [{"samples": torch.randn(1, 4, 8, 8)}],
            "CONDITIONING": [clip.encode_from_tokens_scheduled(clip.tokenize("a star"))],
        }
        self.values["LLMGA_HISTORY"] = [turns]
        self.values["LLMGA_RESTORER"] = [self.run("LLMGA_DiffRIRLoader", restorer_file=RESTORER)[0]]
        self.values["LLMGA_P2P_OPTIONS"] = [self.run("LLMGA_PromptToPromptOptions")[0]]
        self.values["LLMGA_CROP"] = [
            self.run("LLMGA_CropForPainting", image=self.values["IMAGE"][0], width=32, height=32)[2]
        ]
        self.values["LLMGA_REGIONS"] = [self.run("LLMGA_CropEachRegion", width=32, height=32)[3]]
        self.values["LLMGA_INVERSION"] = [self.run("LLMGA_Invert", image=self.values["IMAGE"][1], steps=2)[0]]
        planned = self.run("LLMGA_ScenePlan")
        self.values["LLMGA_SCENE"], self.values["BOUNDING_BOX"] = [planned[0]], [planned[3]]
        self.values["LLMGA_PAINTED_SCENE"] = [
            self.run("LLMGA_SceneSynthesis", steps=2, width=64, height=64)[4]
        ]

    def good(self, socket: Socket, rng: random.Random) -> Any:
        """A value that the socket is made for."""
        if socket.kind in self.values:
            return rng.choice(self.values[socket.kind])
        if socket.name in GOOD and socket.kind == "STRING":
            return rng.choice(GOOD[socket.name])
        if socket.name in CHEAP:
            return CHEAP[socket.name]
        if socket.options:
            return rng.choice(socket.options)
        if socket.kind == "BOOLEAN":
            return rng.random() < 0.5
        if socket.kind == "STRING":
            return rng.choice(["a large red star on snow", "a ring", socket.default or "a fox"])
        return socket.default

    def run(self, node: str, **given: Any) -> Any:
        """What a node returns for these inputs and its defaults; sockets get the first value that fits."""
        wanted = {}
        for socket in self.sockets[node]:
            if socket.kind in self.values and not socket.optional:
                wanted[socket.name] = self.values[socket.kind][0]
            elif socket.name in GOOD and socket.kind == "STRING":
                wanted[socket.name] = GOOD[socket.name][0]
            elif socket.default is not None or socket.options:
                wanted[socket.name] = socket.default if socket.default is not None else socket.options[0]
        return self.execute(node, {**wanted, **given})

    def execute(self, node: str, given: dict[str, Any]) -> Any:
        """The outputs, as ComfyUI calls a node: in inference mode."""
        with torch.inference_mode():
            return self.nodes[node].execute(**given).args


def sockets_of(node: Any) -> tuple[Socket, ...]:
    return tuple(
        Socket(
            one.id,
            one.get_io_type(),
            bool(one.optional),
            tuple(getattr(one, "options", None) or ()),
            getattr(one, "default", None),
            getattr(one, "min", None),
            getattr(one, "max", None),
        )
        for one in node.define_schema().inputs
    )


def is_finite(value: Any) -> bool:
    """False if a floating-point tensor anywhere in an output holds NaN or an infinity."""
    if isinstance(value, torch.Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    if isinstance(value, dict):
        return all(map(is_finite, value.values()))
    return all(map(is_finite, value)) if isinstance(value, (list, tuple)) else True
