"""The pack's own socket types, and the words they are explained with."""

from comfy_api.latest import io

Engine = io.Custom("LLMGA_ENGINE")
"""A ``llmga.chat.ChatEngine``."""

History = io.Custom("LLMGA_HISTORY")
"""A ``llmga.chat.Conversation``."""

Inversion = io.Custom("LLMGA_INVERSION")
"""A ``nodes.edit_inputs.HostInversion``: an inverted picture and its prompt."""

PromptToPrompt = io.Custom("LLMGA_P2P_OPTIONS")
"""A ``llmga.edit.PromptToPromptOptions``."""

Restorer = io.Custom("LLMGA_RESTORER")
"""A ``nodes.restore.Restorer``: a DiffRIR under the host's memory management."""

Crop = io.Custom("LLMGA_CROP")
"""A ``llmga.paint.crop.Crop``: the whole pictures, and where their parts were cut out."""


def temperature_input() -> io.Float.Input:
    return io.Float.Input(
        "temperature",
        default=0.2,
        min=0.0,
        max=2.0,
        step=0.05,
        tooltip="0 always takes the likeliest word; up to 2, higher is more varied. LLMGA uses 0.2.",
    )
