"""A run whose loss, gradient or weights are no longer numbers stops, and nothing of them is saved."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

pytest.importorskip("accelerate", reason="training needs accelerate")

from support.line_training import Line, assert_same, settings, weights

from llmga.train import checkpoint as checkpoints
from llmga.train import train


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="loss is"):
        train(Line(), settings(lr=1e30), tmp_path)


class SteepLine(Line):
    """A line whose loss stays finite while its gradient is not a number, from a step on."""

    def __init__(self, steep_from: int) -> None:
        super().__init__()
        self.steep_from, self.step = steep_from, 0

    def begin_step(self, step: int) -> None:
        self.step = step

    def loss(self, inputs, generator):
        error, metrics = super().loss(inputs, generator)
        if self.step >= self.steep_from:  # the root of zero is zero, and its slope is infinite
            error = error + (0 * self.net[0].bias.sum()).sqrt()
        return error, metrics


@pytest.mark.parametrize("clip", [1.0, 0.0])
def test_a_gradient_that_is_no_number_reaches_no_checkpoint_and_no_result(
    tmp_path: Path, clip: float
) -> None:
    """Without clipping its norm is not known, and the weights themselves are looked at."""
    what = (
        "the grad_norm is nan by step 4"
        if clip
        else "weights, .*bias among them, are not finite after step 4"
    )
    good = checkpoints.folder_of(tmp_path / "checkpoints", 2)
    with pytest.raises(FloatingPointError, match=f"{what}; the last good checkpoint is {good}.*lower lr"):
        train(SteepLine(3), settings(clip=clip, log_every=2, prefetch=0), tmp_path)
    assert checkpoints.steps(tmp_path / "checkpoints") == [2] and not (tmp_path / "result").exists()
    other = tmp_path / "from the start"
    with pytest.raises(
        FloatingPointError, match="no earlier checkpoint, so the next run starts anew: lower lr"
    ):
        train(SteepLine(1), settings(clip=clip, log_every=2), other)
    train(Line(), settings(clip=clip), tmp_path)  # goes on from step 2
    assert all(value.isfinite().all() for value in weights(tmp_path / "result").values())


def test_a_checkpoint_with_a_weight_that_is_no_number_is_not_exported(tmp_path: Path) -> None:
    """Such as an older version saved."""
    train(Line(), settings(steps=4, ema=0.0), tmp_path)
    folder = checkpoints.folder_of(tmp_path / "checkpoints", 4)
    file = folder / "model.safetensors"
    save_file({name: value * math.nan for name, value in load_file(file).items()}, file, {"format": "pt"})
    before = weights(tmp_path / "result")
    with pytest.raises(FloatingPointError, match=f"delete {folder}, which holds them; .*step-00000002"):
        train(Line(), settings(steps=4, ema=0.0), tmp_path)
    assert_same(weights(tmp_path / "result"), before)
