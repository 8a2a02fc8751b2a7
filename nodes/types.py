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

Scene = io.Custom("LLMGA_SCENE")
"""A ``llmga.scene.ScenePlan``."""

PaintedScene = io.Custom("LLMGA_PAINTED_SCENE")
"""A ``nodes.scene_synthesis.PaintedScene``: the plan that was painted, and its masks and maps."""

BoundingBoxes = io.Custom("BOUNDING_BOX")
"""ComfyUI's own: a list of {"x", "y", "width", "height", "metadata"} in pixels."""

Elements = io.Custom("ARRAY")
"""ComfyUI's own: the elements of its Create Bounding Boxes."""

Crop = io.Custom("LLMGA_CROP")
"""A ``llmga.paint.crop.Crop``: the whole pictures, and where their parts were cut out."""

Regions = io.Custom("LLMGA_REGIONS")
"""A ``llmga.paint.regions.Regions``: the regions of one picture, and what is painted of them so far."""


def seed_input(tooltip: str) -> io.Int.Input:
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=2**64 - 1,
        control_after_generate=True,
        optional=True,
        tooltip=tooltip,
    )
