"""LLMGA as a library: a language model writes the generation prompt, a diffusion model paints it.

The names in ``__all__`` are the library's public interface, and the rooms (``llmga.chat``, ``llmga.edit`` …) are its
subpackages. Both are imported when they are first used, so ``import llmga`` itself costs nothing and needs no torch.
Nothing here knows ComfyUI; the nodes in ``nodes/`` are a thin layer over these rooms.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

ROOMS = (
    "chat",
    "data",
    "diffusion",
    "downloads",
    "edit",
    "evaluate",
    "files",
    "gill",
    "images",
    "paint",
    "restore",
    "scene",
    "text",
    "train",
)
"""The submodules that ``llmga.NAME`` imports."""

NAMES = {
    "CLIPPromptEncoder": "text.encoder",
    "ChatEngine": "chat.engines.base",
    "ColourMatch": "restore.colour",
    "Conversation": "chat.conversation",
    "Denoiser": "diffusion.denoiser",
    "DiffusersCodec": "edit.codec",
    "DiffusersDenoiser": "diffusion.diffusers_unet",
    "EditSession": "edit.session",
    "EditSettings": "edit.session",
    "Endpoint": "chat.endpoints",
    "EndpointEngine": "chat.engines.endpoint",
    "Estimate": "evaluate.estimates",
    "Picture": "chat.conversation",
    "PromptEncoder": "text.encoder",
    "PromptToPromptOptions": "edit.prompt_to_prompt",
    "Reply": "chat.assistant",
    "Sampling": "chat.engines.base",
    "ScenePlan": "scene.plan",
    "SceneSession": "scene.session",
    "Schedule": "diffusion.schedule",
    "clip_tokenizer": "text.tokenizer",
    "crop": "paint.crop",
    "find_unet": "diffusion.unet_files",
    "load_endpoints": "chat.endpoints",
    "load_local_engine": "chat.folders.registry",
    "load_restorer": "restore.checkpoint",
    "match_colour": "restore.colour",
    "respond": "chat.assistant",
    "seam": "restore.seam",
    "stitch": "paint.crop",
}
"""Each public name and the module that defines it: the one table. The block below repeats it for type checkers.

A name must not be a room's as well: importing the room would replace it. So ``edit`` and ``restore`` are the rooms, and
their main functions are ``llmga.edit.edit`` and ``llmga.restore.restore``.
"""

__all__ = sorted(NAMES)  # pyright: ignore[reportUnsupportedDunderAll] - the imports below export

if TYPE_CHECKING:
    from . import chat as chat
    from . import data as data
    from . import diffusion as diffusion
    from . import downloads as downloads
    from . import edit as edit
    from . import evaluate as evaluate
    from . import files as files
    from . import gill as gill
    from . import images as images
    from . import paint as paint
    from . import restore as restore
    from . import scene as scene
    from . import text as text
    from . import train as train
    from .chat.assistant import Reply as Reply
    from .chat.assistant import respond as respond
    from .chat.conversation import Conversation as Conversation
    from .chat.conversation import Picture as Picture
    from .chat.endpoints import Endpoint as Endpoint
    from .chat.endpoints import load_endpoints as load_endpoints
    from .chat.engines.base import ChatEngine as ChatEngine
    from .chat.engines.base import Sampling as Sampling
    from .chat.engines.endpoint import EndpointEngine as EndpointEngine
    from .chat.folders.registry import load_local_engine as load_local_engine
    from .diffusion.denoiser import Denoiser as Denoiser
    from .diffusion.diffusers_unet import DiffusersDenoiser as DiffusersDenoiser
    from .diffusion.schedule import Schedule as Schedule
    from .diffusion.unet_files import find_unet as find_unet
    from .edit.codec import DiffusersCodec as DiffusersCodec
    from .edit.prompt_to_prompt import PromptToPromptOptions as PromptToPromptOptions
    from .edit.session import EditSession as EditSession
    from .edit.session import EditSettings as EditSettings
    from .evaluate.estimates import Estimate as Estimate
    from .paint.crop import crop as crop
    from .paint.crop import stitch as stitch
    from .restore.checkpoint import load_restorer as load_restorer
    from .restore.colour import ColourMatch as ColourMatch
    from .restore.colour import match_colour as match_colour
    from .restore.seam import seam as seam
    from .scene.plan import ScenePlan as ScenePlan
    from .scene.session import SceneSession as SceneSession
    from .text.encoder import CLIPPromptEncoder as CLIPPromptEncoder
    from .text.encoder import PromptEncoder as PromptEncoder
    from .text.tokenizer import clip_tokenizer as clip_tokenizer

    __version__: str


def __getattr__(name: str) -> Any:
    if name in NAMES:
        value = getattr(import_module(f".{NAMES[name]}", __name__), name)
    elif name in ROOMS:
        value = import_module(f".{name}", __name__)
    elif name == "__version__":
        from .version import find_version

        value = find_version()
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *NAMES, *ROOMS, "__version__"})
