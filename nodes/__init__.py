"""The nodes: sockets over ``llmga``. ``host.py`` and ``host_*.py`` alone touch ComfyUI's internals."""

MINIMUM_COMFYUI = (0, 20, 0)


def extension():
    """The extension that ComfyUI loads.

    Raises:
        RuntimeError: ComfyUI is older than ``MINIMUM_COMFYUI``; the message is the one line the host prints.
    """
    require_comfyui()
    from comfy_api.latest import ComfyExtension

    from . import (
        caption_folder,
        chat,
        chat_per_picture,
        edit,
        edit_instruction,
        edit_options,
        encode,
        flow,
        gill,
        gill_chat,
        history,
        host,
        inversion,
        judge,
        keep,
        loaders,
        paint,
        regions,
        restore,
        scene,
        scene_synthesis,
        unet_loader,
    )

    host.register_folders()
    host.sweep_folders()

    class LLMGAExtension(ComfyExtension):
        async def get_node_list(self):
            rooms = (
                chat,
                chat_per_picture,
                judge,
                caption_folder,
                loaders,
                history,
                encode,
                edit_instruction,
                inversion,
                edit,
                edit_options,
                flow,
                unet_loader,
                paint,
                regions,
                keep,
                restore,
                gill,
                gill_chat,
                scene,
                scene_synthesis,
            )
            return [node for room in rooms for node in room.NODES]

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
