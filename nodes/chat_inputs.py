"""What the nodes with a language model share: the inputs that they declare, and what the values of these become."""

from __future__ import annotations

from typing import Any, get_args

import torch
from comfy_api.latest import io
from PIL import Image

from ..llmga.chat import LANGUAGES, Picture, Policy, Sampling
from ..llmga.chat.engines.base import MAX_NEW_TOKENS, MAX_THOUGHT_TOKENS, THOUGHT_TOKENS, ChatEngine
from ..llmga.images import paint_hole_black, to_pil
from . import check, host
from .types import Engine

POLICIES = get_args(Policy)


def vision_engine_input() -> io.Input:
    """The language model of a node that cannot do without pictures."""
    return Engine.Input(
        "engine",
        tooltip="A language model that sees pictures: LLMGA Model Loader, LLMGA Endpoint or LLMGA Host Language Model.",
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


def policy_input() -> io.Combo.Input:
    return io.Combo.Input(
        "policy",
        options=list(POLICIES),
        default="ask_again",
        optional=True,
        advanced=True,
        tooltip="What to do with a reply that holds no prompt where one was asked for. ask_again: ask once more. "
        "whole_reply: use the reply as the prompt (a refusal is still an error). keep_previous: the last prompt of the "
        "history. error: stop.",
    )


def language_input(tooltip: str) -> io.Combo.Input:
    return io.Combo.Input(
        "language",
        options=list(LANGUAGES),
        default="en",
        optional=True,
        advanced=True,
        tooltip=tooltip,
    )


def thinking_inputs() -> list[io.Input]:
    """Whether the language model thinks before it answers, and how long it may."""
    return [
        io.Boolean.Input(
            "thinking",
            default=False,
            optional=True,
            advanced=True,
            tooltip="Asks the model to think before it answers, where it can; off asks it not to. An endpoint gets this "
            "only if its record has 'thinking'. A thought is never painted.",
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


def require_engine(value: Any) -> ChatEngine:
    """
    Raises:
        ValueError: what is connected to 'engine' is not a language model.
    """
    return check.instance(
        "engine", value, ChatEngine, "an LLMGA loader: Model Loader, Endpoint or Host Language Model"
    )


def sampling_of(
    seed: Any, temperature: Any, max_new_tokens: Any, thinking: Any, thought_tokens: Any, top_p: Any = 1.0
) -> Sampling:
    """How replies are drawn, by the values of these inputs.

    Raises:
        ValueError: a value is of another kind or out of range.
    """
    return Sampling(
        check.integer("seed", seed, 0, 2**64 - 1),
        check.number("temperature", temperature, 0.0, 2.0),
        top_p,
        check.integer("max_new_tokens", max_new_tokens, 1, MAX_NEW_TOKENS),
        thinking=check.flag("thinking", thinking),
        thought_tokens=check.integer("thought_tokens", thought_tokens, 0, MAX_THOUGHT_TOKENS),
    )


def shown_pictures(image: torch.Tensor | None, mask: torch.Tensor | None) -> tuple[tuple[Picture, ...], bool]:
    """The pictures of this turn with the hole painted black, and whether there is a hole.

    An empty mask is none: LoadImage gives 64×64 zeros for a picture without one.
    """
    masked = mask is not None and bool(check.mask("mask", mask).any())
    if image is None:
        if masked:
            raise ValueError(
                "mask says where the hole of a picture is, but image is not connected; connect both"
            )
        return (), False
    image = check.image("image", image)
    if masked:
        image = paint_hole_black(image, check.mask("mask", mask))
    return tuple(map(encoded, to_pil(image))), masked


def holes_of(mask: torch.Tensor | None, count: int) -> list[bool]:
    """Whether each of ``count`` pictures has a hole, where there is one mask for all of them or one for each."""
    if mask is None:
        return [False] * count
    found = check.mask("mask", mask).flatten(1).any(dim=1).tolist()
    return found * count if len(found) == 1 else found


def encoded(picture: Image.Image) -> Picture:
    """A picture as a PNG, which takes a second for a large one, with a cancel point before it."""
    host.raise_if_cancelled()
    return Picture.from_pil(picture)
