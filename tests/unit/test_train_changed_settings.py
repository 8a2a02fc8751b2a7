"""A training that goes on with other settings of the loop: each has its effect from there on, or is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("accelerate", reason="training needs accelerate")

from support.line_training import Line, assert_same, losses, settings, weights

from llmga.train import checkpoint as checkpoints
from llmga.train import learning_rate, train
from llmga.train.log import read_log


def begun(folder: Path, **values: Any) -> Path:
    train(Line(), settings(**{"steps": 4, **values}), folder)
    return folder


def saved(folder: Path, step: int, name: str) -> dict[str, torch.Tensor]:
    return load_file(checkpoints.folder_of(folder / "checkpoints", step) / f"{name}.safetensors")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ema": 0.9}, "holds no average of the weights, .* ema 0; now asked is ema 0.9: set ema to 0"),
        ({"seed": 1}, "'seed': 0.*'seed': 1.*give the old values or another output folder"),
        ({"batch": 8}, "'batch': 4.*'batch': 8"),
        ({"micro_batch": 4}, "'micro_batch': 2.*'micro_batch': 4"),
        ({"steps": 3}, "trained for 4 steps, now asked are 3; raise steps"),
    ],
)
def test_what_a_run_cannot_go_on_with_is_refused_and_nothing_is_changed(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    begun(tmp_path, ema=0.0)
    before, rows = weights(tmp_path / "result"), losses(tmp_path)
    with pytest.raises(ValueError, match=message):
        train(Line(), settings(**{"steps": 6, "ema": 0.0, **values}), tmp_path)
    assert_same(weights(tmp_path / "result"), before)
    assert losses(tmp_path) == rows and checkpoints.steps(tmp_path / "checkpoints") == [2, 4]


def test_fp16_is_not_switched_on_in_a_run_without_a_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a processor accelerate refuses fp16 itself, so a scale is put where a graphics card has one."""
    import accelerate

    class Scaled(accelerate.Accelerator):
        def __init__(self, **values: Any) -> None:
            super().__init__(**values)
            self.scaler = torch.amp.GradScaler("cpu")

    begun(tmp_path)
    monkeypatch.setattr(accelerate, "Accelerator", Scaled)
    with pytest.raises(ValueError, match="no scale of the loss.* now asked is mixed_precision fp16: set"):
        train(Line(), settings(steps=6), tmp_path)


def test_bf16_may_be_switched_on_and_off_and_the_weights_stay_whole(tmp_path: Path) -> None:
    for steps, precision in ((4, "no"), (6, "bf16"), (8, "no")):
        train(Line(), settings(steps=steps, mixed_precision=precision), tmp_path)
        assert all(value.dtype == torch.float32 for value in saved(tmp_path, steps, "model").values())
    assert losses(tmp_path)[-1][0] == 8


@pytest.mark.parametrize("decay", [0.99, 0.2])
def test_another_decay_of_the_average_goes_on_from_the_average(tmp_path: Path, decay: float) -> None:
    begun(tmp_path, ema=0.9)
    before = saved(tmp_path, 4, "ema")
    train(Line(), settings(steps=5, ema=decay), tmp_path)
    now = min(decay, 5 / 14)  # the decay warms up with the steps
    raw, average = saved(tmp_path, 5, "model"), saved(tmp_path, 5, "ema")
    for name, value in average.items():
        torch.testing.assert_close(value, before[name].lerp(raw[name], 1 - now))


def test_without_the_average_the_weights_themselves_are_exported(tmp_path: Path) -> None:
    begun(tmp_path, ema=0.9)
    train(Line(), settings(steps=6, ema=0.0), tmp_path)
    raw = {name.removeprefix("parts.net."): value for name, value in saved(tmp_path, 6, "model").items()}
    assert_same(weights(tmp_path / "result"), raw)
    with pytest.raises(ValueError, match="holds no average"):
        train(Line(), settings(steps=8, ema=0.9), tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        {"schedule": "cosine"},
        {"warmup": 8},
        {"lr": 0.001},
        {"schedule": "multistep", "milestones": (3, 5), "gamma": 0.1},
    ],
)
def test_the_learning_rate_is_that_of_the_new_settings_from_there_on(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    begun(tmp_path)
    now = settings(steps=6, log_every=1, **values)
    train(Line(), now, tmp_path)
    logged = {row["step"]: row["lr"] for row in read_log(tmp_path / "log.jsonl")}
    assert [logged[step] for step in (4, 5, 6)] == [0.01, learning_rate(now, 4), learning_rate(now, 5)]


def test_the_optimizer_has_the_new_settings_and_not_the_checkpoints(tmp_path: Path) -> None:
    begun(tmp_path, weight_decay=0.01)
    train(Line(), settings(steps=6, weight_decay=0.5, betas=(0.8, 0.9), adam_eps=1e-6), tmp_path)
    folder = checkpoints.folder_of(tmp_path / "checkpoints", 6)
    (group,) = torch.load(folder / "optimizer.bin", weights_only=True)["param_groups"]
    assert (group["weight_decay"], group["betas"], group["eps"]) == (0.5, (0.8, 0.9), 1e-6)


def test_steps_lowered_to_those_that_are_done_train_no_more_and_export(tmp_path: Path) -> None:
    trainer = Line()
    trainer.fail_at = 11  # in the sixth step, behind the checkpoint of the fourth
    with pytest.raises(KeyboardInterrupt):
        train(trainer, settings(), tmp_path)
    resumed = Line()
    train(resumed, settings(steps=4), tmp_path)
    assert resumed.seen == []
    assert_same(weights(tmp_path / "result"), weights(begun(tmp_path.with_name("alone")) / "result"))
