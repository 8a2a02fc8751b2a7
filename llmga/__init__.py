"""LLMGA as a library: a language model writes the generation prompt, a diffusion model paints it.

The names in ``__all__`` are the library's public interface, and the rooms (``llmga.chat``, ``llmga.edit`` …) are its
subpackages. Both are imported when they are first used, so ``import llmga`` itself costs nothing and needs no torch.
Nothing here knows ComfyUI; the nodes in ``nodes/`` are a thin layer over these rooms.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

ROOMS = ("chat", "data", "diffusion", "downloads", "edit", "images", "paint", "restore", "text", "train")
"""The submodules that ``llmga.NAME`` imports."""

NAMES = {
    "ChatEngine": "chat.engines.base",
    "ColourMatch": "restore.colour",
    "Control": "edit.control",
    "Conversation": "chat.conversation",
    "Denoiser": "diffusion.denoiser",
    "DiffusersDenoiser": "diffusion.diffusers_unet",
    "Endpoint": "chat.endpoints",
    "EndpointEngine": "chat.engines.endpoint",
    "Picture": "chat.conversation",
    "Reply": "chat.assistant",
    "Sampling": "chat.engines.base",
    "Schedule": "diffusion.schedule",
    "clip_tokenizer": "text.tokenizer",
    "crop": "paint",
    "edit_friendly": "edit.edit_friendly",
    "encode_sd15": "text.encode",
    "encode_sdxl": "text.encode",
    "find_unet": "diffusion.unet_files",
    "invert": "edit.inversion",
    "load_checkpoint": "restore.checkpoint",
    "load_endpoints": "chat.endpoints",
    "load_local_engine": "chat.engines.local",
    "match_colour": "restore.colour",
    "respond": "chat.assistant",
    "seam": "restore.seam",
    "stitch": "paint",
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
    from . import images as images
    from . import paint as paint
    from . import restore as restore
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
    from .chat.engines.local import load_local_engine as load_local_engine
    from .diffusion.denoiser import Denoiser as Denoiser
    from .diffusion.diffusers_unet import DiffusersDenoiser as DiffusersDenoiser
    from .diffusion.schedule import Schedule as Schedule
    from .diffusion.unet_files import find_unet as find_unet
    from .edit.control import Control as Control
    from .edit.edit_friendly import edit_friendly as edit_friendly
    from .edit.inversion import invert as invert
    from .paint import crop as crop
    from .paint import stitch as stitch
    from .restore.checkpoint import load_checkpoint as load_checkpoint
    from .restore.colour import ColourMatch as ColourMatch
    from .restore.colour import match_colour as match_colour
    from .restore.seam import seam as seam
    from .text.encode import encode_sd15 as encode_sd15
    from .text.encode import encode_sdxl as encode_sdxl
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
