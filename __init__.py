"""ComfyUI's way in: the nodes, the web extension and its help pages.

Everything is imported inside the entry point, so that a host too old for it prints one clear line instead of a traceback.
"""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    from .nodes import extension

    return extension()
