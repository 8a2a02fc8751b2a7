"""The pack's own socket types, and the words they are explained with."""

from comfy_api.latest import io

from ..llmga.chat.engines.base import MAX_NEW_TOKENS, MAX_THOUGHT_TOKENS, THOUGHT_TOKENS

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


def thinking_inputs() -> list[io.Input]:
    """Whether the language model thinks before it answers, and how long it may."""
    return [
        io.Boolean.Input(
            "thinking",
            default=False,
            optional=True,
            advanced=True,
            tooltip="Asks the model to think before it answers, where it can; off asks it not to. An endpoint is told only "
            "if its record has 'thinking'. A thought is never painted.",
        ),
        io.Int.Input(
            "thought_tokens",
            default=THOUGHT_TOKENS,
            min=0,
            max=MAX_THOUGHT_TOKENS,
            optional=True,
            advanced=True,
            tooltip=f"Room for the thought alone, 0 to {MAX_THOUGHT_TOKENS} tokens, beside max_new_tokens; some models "
            "think also when thinking is off. A thought that does not end within it is an error.",
        ),
    ]


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


def max_new_tokens_input(what: str) -> io.Int.Input:
    """How long a reply may be; ``what`` ends, as the tooltip says it."""
    return io.Int.Input(
        "max_new_tokens",
        default=512,
        min=1,
        max=MAX_NEW_TOKENS,
        optional=True,
        advanced=True,
        tooltip=f"{what} ends after this many tokens at the latest, 1 to {MAX_NEW_TOKENS}.",
    )


def temperature_input() -> io.Float.Input:
    return io.Float.Input(
        "temperature",
        default=0.2,
        min=0.0,
        max=2.0,
        step=0.05,
        optional=True,
        advanced=True,
        tooltip="0 always takes the likeliest word; up to 2, higher is more varied. LLMGA uses 0.2.",
    )
