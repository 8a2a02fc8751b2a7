"""The nodes: sockets over ``llmga``. ``host.py`` alone touches ComfyUI's internals."""

MINIMUM_COMFYUI = (0, 20, 0)


def extension():
    """The extension that ComfyUI loads.

    Raises:
        RuntimeError: ComfyUI is older than ``MINIMUM_COMFYUI``; the message is the one line the host prints.
    """
    require_comfyui()
    from comfy_api.latest import ComfyExtension

    from . import chat, encode, history, host, loaders, mini

    host.register_folders()
    mini.register_if_asked()

    class LLMGAExtension(ComfyExtension):
        async def get_node_list(self):
            return [*chat.NODES, *loaders.NODES, *history.NODES, *encode.NODES]

    return LLMGAExtension()


def require_comfyui() -> None:
    try:
        from comfyui_version import __version__ as found
    except ImportError:
        found = "of unknown version"
    numbers = tuple(int(part) for part in found.split(".")[:3] if part.isdigit())
    if numbers < MINIMUM_COMFYUI:
        wanted = ".".join(map(str, MINIMUM_COMFYUI))
        raise RuntimeError(f"LLMGA needs ComfyUI {wanted} or newer, this is ComfyUI {found}; update ComfyUI")
