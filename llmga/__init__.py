"""LLMGA as a library: a language model writes the generation prompt, a diffusion model paints it.

Nothing here knows ComfyUI; the nodes in ``nodes/`` are a thin layer over these rooms.
"""

__version__ = "0.1.0"
