"""The pack's own socket types, and the words they are explained with."""

from comfy_api.latest import io

Engine = io.Custom("LLMGA_ENGINE")
"""A ``llmga.chat.ChatEngine``."""

History = io.Custom("LLMGA_HISTORY")
"""A ``llmga.chat.Conversation``."""
