"""Checks that the numbers of a run are finite, before what it learned is saved or exported."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from . import checkpoint

_LOWER = "lower lr, raise warmup, or set a smaller clip (0 clips nothing)"
_CHECKED = ("loss", "grad_norm", "adversary_loss", "adversary_grad_norm")


def check_means(
    values: Mapping[str, float], step: int, root: Path, *, scaled: bool, advice: str = ""
) -> None:
    """Check the losses and the norms of gradients in a row of the log.

    Args:
        step: optimizer steps so far.
        root: the folder of the checkpoints.
        scaled: whether gradients are scaled (fp16): the scaler then skips steps whose gradient overflows, so that its norm
            may be infinite now and then.
        advice: what else than the learning rate may be the cause.

    Raises:
        FloatingPointError: one is not finite; the message names the last good checkpoint and what to lower.
    """
    for name in _CHECKED:
        value = values.get(name, 0.0)
        if not math.isfinite(value) and not (scaled and name.endswith("grad_norm")):
            raise FloatingPointError(
                f"the {name} is {value} by step {step}; {advice}{_what_to_do(step, root)}"
            )


def check_weights(
    weights: Iterable[tuple[str, torch.Tensor]], step: int, root: Path, accelerator: Any
) -> None:
    """Check weights before they are saved or exported; all processes must call it, and all raise where one would.

    Raises:
        FloatingPointError: some are not finite; the message names the first, the last good checkpoint, and what to lower.
    """
    bad = [name for name, weight in weights if not _is_finite(weight)]
    count = accelerator.reduce(torch.tensor(float(len(bad)), device=accelerator.device), "sum")
    if count.item():
        which = f"{len(bad)} weights, {bad[0]} among them," if bad else "weights of another process"
        raise FloatingPointError(f"{which} are not finite after step {step}; {_what_to_do(step, root)}")


def _is_finite(weight: torch.Tensor) -> bool:
    weight = weight.detach()
    local: Any = getattr(weight, "to_local", None)  # of a sharded weight, this process's part
    weight = weight if local is None else local()
    if not weight.numel():
        return True
    # The largest magnitude, which no sum overflows and for which no copy of the weight is made.
    return math.isfinite(torch.linalg.vector_norm(weight, math.inf).item())


def _what_to_do(step: int, root: Path) -> str:
    """Where a run can go on from, and what to change before."""
    here = checkpoint.folder_of(root, step)
    delete = f"delete {here}, which holds them; " if here.exists() else ""
    before = [checkpoint.folder_of(root, other) for other in checkpoint.steps(root) if other < step]
    good = next((folder for folder in reversed(before) if checkpoint.read_state(folder) is not None), None)
    if good is None:
        return f"{delete}there is no earlier checkpoint, so the next run starts anew: {_LOWER}"
    return f"{delete}the last good checkpoint is {good}, from which the next run goes on: {_LOWER}"
