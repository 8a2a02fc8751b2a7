"""What the nodes call in the library, for the sections without ComfyUI: one place to mend when a module moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load_language_model(folder: Path) -> Any:
    """As Model Loader does."""
    import torch

    from llmga.chat.folders import load_local_engine

    return load_local_engine(folder, torch.float32)


def load_restorer(path: Path) -> Any:
    """As DiffRIR Loader does."""
    from llmga.restore import load_restorer as load

    return load(path).restorer


def find_unet(place: Path) -> Any:
    """As UNet Loader does, but that the host would make a model of the weights."""
    from llmga.diffusion import unet_files
    from llmga.files.tensors import check_finite, read_files

    unet = unet_files.find_unet(place)
    check_finite(read_files(unet.files).items(), place.name)
    return unet


def read_history(path: Path) -> Any:
    """As Load History does."""
    from llmga.chat import Conversation

    if not path.is_file():
        raise ValueError(f"name must be one of (none); got {path.stem!r}")
    try:
        return Conversation.from_json(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(f"the saved history {path.stem!r} cannot be read: {error}") from error


def read_endpoints(path: Path) -> Any:
    from llmga.chat.endpoints import load_endpoints

    return load_endpoints(path)


def read_transcript(text: str) -> Any:
    from llmga.chat import read_transcript

    def no_picture(sha256: str) -> Any:
        raise ValueError("'transcript' shows a picture that is not there")

    return read_transcript(text, no_picture)


def ask(url: str, deadline: float, on_text: Any, key_env: str = "", **record: Any) -> str:
    """A reply of an endpoint, as LLMGA Chat gets it."""
    from llmga.chat import Conversation, Sampling
    from llmga.chat.endpoints import Endpoint
    from llmga.chat.engines.endpoint import EndpointEngine

    endpoint = Endpoint("attacked", url, "m", key_env=key_env, deadline_s=deadline, **record)
    conversation = Conversation().say("user", "a fox")
    return EndpointEngine(endpoint).generate(conversation, Sampling(), on_text).answer


def parse(text: str) -> Any:
    from llmga.chat.tags import parse

    return parse(text)
