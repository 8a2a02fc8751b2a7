"""The ControlNet of a conditioning, for the prompts of an edit."""

from __future__ import annotations

from typing import Any

import torch

from .prompt_encoder import Conditioning

CONTROL_METHODS = ("get_control", "get_models", "pre_run", "get_extra_hooks", "cleanup")
"""What the host calls on the ControlNet of a conditioning."""


def with_control(conditioning: Conditioning, control: Conditioning | None) -> Conditioning:
    """The prompt's conditioning with the ControlNet of another one, whose text and area play no part.

    Raises:
        ValueError: the other one has no ControlNet, or not the same one everywhere.
    """
    if control is None:
        return conditioning
    if not _is_conditioning(control):
        raise ValueError(
            f"control must be a CONDITIONING from Apply ControlNet, got {_described(control)}; disconnect it to edit without"
        )
    nets = {id(extra.get("control")): extra.get("control") for _, extra in control}
    (net,) = nets.values() if len(nets) == 1 else (None,)
    if net is None:
        found = "none" if set(nets) == {id(None)} else f"{len(nets)} different ones"
        raise ValueError(
            f"control must come from Apply ControlNet with one ControlNet in it, got {found}; disconnect it to edit without"
        )
    if isinstance(net, type) or not all(callable(getattr(net, name, None)) for name in CONTROL_METHODS):
        raise ValueError(
            f"control must come from Apply ControlNet; what it carries is not a ControlNet but {type(net).__name__}; "
            "disconnect it to edit without"
        )
    return [
        [cond, {**extra, "control": net, "control_apply_to_uncond": False}] for cond, extra in conditioning
    ]


def control_hints(control: Any, *arguments: Any) -> Any:
    """What a ControlNet adds to the UNet.

    Raises:
        ValueError: the ControlNet fails at it, mostly because it is made for another kind of model.
    """
    try:
        return control.get_control(*arguments)
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"control: its ControlNet does not work with model ({error}); connect one that is made for the kind of "
            "checkpoint that 'model' is (SD1.5 or SDXL)"
        ) from error


def _is_conditioning(value: Any) -> bool:
    """Whether it is what the host's samplers take: a list of [tensor, dictionary] pairs, at least one."""
    return (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(
            isinstance(pair, (list, tuple))
            and len(pair) == 2
            and isinstance(pair[0], torch.Tensor)
            and isinstance(pair[1], dict)
            for pair in value
        )
    )


def _described(value: Any) -> str:
    if isinstance(value, (list, tuple)) and not value:
        return "an empty one"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {type(value[0]).__name__}"
    return type(value).__name__
